package merge_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promvalue "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/downsample"
)

// chunksOf encodes samples, several chunks of which may then be put in any order.
func chunksOf(tb testing.TB, perChunk int, samples ...blocktest.Sample) []chunks.Meta {
	tb.Helper()
	return blocktest.Chunks(tb, samples, blocktest.Options{SamplesPerChunk: perChunk})
}

func floats(from, to, step int64) []blocktest.Sample {
	return blocktest.Floats(from, to, step, value)
}

// RELIABILITY C4: what is wrong with the chunks of a series is mended, and no
// sample gets lost.
func TestMended(t *testing.T) {
	a, b := chunksOf(t, 120, floats(0, 1000, 100)...), chunksOf(t, 120, floats(1000, 2000, 100)...)
	mixed := chunksOf(t, 120, floats(550, 1500, 100)...)
	empty := chunks.Meta{Chunk: chunkenc.NewXORChunk(), MinTime: 500, MaxTime: 500}
	wrong := a[0]
	wrong.MinTime, wrong.MaxTime = 0, 950 // 900 is its last
	// The last one is of a time that is there.
	unsorted := chunksOf(t, 120, append(floats(0, 300, 100), blocktest.Sample{T: 150, F: 7}, blocktest.Sample{T: 100, F: 8})...)[0]
	unsorted.MaxTime = 200

	all := linesOf(floats(0, 2000, 100))
	both := slices.Clone(floats(0, 2000, 100))
	both = append(both, floats(550, 1500, 100)...)
	slices.SortFunc(both, func(a, b blocktest.Sample) int { return int(a.T - b.T) })
	for name, c := range map[string]struct {
		chunks []chunks.Meta
		want   []string
		check  func(t *testing.T, r merge.Report)
	}{
		"out of order": {[]chunks.Meta{b[0], a[0]}, all, func(t *testing.T, r merge.Report) {
			require.EqualValues(t, 2, r.Copied)
		}},
		"twice": {[]chunks.Meta{a[0], a[0], b[0], b[0], b[0]}, all, func(t *testing.T, r merge.Report) {
			require.EqualValues(t, 2, r.Copied)
			require.EqualValues(t, 3, r.Equal)
			require.EqualValues(t, 30, r.SamplesEqual)
		}},
		"overlapping": {[]chunks.Meta{a[0], mixed[0], b[0]}, linesOf(both), func(t *testing.T, r merge.Report) {
			require.EqualValues(t, 1, r.Encoded)
		}},
		"empty": {[]chunks.Meta{a[0], empty, b[0]}, all, func(t *testing.T, r merge.Report) {
			require.EqualValues(t, 1, r.Empty)
		}},
		"wrong times, overlapping by them alone": {[]chunks.Meta{wrong, chunksOf(t, 120, floats(920, 1000, 10)...)[0]},
			linesOf(append(floats(0, 1000, 100), floats(920, 1000, 10)...)), func(t *testing.T, r merge.Report) {
				require.EqualValues(t, 1, r.Mended)
				require.EqualValues(t, 2, r.Copied)
			}},
		"samples out of order": {[]chunks.Meta{unsorted, chunksOf(t, 120, floats(120, 130, 10)...)[0]},
			linesOf([]blocktest.Sample{{T: 0, F: 0}, {T: 100, F: 0}, {T: 120, F: 0}, {T: 150, F: 7}, {T: 200, F: 0}}), func(t *testing.T, r merge.Report) {
				require.EqualValues(t, 1, r.Mended)
				require.EqualValues(t, 1, r.SamplesEqual)
			}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.craft(0, -1000, 4000,
				blocktest.Series{Labels: lset("a", "before"), Samples: floats(0, 1000, 100)},
				blocktest.Series{Labels: lset("a", "it"), Chunks: c.chunks},
				blocktest.Series{Labels: lset("a", "last"), Samples: floats(0, 1000, 100)})
			report, got := w.must(merge.Config{MinTime: -1000, MaxTime: 4000})
			require.Equal(t, c.want, got.samples(t)[lset("a", "it").String()])
			require.Len(t, got, 3)
			report.Copied -= 2
			c.check(t, report)
		})
	}
}

