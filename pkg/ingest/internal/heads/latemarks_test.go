package heads

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// TestLateSamplesKilledTwice: a chunk of late samples is lost with its buffer while the mark that
// stands for it is kept, twice: at the second start newer chunks are on disk.
//
// RELIABILITY I2
func TestLateSamplesKilledTwice(t *testing.T) {
	dir := t.TempDir()
	db := openSmall(t, dir)
	const series, perSeries = 200, 130 // chunks of more than the buffer: reading the log again writes them out
	random := rand.New(rand.NewPCG(1, 2))
	app := db.Appender(t.Context())
	for s := range series {
		var ref storage.SeriesRef
		for i := range int64(perSeries) {
			var err error
			ref, err = app.Append(ref, labels.FromStrings("__name__", fmt.Sprintf("s%d", s)), start+hour+i*15_000, random.Float64())
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	late := lateSamples(t, db, 0, 6)
	for life := range 3 {
		killed := killedCopy(t, dir)
		require.NoError(t, db.Close())
		dir = killed
		require.NoError(t, dropLostMarks(dir, slog.New(slog.DiscardHandler)))
		require.Empty(t, marksIn(t, dir))
		db = openSmall(t, dir)
		require.Equal(t, late, readTimes(t, db)[:len(late)], "life %d", life+1)
	}
	require.NoError(t, db.Close())
}

// TestLateSamplesOfACut: late samples that are about to be cut into a block have marks that name no
// chunk. Killed before the block is there, all are read.
//
// RELIABILITY I2
func TestLateSamplesOfACut(t *testing.T) {
	dir := t.TempDir()
	db := openSmall(t, dir)
	want := inOrder(t, db)
	want = append(want, lateSamples(t, db, 0, 3)...)
	_, err := tsdb.NewOOOCompactionHead(t.Context(), db.Head())
	require.NoError(t, err)
	want = append(want, lateSamples(t, db, 10, 2)...)
	killed := killedCopy(t, dir)
	require.NoError(t, db.Close())
	require.NoError(t, dropLostMarks(killed, slog.New(slog.DiscardHandler)))
	db = openSmall(t, killed)
	require.ElementsMatch(t, want, readTimes(t, db))
	require.NoError(t, db.Close())
}

// TestGoodMarks: marks of chunks that are there stay, and so does the log, byte by byte. Of a log
// with both only those go that are lost, and no other record.
func TestGoodMarks(t *testing.T) {
	dir := t.TempDir()
	db := openSmall(t, dir)
	inOrder(t, db)
	lateSamples(t, db, 0, 6)
	require.NoError(t, db.Close())
	good := marksIn(t, dir)
	require.Len(t, good, 1)
	before := files(t, filepath.Join(dir, wblDir))
	require.NoError(t, dropLostMarks(dir, slog.New(slog.DiscardHandler)))
	for name, was := range files(t, filepath.Join(dir, wblDir)) {
		require.True(t, os.SameFile(before[name], was), name)
		require.Equal(t, before[name].ModTime(), was.ModTime())
	}
	require.NoDirExists(t, filepath.Join(dir, damagedDir))

	db = openSmall(t, dir)
	lateSamples(t, db, 10, 6)
	killed := killedCopy(t, dir)
	require.NoError(t, db.Close())
	require.Greater(t, len(marksIn(t, killed)), 1)
	others := recordsIn(t, killed)
	require.NoError(t, dropLostMarks(killed, slog.New(slog.DiscardHandler)))
	require.Equal(t, good, marksIn(t, killed))
	require.Equal(t, others, recordsIn(t, killed))
	require.NoDirExists(t, filepath.Join(killed, damagedDir))
}

// TestLateSamplesRestarted: a head takes the marks out when it opens, also when an earlier opening was
// killed at it. Larger chunks afterwards don't write the lost one again.
//
// RELIABILITY I2
func TestLateSamplesRestarted(t *testing.T) {
	for _, c := range []struct {
		name string
		kill func(t *testing.T, m *mender)
	}{
		{"marks not yet taken out", func(*testing.T, *mender) {}},
		{"killed while a segment is written", func(t *testing.T, m *mender) {
			require.NoError(t, m.hold())
			require.NoError(t, os.MkdirAll(m.in(heldTmpDir), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(m.in(heldTmpDir), "00000000"), []byte("half"), 0o644))
		}},
		{"killed between two segments", func(t *testing.T, m *mender) {
			whole := t.TempDir()
			require.NoError(t, os.CopyFS(whole, os.DirFS(m.dir)))
			require.NoError(t, m.hold())
			require.NoError(t, dropLostMarks(whole, m.log))
			require.NoError(t, os.Rename(filepath.Join(whole, wblDir, "00000000"), filepath.Join(m.dir, wblDir, "00000000")))
		}},
		{"killed between two segments, without hard links", func(t *testing.T, m *mender) {
			whole := t.TempDir()
			require.NoError(t, os.CopyFS(whole, os.DirFS(m.dir)))
			require.NoError(t, dropLostMarks(whole, m.log))
			require.NoError(t, os.Rename(filepath.Join(whole, wblDir, "00000000"), filepath.Join(m.dir, wblDir, "00000000")))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, wornConfig, func(c *Config, _ *Parts) { c.OutOfOrderCapMax = 4 })
			r.put(write("t", 1, one("s0", float64(hour), 1)))
			for i := range 6 {
				r.put(write("t", 1, one("s0", float64(i*1000), 1)))
			}
			h := head1(t, r)
			_, err := tsdb.NewOOOCompactionHead(t.Context(), h.db.Head()) // begins a segment
			require.NoError(t, err)
			h.release()
			for i := range 6 {
				r.put(write("t", 1, one("s0", float64(60_000+i*1000), 1)))
			}
			want := r.read(t.Context(), everything())
			require.Len(t, want[seriesName("s0")], 13)
			dir := killedCopy(t, r.cfg.Dir)
			require.Len(t, files(t, filepath.Join(dir, "t", wblDir)), 2)
			r.stop()

			m := r.newHead("t").newMender()
			m.dir = filepath.Join(dir, "t")
			c.kill(t, m)
			r.cfg.Dir, r.cfg.OutOfOrderCapMax = dir, 100
			r.run()
			require.Equal(t, want, r.read(t.Context(), everything()))
			require.Empty(t, marksIn(t, filepath.Join(dir, "t")))
			require.NoDirExists(t, filepath.Join(dir, "t", damagedDir))
			r.put(write("t", 1, one("s0", float64(2*hour), 1))) // in another chunk, which makes newer files
			want = r.read(t.Context(), everything())
			h = head1(t, r)
			h.db.ForceHeadMMap()
			h.release()
			for range 2 {
				r.restart()
				require.Equal(t, want, r.read(t.Context(), everything()))
			}
		})
	}
}

// openSmall opens a TSDB with chunks of four late samples and the least buffer.
func openSmall(t *testing.T, dir string) *tsdb.DB {
	t.Helper()
	o := tsdb.DefaultOptions()
	o.OutOfOrderTimeWindow, o.OutOfOrderCapMax = 10*hour, 4
	o.HeadChunksWriteBufferSize = chunks.MinWriteBufferSize
	o.BlockReloadInterval = 24 * time.Hour // chunks are written when a test says so
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, o, nil)
	require.NoError(t, err)
	db.DisableCompactions()
	return db
}

