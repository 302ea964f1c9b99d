package merge_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/downsample"
)

// made is one block of a test.
type made struct {
	series  []blocktest.Series
	opts    blocktest.Options
	replica uint64
}

// world is a bucket of blocks to be merged.
type world struct {
	tb      testing.TB
	bkt     *bucket.Memory
	dir     string
	sources []merge.Source
	ids     []ulid.ULID
}

// id returns the n-th of some ULIDs in ascending order.
func id(n int) ulid.ULID {
	var u ulid.ULID
	_ = u.SetTime(uint64(1_700_000_000_000 + n))
	return u
}

func newWorld(tb testing.TB, in ...made) *world {
	tb.Helper()
	w := &world{tb: tb, bkt: bucket.NewMemory(), dir: tb.TempDir()}
	for i, b := range in {
		if b.opts.ID.IsZero() {
			b.opts.ID = id(i)
		}
		m := blocktest.Write(tb, w.dir, b.series, labels.FromStrings("cluster", "a"), b.opts)
		m = blocktest.Upload(tb, w.bkt, w.dir, m)
		w.ids = append(w.ids, m.ULID)
		w.open(&m, b.replica)
	}
	return w
}

// run merges into one target at each resolution and returns their folders.
func (w *world) run(cfg merge.Config, resolutions ...int64) (merge.Report, []string, error) {
	w.tb.Helper()
	dirs := make([]string, len(resolutions))
	for i, r := range resolutions {
		dirs[i] = filepath.Join(w.tb.TempDir(), "out")
		cfg.Targets = append(cfg.Targets, merge.Target{Resolution: r, Dir: dirs[i]})
	}
	report, err := merge.Run(context.Background(), cfg, w.sources)
	if err != nil {
		for _, d := range dirs {
			_, statErr := os.Stat(d)
			require.ErrorIs(w.tb, statErr, os.ErrNotExist, "a failed run leaves nothing behind")
		}
	}
	return report, dirs, err
}

// must is run for runs that can't fail: it returns what is in the raw target.
func (w *world) must(cfg merge.Config) (merge.Report, result) {
	w.tb.Helper()
	report, dirs, err := w.run(cfg, cfg.Resolution)
	require.NoError(w.tb, err)
	return report, readResult(w.tb, dirs[0])
}

// found is a series as a block has it.
type found struct {
	lset   labels.Labels
	chunks []foundChunk
}

type foundChunk struct {
	mint, maxt int64
	enc        chunkenc.Encoding
	data       []byte
}

type result []found

// readResult reads a block by Prometheus' readers; nothing where there is none.
func readResult(tb testing.TB, dir string) (out result) {
	tb.Helper()
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	ir, err := index.NewFileReader(filepath.Join(dir, block.IndexFilename), index.DecodePostingsRaw)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, ir.Close()) }()
	cr, err := chunks.NewDirReader(filepath.Join(dir, block.ChunksDirname), anyPool{})
	require.NoError(tb, err)
	defer func() { require.NoError(tb, cr.Close()) }()
	name, value := index.AllPostingsKey()
	p, err := ir.Postings(context.Background(), name, value)
	require.NoError(tb, err)
	var builder labels.ScratchBuilder
	for p.Next() {
		var metas []chunks.Meta
		require.NoError(tb, ir.Series(p.At(), &builder, &metas))
		f := found{lset: builder.Labels()}
		for _, m := range metas {
			c, _, err := cr.ChunkOrIterable(m)
			require.NoError(tb, err)
			f.chunks = append(f.chunks, foundChunk{m.MinTime, m.MaxTime, c.Encoding(), slices.Clone(c.Bytes())})
		}
		out = append(out, f)
	}
	require.NoError(tb, p.Err())
	return out
}

// anyPool lets aggregate chunks through.
type anyPool struct{ chunkenc.Pool }

func (anyPool) Put(chunkenc.Chunk) error { return nil }
func (anyPool) Get(enc chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	if enc == downsample.Encoding {
		return aggr(b), nil
	}
	return chunkenc.FromData(enc, b)
}

// aggr is an aggregate chunk for the writers and readers of tests.
type aggr []byte

func (a aggr) Encoding() chunkenc.Encoding                  { return downsample.Encoding }
func (a aggr) Bytes() []byte                                { return a }
func (a aggr) Appender() (chunkenc.Appender, error)         { panic("not to be appended to") }
func (a aggr) Iterator(chunkenc.Iterator) chunkenc.Iterator { panic("not to be read so") }
func (a aggr) Compact()                                     {}
func (a aggr) Reset([]byte)                                 {}
func (a aggr) NumSamples() int {
	c, err := downsample.Decode(a)
	if err != nil {
		return 0
	}
	return c.NumSamples()
}