// Decoded for a coarser target, a chunk whose times are wrong is found out even
// where nothing overlaps it.
func TestMendedWhileDownsampling(t *testing.T) {
	c := chunksOf(t, 120, floats(0, 100_000, 1000)...)
	c[0].MaxTime += 5000
	w := newWorld(t)
	w.craft(0, 0, 200_000, blocktest.Series{Labels: lset("a", "b"), Chunks: c})
	report, dirs, err := w.run(merge.Config{}, 0, 300_000)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Mended)
	require.Equal(t, linesOf(floats(0, 100_000, 1000)), readResult(t, dirs[0])[0].lines(t))
	require.EqualValues(t, 1, report.Targets[1].Stats.NumSamples, "one window, added once")
}

// A series of no samples, and a block of no series, leave nothing.
func TestNothingLeft(t *testing.T) {
	w := newWorld(t,
		made{series: []blocktest.Series{{Labels: lset("a", "b"), Chunks: []chunks.Meta{{Chunk: chunkenc.NewXORChunk()}}}}, opts: blocktest.Options{MaxTime: 1}},
		made{opts: blocktest.Options{MaxTime: 1}})
	report, dirs, err := w.run(merge.Config{}, 0, 300_000)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Dropped)
	for i, d := range dirs {
		require.Zero(t, report.Targets[i])
		require.NoDirExists(t, d)
	}
}

// RELIABILITY C4: what can't be mended is refused, and says whose fault it is.
func TestRefused(t *testing.T) {
	series := []blocktest.Series{
		{Labels: lset("a", "1"), Samples: floats(0, 1000, 100)},
		{Labels: lset("a", "2"), Samples: floats(0, 1000, 100)},
	}
	short := chunksOf(t, 120, floats(0, 1000, 100)...)
	cut := chunkenc.NewXORChunk()
	cut.Reset(short[0].Chunk.Bytes()[:10])
	overlapped := []chunks.Meta{{Chunk: cut, MinTime: 0, MaxTime: 900}, chunksOf(t, 120, floats(50, 500, 100)...)[0]}
	odd := []chunks.Meta{{Chunk: aggr("abcdef"), MinTime: 0, MaxTime: 900}}
	of := func(l string, c ...chunks.Meta) blocktest.Series {
		return blocktest.Series{Labels: lset("a", l), Chunks: c}
	}
	for name, c := range map[string]struct {
		series []blocktest.Series
		spoil  func(w *world)
	}{
		"chunk checksum":              {series, flip(block.ChunksDirname+"/000001", 20)},
		"index entry":                 {series, flip(block.IndexFilename, 50)},
		"symbol":                      {series, flip(block.IndexFilename, 14)},
		"series out of order":         {[]blocktest.Series{series[1], series[0]}, nil},
		"series twice":                {[]blocktest.Series{series[0], series[0]}, nil},
		"chunk cut short, overlapped": {[]blocktest.Series{of("1", overlapped...)}, nil},
		"unknown encoding":            {[]blocktest.Series{of("1", odd...)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, made{series: series})
			w.craft(0, 0, 2000, c.series...)
			if c.spoil != nil {
				c.spoil(w)
			}
			_, _, err := w.run(merge.Config{}, 0, 300_000)
			require.ErrorIs(t, err, block.ErrCorrupt)
			var of *input.Error
			require.ErrorAs(t, err, &of)
			require.Equal(t, w.ids[1], of.Block, "%v", err)
			t.Log(err)
		})
	}
}

// flip changes a bit of a byte of the last block's file.
func flip(file string, at int) func(w *world) {
	return func(w *world) {
		w.tb.Helper()
		name := w.ids[len(w.ids)-1].String() + "/" + file
		data := slices.Clone(w.bkt.Objects()[name])
		data[at] ^= 1
		w.replace(name, data)
	}
}