// inOrder appends a sample of series s0.
func inOrder(t *testing.T, db *tsdb.DB) []int64 {
	t.Helper()
	app := db.Appender(t.Context())
	_, err := app.Append(0, labels.FromStrings("__name__", "s0"), start+hour, 1)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	return []int64{start + hour}
}

// lateSamples appends samples of series s0 out of order, each with a commit of its own.
func lateSamples(t *testing.T, db *tsdb.DB, from, n int64) (at []int64) {
	t.Helper()
	for i := range n {
		at = append(at, start+(from+i)*1000)
		app := db.Appender(t.Context())
		_, err := app.Append(0, labels.FromStrings("__name__", "s0"), at[i], 1)
		require.NoError(t, err)
		require.NoError(t, app.Commit())
	}
	return at
}

// readTimes are the times of the samples of series s0.
func readTimes(t *testing.T, db *tsdb.DB) (at []int64) {
	t.Helper()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer q.Close()
	set := q.Select(t.Context(), false, nil, named("s0"))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			at = append(at, it.AtT())
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return at
}

// killedCopy is the folder of an open TSDB as a kill leaves it: what is buffered is lost.
func killedCopy(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// files are the files of a folder.
func files(t *testing.T, dir string) map[string]os.FileInfo {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := map[string]os.FileInfo{}
	for _, e := range entries {
		out[e.Name()], err = e.Info()
		require.NoError(t, err)
	}
	return out
}

// lateLog reads the log of late samples: the marks that name a chunk, and the records that are no marks.
func lateLog(t *testing.T, dir string) (marks []lateMark, others [][]byte) {
	t.Helper()
	segments, err := numbered(filepath.Join(dir, wblDir))
	require.NoError(t, err)
	dec := newDecoder()
	for _, s := range segments {
		require.NoError(t, replay.EachRecord(filepath.Join(dir, wblDir, s.name), func(rec []byte) error {
			if dec.Type(rec) != record.MmapMarkers {
				others = append(others, slices.Clone(rec))
				return nil
			}
			list, err := dec.MmapMarkers(rec, nil)
			marks = append(marks, slices.DeleteFunc(list, func(m lateMark) bool { return m.MmapRef == 0 })...)
			return err
		}))
	}
	return marks, others
}

func marksIn(t *testing.T, dir string) []lateMark {
	t.Helper()
	marks, _ := lateLog(t, dir)
	return marks
}

func recordsIn(t *testing.T, dir string) [][]byte {
	t.Helper()
	_, others := lateLog(t, dir)
	return others
}
