package heads

import (
	"runtime"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
)

// TestReopenLetsGo: a TSDB that is opened anew does not share memory with what it was before: else a tenant
// that takes half of it would find no room, and be refused for an hour.
//
// RELIABILITY I9
func TestReopenLetsGo(t *testing.T) {
	var before atomic.Pointer[weak.Pointer[tsdb.Head]]
	var looked, held atomic.Bool
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Fault = func(step string) error {
			if was := before.Load(); was != nil && step == "open/tsdb" {
				for range 3 {
					runtime.GC()
				}
				looked.Store(true)
				held.Store(was.Value() != nil)
			}
			return nil
		}
	})
	r.put(write("t", 1, one("a", 0, 1)))
	func() {
		h, err := r.acquire(t.Context(), "t")
		require.NoError(t, err)
		defer h.release()
		head := weak.Make(h.db.Head())
		before.Store(&head)
	}()
	r.setLimits("t", Limits{StartTimestamps: true})
	r.tend(t.Context())
	require.True(t, looked.Load())
	require.False(t, held.Load(), "the old TSDB is still held")
	r.put(write("t", 1, one("a", 1000, 2)))
}