// cutAt is the twin of what is left of samples outside intervals.
func cutAt(in []blocktest.Sample, cuts tombstones.Intervals) (out []blocktest.Sample) {
	for _, s := range in {
		if !slices.ContainsFunc(cuts, func(c tombstones.Interval) bool { return c.InBounds(s.T) }) {
			out = append(out, s)
		}
	}
	return out
}

func TestCuts(t *testing.T) {
	in := floats(0, 100_000, 100) // 1000 samples in 9 chunks of 12,000 ms
	cuts := tombstones.Intervals{{Mint: 500, Maxt: 700}, {Mint: 11_950, Maxt: 36_000}, {Mint: 99_900, Maxt: 200_000}}
	w := newWorld(t, made{series: []blocktest.Series{
		{Labels: lset("a", "gone"), Samples: in},
		{Labels: lset("a", "part"), Samples: in},
		{Labels: lset("a", "whole"), Samples: in},
	}})
	report, got := w.must(merge.Config{Cut: func(l labels.Labels) (bool, tombstones.Intervals) {
		if l.Get("a") == "part" {
			return false, cuts
		}
		return l.Get("a") == "gone", nil
	}})
	want := map[string][]string{
		lset("a", "part").String():  linesOf(cutAt(in, cuts)),
		lset("a", "whole").String(): linesOf(in),
	}
	sameSamples(t, want, got.samples(t))
	require.EqualValues(t, 1, report.Dropped)
	require.EqualValues(t, 2, report.Cut, "chunks that go as a whole aren't read")
	require.EqualValues(t, 9+4, report.Copied)
}

// What lies outside the range of the job goes and is counted; outside its own
// block's range alone it stays.
func TestOutside(t *testing.T) {
	w := newWorld(t, made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: floats(0, 100_000, 100)}}, opts: blocktest.Options{MinTime: 1000, MaxTime: 90_000}})
	report, got := w.must(merge.Config{MinTime: 0, MaxTime: 95_000})
	require.Equal(t, linesOf(floats(0, 95_000, 100)), got[0].lines(t))
	require.EqualValues(t, 3, report.Outside)
	require.Positive(t, report.SamplesCut)
}

// Start timestamps: kept by what is copied, and by what is encoded anew if asked for.
func TestStartTimestamps(t *testing.T) {
	var in []blocktest.Sample
	for i := range int64(300) {
		in = append(in, blocktest.Sample{T: i * 1000, F: float64(i), ST: i*1000 - 500})
	}
	late := []blocktest.Sample{{T: 50_500, ST: 50_000, F: 3}}
	st := blocktest.Options{StartTimestamps: true}
	w := newWorld(t,
		made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: in}}, opts: st},
		made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: late}}, opts: st})
	encodings := func(f found) (out []chunkenc.Encoding) {
		for _, c := range f.chunks {
			out = append(out, c.enc)
		}
		return out
	}
	_, got := w.must(merge.Config{})
	require.Equal(t, []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncXOR2}, encodings(got[0]))
	require.Len(t, got[0].lines(t), 301)

	w = newWorld(t,
		made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: in}}, opts: st},
		made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: late}}, opts: st})
	_, got = w.must(merge.Config{KeepStartTimestamps: true})
	require.Equal(t, []chunkenc.Encoding{chunkenc.EncXOR2, chunkenc.EncXOR2, chunkenc.EncXOR2, chunkenc.EncXOR2}, encodings(got[0]))
	for _, c := range got[0].chunks {
		chunk, err := chunkenc.FromData(c.enc, c.data)
		require.NoError(t, err)
		it := chunk.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			require.Equal(t, it.AtT()-500, it.AtST())
		}
	}
}

