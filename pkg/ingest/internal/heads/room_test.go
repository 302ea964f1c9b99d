package heads

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// TestNoRoomToOpen: a log that takes more memory than there is is not read to its
// end and stays as it is; other tenants are opened. It is read when there is room.
//
// RELIABILITY I9
func TestNoRoomToOpen(t *testing.T) {
	var full atomic.Bool // as soon as series are read
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Memory = func() (live, held float64) {
			if full.Load() {
				return 0.9, 1.1
			}
			return 0.9, 1
		}
	})
	var many []storetest.Series
	for i := range 2 * lookEvery {
		many = append(many, one(fmt.Sprintf("s%04d", i), 0, float64(i)))
	}
	r.put(write("big", 1, many...))
	r.put(write("t", 1, one("a", 0, 1)))
	want := r.dump()
	require.Len(t, want, len(many)+1)
	logs := func() map[string]string {
		found, err := filepath.Glob(filepath.Join(r.cfg.Dir, "big", walDir, "*"))
		require.NoError(t, err)
		out := map[string]string{}
		for _, f := range found {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			out[f] = string(b)
		}
		return out
	}

	r.stop()
	before := logs()
	full.Store(true)
	r.run()
	_, err := r.Append(t.Context(), write("big", 1, many[0]))
	require.ErrorContains(t, err, "memory")
	r.put(write("t", 1, one("a", 1000, 2)))
	require.Equal(t, before, logs(), "its log is as it was")
	require.NoDirExists(t, filepath.Join(r.cfg.Dir, "big", damagedDir, heldDir))

	full.Store(false)
	_, err = r.Append(t.Context(), write("big", 1, many[0]))
	require.ErrorContains(t, err, "memory", "not at once: each try takes what there is")
	r.advance(retryNoRoom)
	r.put(write("big", 1, one("s0000", 1000, 1)))
	r.put(write("t", 1, one("a", 2000, 3)))
	require.Len(t, r.dump(), len(want))
}

// TestCrowded: while memory is short new series are refused, and those that are there go on, also
// after a restart; what is refused comes again when there is room.
//
// RELIABILITY I7
func TestCrowded(t *testing.T) {
	var crowded atomic.Bool
	r := newRig(t, func(_ *Config, p *Parts) {
		p.Crowded = func() fmt.Stringer {
			if crowded.Load() {
				return bytes.NewBufferString("memory is short")
			}
			return nil
		}
	})
	r.put(write("t", 1, one("a", 0, 1), one("b", 0, 1)))
	crowded.Store(true)
	for i := range 2 {
		at := float64(1000 * (i + 1))
		res, err := r.Append(t.Context(), write("t", 1, one("a", at, 2), one("b", at, 2), one("c", at, 2)))
		require.NoError(t, err)
		require.Len(t, res.Refused, 1)
		require.EqualValues(t, 2, res.Refused[0].Series)
		require.Equal(t, refuse.SeriesLimit, res.Refused[0].Err.Reason)
		require.Equal(t, `tenant t: series {__name__="c"} is one too many: memory is short; series that are there go on; the label with the most values is __name__, with 2`, res.Refused[0].Err.Detail)
		require.Len(t, r.read(t.Context(), named("a"))[seriesName("a")], i+2)
		r.restart()
	}
	crowded.Store(false)
	r.put(write("t", 1, one("a", 3000, 3), one("b", 3000, 3), one("c", 3000, 3)))
}
