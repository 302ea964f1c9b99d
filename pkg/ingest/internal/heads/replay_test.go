package heads

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// from is how many TSDBs were opened from what.
func from(r *rig) map[string]float64 {
	out := map[string]float64{}
	for _, what := range []string{startedFromEnd, startedFromLog, startedByTSDB} {
		if n := testutil.ToFloat64(r.metrics.opened.WithLabelValues(what)); n > 0 {
			out[what] = n
		}
	}
	return out
}

// TestStarts: what a TSDB starts from, after an end in order and after a crash, and whatever has
// become of the snapshot and of the files that it goes with. Nothing is lost by any of it, and no snapshot stays.
//
// RELIABILITY I2, P9
func TestStarts(t *testing.T) {
	origin := worn(t)
	want := origin.read(t.Context(), everything())
	origin.stop()
	const snapshot = "chunk_snapshot.*/0*"
	for _, c := range []struct {
		name    string
		pattern string
		damage  func([]byte) []byte // nil: remove the file
		from    string
	}{
		{"closed in order", endNoteFilename, func(b []byte) []byte { return b }, startedFromEnd},
		{"crashed", endNoteFilename, nil, startedFromLog},
		{"note of another version", endNoteFilename, func([]byte) []byte { return []byte(`{"version":2}`) }, startedFromLog},
		{"note is no JSON", endNoteFilename, func([]byte) []byte { return []byte("{") }, startedFromLog},
		{"opened by another program", "", nil, startedFromLog},
		{"no snapshot", snapshot, nil, startedFromLog},
		{"snapshot cut", snapshot, func(b []byte) []byte { return b[:len(b)/2] }, startedFromLog},
		{"snapshot flipped", snapshot, func(b []byte) []byte { b[content(b)/2] ^= 1; return b }, startedByTSDB},
		{"log flipped", "wal/0*", func(b []byte) []byte { b[content(b)/2] ^= 1; return b }, startedFromEnd},
		{"head chunks gone", "chunks_head/0*", nil, startedFromLog},
		{"head chunks flipped", "chunks_head/0*", func(b []byte) []byte { b[content(b)/2] ^= 1; return b }, startedByTSDB},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, wornConfig, func(cfg *Config, _ *Parts) { require.NoError(t, os.CopyFS(cfg.Dir, os.DirFS(origin.cfg.Dir))) })
			r.stop()
			if c.pattern == "" {
				o := tsdb.DefaultOptions()
				o.RetentionDuration = 0 // keep all
				db, err := tsdb.Open(filepath.Join(r.cfg.Dir, "t"), slog.New(slog.DiscardHandler), nil, o, nil)
				require.NoError(t, err)
				require.NoError(t, db.Close())
			} else {
				damage(t, last(matches(t, r, c.pattern))[0], c.damage)
			}
			r.run()
			got := r.read(t.Context(), everything())
			require.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(got)))
			require.True(t, reflect.DeepEqual(want, got))
			if c.from != startedByTSDB { // which mends, and then starts anew
				require.Equal(t, map[string]float64{c.from: 1}, from(r))
			}
			left, err := filepath.Glob(filepath.Join(r.cfg.Dir, "t", "chunk_snapshot.*"))
			require.NoError(t, err)
			require.Empty(t, left)
			require.NoFileExists(t, filepath.Join(r.cfg.Dir, "t", endNoteFilename))

			r.put(write("t", 900, one("new", float64(10*hour), 1)))
			want := r.read(t.Context(), everything())
			r.restart()
			require.True(t, reflect.DeepEqual(want, r.read(t.Context(), everything())))
		})
	}
}

func damage(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	if how == nil {
		require.NoError(t, os.Remove(path))
		return
	}
	change(t, path, how)
}

// TestReferencesAfterAnEnd: a snapshot of an end in order does not tell of series that had left the
// head, though the log does. None of their references is given to another series afterwards.
//
// RELIABILITY I2
func TestReferencesAfterAnEnd(t *testing.T) {
	r := newRig(t, wornConfig)
	r.put(write("t", 1, one("stays", 0, 1)))
	r.put(write("t", 2, one("goes", 0, 2)))
	for i := range 8 {
		r.put(write("t", 1, one("stays", float64(int64(i+1)*hour), 1)))
	}
	h := head1(t, r)
	require.NoError(t, h.db.Compact(t.Context()))
	require.EqualValues(t, 1, h.db.Head().NumSeries())
	h.release()
	r.restart()
	require.Equal(t, map[string]float64{startedFromEnd: 1}, from(r))
	h = head1(t, r)
	require.EqualValues(t, 1, h.db.Head().NumSeries(), "what was there for its reference only is gone")
	h.release()
	r.put(write("t", 3, one("comes", float64(8*hour), 3)))
	want := r.read(t.Context(), everything())

	killed := t.TempDir()
	require.NoError(t, os.CopyFS(killed, os.DirFS(r.cfg.Dir)))
	r.stop()
	r.cfg.Dir = killed
	r.run()
	require.Equal(t, map[string]float64{startedFromLog: 1}, from(r))
	require.Equal(t, want, r.read(t.Context(), everything()))
}

// TestSnapshotOnFullDisk: the disk is full in the middle of what is written for a start from the log. Nothing
// of it is used or stays, the tenant waits, and all is there when there is room.
//
// RELIABILITY I4
func TestSnapshotOnFullDisk(t *testing.T) {
	r := newRig(t, wornConfig)
	var many []storetest.Series
	for i := range 3000 {
		many = append(many, one(fmt.Sprintf("a_rather_long_name_of_a_metric_%d", i), 0, float64(i)))
	}
	r.put(write("t", 1, many...))
	want := r.read(t.Context(), everything())
	killed := killedCopy(t, r.cfg.Dir)
	r.stop()

	dir, resize := smallDisk(t, 512<<20)
	require.NoError(t, os.CopyFS(dir, os.DirFS(killed)))
	resize(int(treeBytes(dir)) + 256<<10)
	r.cfg.Dir = dir
	r.p.FreeBytes = func(string) (int64, error) { return math.MaxInt64, nil } // so that it comes unforeseen
	r.run()
	_, err := r.Append(t.Context(), write("t", 1, one("up", 1000, 2)))
	require.ErrorContains(t, asRefuse(t, err, refuse.Unavailable), "no space left")
	require.Empty(t, from(r))
	left, err := filepath.Glob(filepath.Join(dir, "t", "chunk_snapshot.*"))
	require.NoError(t, err)
	require.Empty(t, left)

	resize(512 << 20)
	r.advance(retryOpening)
	require.Eventually(t, func() bool {
		h, err := r.acquire(t.Context(), "t")
		if err != nil {
			return false
		}
		h.release()
		return true
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, map[string]float64{startedFromLog: 1}, from(r))
	require.Equal(t, want, r.read(t.Context(), everything()))
}