// randomSeries returns samples as a source might have them; kinds change at times.
func randomSeries(r *rand.Rand, from, to int64) (out []blocktest.Sample) {
	kind, n := r.IntN(5), int64(1)
	for t := from + r.Int64N(10_000); t < to; t += 9_000 + r.Int64N(2_000) {
		if r.IntN(60) == 0 {
			kind = r.IntN(5)
		}
		if r.IntN(50) == 0 {
			n = 1 // reset
		}
		if r.IntN(30) == 0 {
			t += r.Int64N(300_000)
		}
		n += r.Int64N(5)
		s := blocktest.Sample{T: t}
		switch kind {
		case 0, 1:
			s.F = float64(n)
			if r.IntN(40) == 0 {
				s.F = math.Float64frombits(promvalue.StaleNaN)
			}
		case 2:
			s.H = blocktest.Histogram(n)
		case 3:
			s.FH = blocktest.FloatHistogram(n)
			if n%7 == 0 {
				s.FH.Schema = 0
			}
		default:
			s.H = blocktest.CustomBuckets(n)
			s.H.CounterResetHint = histogram.GaugeType
		}
		out = append(out, s)
	}
	return out
}

// Blocks of one replica that overlap at random: every sample is there once, the
// older block's where there are two, and what overlaps nothing was not touched.
func TestOverlapIsUnion(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			type winner struct {
				src int
				s   blocktest.Sample
			}
			want := map[string]map[int64]winner{}
			var in []made
			for i := range 1 + r.IntN(4) {
				var series []blocktest.Series
				for k := range 10 + r.IntN(10) {
					from := r.Int64N(4_000_000)
					samples := randomSeries(r, from, from+r.Int64N(6_000_000))
					if len(samples) == 0 {
						continue
					}
					l := lset("__name__", fmt.Sprint("s", k))
					if want[l.String()] == nil {
						want[l.String()] = map[int64]winner{}
					}
					for _, s := range samples {
						if _, ok := want[l.String()][s.T]; !ok {
							want[l.String()][s.T] = winner{i, s}
						}
					}
					series = append(series, blocktest.Series{Labels: l, Samples: samples})
				}
				in = append(in, made{series: series, opts: blocktest.Options{SamplesPerChunk: 1 + r.IntN(150), MaxTime: 20_000_000, StartTimestamps: r.IntN(3) == 0}})
			}
			w := newWorld(t, in...)
			r.Shuffle(len(w.sources), func(i, j int) { w.sources[i], w.sources[j] = w.sources[j], w.sources[i] })
			report, got := w.must(merge.Config{})
			twin := map[string][]string{}
			for l, m := range want {
				var all []blocktest.Sample
				for _, win := range m {
					all = append(all, win.s)
				}
				slices.SortFunc(all, func(a, b blocktest.Sample) int { return int(a.T - b.T) })
				twin[l] = linesOf(all)
			}
			sameSamples(t, twin, got.samples(t))
			require.Equal(t, report.SamplesIn, report.SamplesOut+report.SamplesEqual)
			require.NoError(t, hintsHold(got))
		})
	}
}

// hintsHold checks that no histogram claims more than its predecessor bears out.
func hintsHold(r result) error {
	for _, f := range r {
		var prev *histogram.FloatHistogram
		for _, c := range f.chunks {
			chunk, err := chunkenc.FromData(c.enc, c.data)
			if err != nil {
				return err
			}
			it := chunk.Iterator(nil)
			for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
				if typ == chunkenc.ValFloat {
					prev = nil
					continue
				}
				t, fh := it.AtFloatHistogram(nil)
				if fh.CounterResetHint == histogram.NotCounterReset && prev != nil {
					plain := fh.Copy()
					plain.CounterResetHint = histogram.UnknownCounterReset
					if plain.DetectReset(prev) {
						return errors.New(fmt.Sprint(f.lset, " at ", t, " says there was no reset"))
					}
				}
				prev = fh
			}
		}
	}
	return nil
}

