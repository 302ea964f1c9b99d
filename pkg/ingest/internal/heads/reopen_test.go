package heads

import (
	"os"
	"path/filepath"
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

// TestStoppingIsNoHole: a read that was begun before all is closed is told what it misses then, and so is
// whoever wants a tenant flushed.
//
// RELIABILITY P2
func TestStoppingIsNoHole(t *testing.T) {
	r := newRig(t)
	r.put(write("t", 1, one("a", 0, 1)))
	r.Heads.mu.Lock()
	s := r.Heads.mu.slots["t"]
	r.Heads.mu.Unlock()
	r.stop()
	h, err := r.await(t.Context(), "t", s)
	require.Nil(t, h)
	require.ErrorContains(t, err, "stopping")
	require.Error(t, r.Flush(t.Context(), "t"))
}

// TestFlushAllTellsOfUnopened: a node that leaves does not take what it could not open for shipped.
//
// RELIABILITY I5
func TestFlushAllTellsOfUnopened(t *testing.T) {
	r := newRig(t)
	r.put(write("t", 1, one("a", 0, 1)))
	r.put(write("shut", 1, one("a", 0, 1)))
	r.stop()
	note := filepath.Join(r.cfg.Dir, "shut", endNoteFilename)
	require.NoError(t, os.Remove(note))
	require.NoError(t, os.Mkdir(note, 0o755)) // keeps it from being opened
	r.run()
	require.ErrorContains(t, r.FlushAll(t.Context()), "shut")
	require.NotEmpty(t, matches(t, r, "01*/index"), "the others are flushed")
	require.NoError(t, os.Remove(note))
	r.advance(retryLongest)
	r.put(write("shut", 1, one("a", 1000, 2)))
	require.NoError(t, r.FlushAll(t.Context()))
}