// line prints a sample to the bit; hints only where with is set.
func line(it chunkenc.Iterator, typ chunkenc.ValueType, hints bool) string {
	switch typ {
	case chunkenc.ValFloat:
		t, v := it.At()
		return fmt.Sprintf("%d %x", t, math.Float64bits(v))
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		return fmt.Sprintf("%d int %s", t, histString(h.ToFloat(nil), hints))
	default:
		t, fh := it.AtFloatHistogram(nil)
		return fmt.Sprintf("%d float %s", t, histString(fh, hints))
	}
}

func histString(fh *histogram.FloatHistogram, hint bool) string {
	s := fmt.Sprintf("%s zero %x", fh.Compact(0), math.Float64bits(fh.Sum))
	if hint {
		s += fmt.Sprintf(" hint %d", fh.CounterResetHint)
	}
	return s
}

// lines are the samples of a series, and a check that its chunks are sound.
func (f *found) lines(tb testing.TB) (out []string) {
	tb.Helper()
	last := int64(math.MinInt64)
	for _, c := range f.chunks {
		require.Greater(tb, c.mint, last, "%s: chunks overlap", f.lset)
		last = c.maxt
		chunk, err := chunkenc.FromData(c.enc, c.data)
		require.NoError(tb, err)
		it := chunk.Iterator(nil)
		n, t := 0, c.mint-1
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			require.Greater(tb, it.AtT(), t, "%s: samples out of order", f.lset)
			if t = it.AtT(); n == 0 {
				require.Equal(tb, c.mint, t, "%s: first sample of a chunk", f.lset)
			}
			n++
			out = append(out, line(it, typ, false))
		}
		require.NoError(tb, it.Err())
		require.Equal(tb, c.maxt, t, "%s: last sample of a chunk", f.lset)
		require.Equal(tb, chunk.NumSamples(), n)
	}
	return out
}

// samples returns all of it by series.
func (r result) samples(tb testing.TB) map[string][]string {
	tb.Helper()
	out := map[string][]string{}
	for _, f := range r {
		out[f.lset.String()] = f.lines(tb)
	}
	return out
}

// linesOf are samples as lines prints them.
func linesOf(in []blocktest.Sample) (out []string) {
	for _, s := range in {
		switch {
		case s.H != nil:
			out = append(out, fmt.Sprintf("%d int %s", s.T, histString(s.H.ToFloat(nil), false)))
		case s.FH != nil:
			out = append(out, fmt.Sprintf("%d float %s", s.T, histString(s.FH.Copy(), false)))
		default:
			out = append(out, fmt.Sprintf("%d %x", s.T, math.Float64bits(s.F)))
		}
	}
	return out
}

func lset(kv ...string) labels.Labels { return labels.FromStrings(kv...) }

func value(t int64) float64 { return float64(t / 1000) }

// Blocks one behind the other: chunks go as they are, in runs.
func TestAdjacentBlocksAreCopied(t *testing.T) {
	var in []made
	want := map[string][]string{}
	for i := range int64(3) {
		start := i * 7_200_000
		s := []blocktest.Series{
			{Labels: lset("__name__", "a", "i", "1"), Samples: blocktest.Floats(start, start+7_200_000, 15_000, value)},
			{Labels: lset("__name__", "b"), Samples: blocktest.Floats(start+1, start+7_200_000, 30_000, value)},
		}
		if i == 1 {
			s = append(s, blocktest.Series{Labels: lset("__name__", "a"), Samples: []blocktest.Sample{{T: start, F: 1}}})
		}
		in = append(in, made{series: s, opts: blocktest.Options{MinTime: start, MaxTime: start + 7_200_000}})
		for _, x := range s {
			want[x.Labels.String()] = append(want[x.Labels.String()], linesOf(x.Samples)...)
		}
	}
	w := newWorld(t, in...)
	report, got := w.must(merge.Config{MinTime: 0, MaxTime: 3 * 7_200_000})
	sameSamples(t, want, got.samples(t))
	require.Len(t, got, 3)
	require.Equal(t, report.Read, report.Copied)
	require.Zero(t, report.Decoded)
	require.Equal(t, report.SamplesIn, report.SamplesOut)
	require.EqualValues(t, report.SamplesOut, report.Targets[0].Stats.NumSamples)
	require.EqualValues(t, 3, report.Targets[0].Stats.NumSeries)
	require.EqualValues(t, 0, report.Targets[0].MinTime)
	require.EqualValues(t, 3*7_200_000-15_000, report.Targets[0].MaxTime)
}

// sameSamples compares samples by series and shows the first that differs.
func sameSamples(tb testing.TB, want, got map[string][]string) {
	tb.Helper()
	require.ElementsMatch(tb, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(got)))
	for l, w := range want {
		g := got[l]
		for i := range min(len(w), len(g)) {
			require.Equal(tb, w[i], g[i], "%s: sample %d of %d", l, i, len(w))
		}
		require.Len(tb, g, len(w), l)
	}
}