// The shards of a merge together are what the whole would have been.
func TestShards(t *testing.T) {
	var series []blocktest.Series
	for i := range 200 {
		series = append(series, blocktest.Series{Labels: lset("__name__", fmt.Sprint("m", i%7), "i", fmt.Sprint(i)), Samples: floats(0, 1000, 100)})
	}
	blocks := func() *world {
		return newWorld(t, made{series: series}, made{series: series[:150]}, made{series: series[50:]})
	}
	_, whole := blocks().must(merge.Config{})
	r := rand.New(rand.NewPCG(1, 1))
	for n := 1; n < 6; n++ {
		var bounds []labels.Labels
		for range n {
			// Some are the labels of a series, some are of none.
			bounds = append(bounds, lset("__name__", fmt.Sprint("m", r.IntN(8)), "i", fmt.Sprint(r.IntN(300))))
		}
		bounds = append(bounds, labels.EmptyLabels(), lset("__name__", "m3", "i2", ""))
		slices.SortFunc(bounds, labels.Compare)
		var got result
		for i, from := range bounds {
			to := labels.EmptyLabels()
			if i+1 < len(bounds) {
				to = bounds[i+1]
			}
			_, part := blocks().must(merge.Config{From: from, To: to})
			got = append(got, part...)
		}
		require.Equal(t, whole, got, "bounds %v", bounds)
	}
}

// RELIABILITY C4, P7: histograms that announce more buckets than their bytes can
// hold are their block's fault, and take no memory.
func TestBucketsThatCannotBe(t *testing.T) {
	bits := "0" + "10" + "001" + "11111110" + strings.Repeat("0", 24) + "00000001" + strings.Repeat("0", 24) + "0" + "0" + strings.Repeat("0", 80)
	bomb := []byte{0, 1, 0, 0} // a sample; threshold 0, schema 0, one span of 2^24 buckets at offset 0
	for len(bits) >= 8 {
		b, err := strconv.ParseUint(bits[:8], 2, 8)
		require.NoError(t, err)
		bomb, bits = append(bomb, byte(b)), bits[8:]
	}
	for _, resolution := range []int64{0, fiveMinutes} {
		c := chunkenc.NewFloatHistogramChunk()
		c.Reset(bomb)
		in := chunks.Meta{MinTime: 0, MaxTime: 1000, Chunk: c}
		good := chunksOf(t, 120, floats(0, 1000, 100)...)
		if resolution > 0 {
			sub := downsample.Sub{Encoding: chunkenc.EncFloatHistogram, Bytes: bomb}
			payload, err := downsample.Chunk{{Encoding: chunkenc.EncXOR, Bytes: good[0].Chunk.Bytes()}, sub, {}, {}, sub}.Append(nil)
			require.NoError(t, err)
			in.Chunk, good = aggr(payload), tier(t, resolution, floats(0, 1000, 100))
		}
		w := newWorld(t, made{series: []blocktest.Series{{Labels: lset("a", "b"), Chunks: good}}, opts: blocktest.Options{MaxTime: 1000, Resolution: resolution}})
		w.craft(0, 0, 1000, blocktest.Series{Labels: lset("a", "b"), Chunks: []chunks.Meta{in}})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := w.run(merge.Config{Resolution: resolution}, resolution)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
		require.ErrorIs(t, err, block.ErrCorrupt)
		var of *input.Error
		require.ErrorAs(t, err, &of)
		require.Equal(t, w.ids[1], of.Block, "%v", err)
	}
}

// RELIABILITY C4, P7: a block of which one series overlaps itself thousands of
// times is at fault, however many others there are.
func TestTooManyOverlap(t *testing.T) {
	l := lset("a", "b")
	samples := floats(0, 60_000_000, 1000)
	samples = append(samples, samples[0]) // out of order, so that none is a copy of another
	long := blocktest.Chunks(t, samples, blocktest.Options{SamplesPerChunk: 65_000})[0]
	long.MinTime, long.MaxTime = 0, 59_999_000
	w := newWorld(t, made{series: []blocktest.Series{{Labels: l, Samples: floats(500, 60_000_000, 30_000)}}, opts: blocktest.Options{MaxTime: 60_000_000}})
	w.craft(0, 0, 60_000_000, blocktest.Series{Labels: l, Chunks: slices.Repeat([]chunks.Meta{long}, 40)})
	_, _, err := w.run(merge.Config{}, 0)
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.ErrorContains(t, err, "overlap")
	var of *input.Error
	require.ErrorAs(t, err, &of)
	require.Equal(t, w.ids[1], of.Block, "%v", err)
}
