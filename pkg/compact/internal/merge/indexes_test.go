package merge_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
)

func inTime(from, to int64) made {
	series := []blocktest.Series{
		{Labels: lset("__name__", "a"), Samples: blocktest.Floats(from, to, 15_000, value)},
		{Labels: lset("__name__", "b", "from", labels.FromStrings("t", "x").String()), Samples: blocktest.Floats(from+1000, to, 15_000, value)},
		{Labels: lset("__name__", "only", "in", string(rune('p'+from/7_200_000))), Samples: blocktest.Floats(from, to, 60_000, value)},
	}
	return made{series: series, opts: blocktest.Options{MinTime: from, MaxTime: to, SegmentBytes: 700}}
}

// The index of neighbours around their own segments says the same as a block
// that was merged from them, and no chunk was read for it.
func TestIndexesAround(t *testing.T) {
	const hour = 3_600_000
	w := newWorld(t, inTime(2*hour, 4*hour), inTime(0, 2*hour), inTime(4*hour, 6*hour))
	want, wantResult := w.must(merge.Config{})

	w2 := newWorld(t, inTime(2*hour, 4*hour), inTime(0, 2*hour), inTime(4*hour, 6*hour))
	m := &block.Meta{ULID: id(100), MaxTime: 6 * hour, Version: 1, Compaction: block.Compaction{Level: 2, Sources: w2.ids},
		Thanos: block.Thanos{Labels: map[string]string{"cluster": "a"}, Source: block.SourceCompactor}}
	dir := filepath.Join(t.TempDir(), m.ULID.String())
	around, err := merge.Indexes(t.Context(), merge.Config{}, w2.sources, dir)
	require.NoError(t, err)
	require.Equal(t, want.Targets[0].Stats.NumSeries, around.Stats.NumSeries)
	require.Equal(t, want.Targets[0].Stats.NumChunks, around.Stats.NumChunks)
	require.Equal(t, want.Targets[0].Stats.NumSamples, around.Stats.NumSamples)
	require.Greater(t, len(around.Segments), 6, "several of each source")
	entries, err := os.ReadDir(filepath.Join(dir, block.ChunksDirname))
	require.NoError(t, err)
	require.Empty(t, entries)

	m.Stats = around.Stats
	sent, err := (&block.Uploader{Bucket: w2.bkt}).UploadWritten(t.Context(), dir, m, around.Content, around.Segments...)
	require.NoError(t, err)
	require.Less(t, sent.SentBytes, sent.Meta.SizeBytes(), "the segments were not sent")
	require.NoError(t, block.VerifyRemote(t.Context(), w2.bkt, sent.Meta))
	again, err := (&block.Uploader{Bucket: w2.bkt}).UploadWritten(t.Context(), dir, m, around.Content, around.Segments...)
	require.NoError(t, err)
	require.True(t, again.Already)

	local := download(t, w2, m.ULID)
	_, err = block.Verify(t.Context(), local)
	require.NoError(t, err)
	require.Equal(t, wantResult.samples(t), readResult(t, local).samples(t))
}

// Segments side by side are each read once, however a series' chunks lie in them.
func TestAroundIsReadOnce(t *testing.T) {
	const hour = 3_600_000
	var in []made
	random := rand.New(rand.NewPCG(1, 1))
	for from := int64(0); from < 8*hour; from += 2 * hour {
		var series []blocktest.Series
		for i := range 400 {
			series = append(series, blocktest.Series{Labels: lset("__name__", "m", "i", fmt.Sprintf("%04d", i)),
				Samples: blocktest.Floats(from, from+2*hour, 15_000, func(int64) float64 { return random.Float64() })})
		}
		in = append(in, made{series: series, opts: blocktest.Options{MinTime: from, MaxTime: from + 2*hour}})
	}
	w := newWorld(t, in...)
	m := &block.Meta{ULID: id(100), MaxTime: 8 * hour, Version: 1, Thanos: block.Thanos{Labels: map[string]string{"cluster": "a"}}}
	dir := filepath.Join(t.TempDir(), m.ULID.String())
	around, err := merge.Indexes(t.Context(), merge.Config{}, w.sources, dir)
	require.NoError(t, err)
	sent, err := (&block.Uploader{Bucket: w.bkt}).UploadWritten(t.Context(), dir, m, around.Content, around.Segments...)
	require.NoError(t, err)

	const window = 256 << 10
	b, err := input.Open(t.Context(), w.bkt, sent.Meta, input.Config{WindowBytes: window})
	require.NoError(t, err)
	w.sources = []merge.Source{{Block: b}}
	report, _ := w.must(merge.Config{})
	require.NoError(t, b.Close())
	require.EqualValues(t, 400*4*480, report.Targets[0].Stats.NumSamples)
	size := sent.Meta.SizeBytes()
	require.Less(t, report.Reads.Bytes, size+size/10)
	require.Greater(t, size, int64(8*window), "much more than a window for each")
}

func download(t *testing.T, w *world, id ulid.ULID) string {
	dir := filepath.Join(t.TempDir(), id.String())
	for name, data := range w.bkt.Objects() {
		if got, rel, ok := block.SplitName(name); ok && got == id {
			file := filepath.Join(dir, filepath.FromSlash(rel))
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, data, 0o600))
		}
	}
	return dir
}

// Where chunks overlap, or meta.json doesn't say what there is, nothing is left
// behind and the caller is told to merge.
func TestIndexesRefuses(t *testing.T) {
	const hour = 3_600_000
	late := inTime(2*hour, 4*hour)
	late.series[1].Samples = blocktest.Floats(hour, 3*hour, 15_000, value) // as out-of-order blocks have
	for name, w := range map[string]*world{
		"overlap": newWorld(t, inTime(0, 2*hour), late),
		"files":   newWorld(t, inTime(0, 2*hour), inTime(2*hour, 4*hour)),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "files" {
				w.sources[1].Block.Meta().Thanos.Files = nil
			}
			dir := filepath.Join(t.TempDir(), "out")
			_, err := merge.Indexes(t.Context(), merge.Config{}, w.sources, dir)
			require.ErrorIs(t, err, merge.ErrOverlap)
			_, err = os.Stat(dir)
			require.True(t, errors.Is(err, os.ErrNotExist))
		})
	}
}

// RELIABILITY C4, P6: a chunk in a segment that its block doesn't have is not
// looked for in the segments of the next one.
func TestIndexesOfMissingSegments(t *testing.T) {
	const hour = 3_600_000
	w := newWorld(t, inTime(0, 2*hour), inTime(2*hour, 4*hour))
	files := &w.sources[0].Block.Meta().Thanos.Files
	last := 0
	for i, f := range *files {
		if path.Dir(f.RelPath) == block.ChunksDirname {
			last = i
		}
	}
	*files = slices.Delete(slices.Clone(*files), last, last+1)
	_, err := merge.Indexes(t.Context(), merge.Config{}, w.sources, filepath.Join(t.TempDir(), "out"))
	require.ErrorIs(t, err, block.ErrCorrupt)
	var of *input.Error
	require.ErrorAs(t, err, &of)
	require.Equal(t, w.ids[0], of.Block)
}
