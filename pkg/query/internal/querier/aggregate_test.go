package querier

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func floats(t testing.TB, points ...float64) storeapi.Data {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for i := 0; i < len(points); i += 2 {
		app.Append(0, int64(points[i]), points[i+1])
	}
	return storeapi.DataOf(c)
}

func samplesOf(t testing.TB, it chunkenc.Iterator) (out []string) {
	t.Helper()
	for it.Next() != chunkenc.ValNone {
		ts, v := it.At()
		out = append(out, fmt.Sprintf("%d:%g", ts, v))
	}
	require.NoError(t, it.Err())
	return out
}

// A series of a downsampled chunk and a raw one: each function reads its
// aggregate of the former and the samples of the latter.
func TestMixedResolutions(t *testing.T) {
	series := storeapi.Series{Labels: labels.FromStrings("a", "b"), Chunks: []storeapi.Chunk{
		{MinTime: 299, MaxTime: 599, Aggr: &storeapi.Aggregates{
			Count: floats(t, 299, 10, 599, 5), Sum: floats(t, 299, 100, 599, 100), Min: floats(t, 299, 1, 599, 2), Max: floats(t, 299, 50, 599, 60),
			Counter: floats(t, 10, 1, 299, 50, 599, 80, 599, 30), // the true last value is 30: there was a reset
		}},
		{MinTime: 610, MaxTime: 620, Raw: floats(t, 610, 35, 620, 5)},
	}}
	for read, want := range map[reading][]string{
		readAverage: {"299:10", "599:20", "610:35", "620:5"},
		readCount:   {"299:10", "599:5", "610:1", "620:1"},
		readSum:     {"299:100", "599:100", "610:35", "620:5"},
		readMin:     {"299:1", "599:2", "610:35", "620:5"},
		readMax:     {"299:50", "599:60", "610:35", "620:5"},
		readCounter: {"10:1", "299:50", "599:80", "610:85", "620:90"},
	} {
		s := newSeries(series, &shape{read: read, counter: read == readCounter, kind: dedup.Firnline, bounds: bounds{0, 1000}})
		require.Equal(t, want, samplesOf(t, s.Iterator(nil)), "reading %d", read)
	}
}

// A downsampled counter that was reset, and raw samples which overlap it and go
// on: a block and a sidecar, say. The raw ones know nothing of the reset before
// them; still the whole is one counter, however replicas are merged.
func TestCounterOverlapsDownsampled(t *testing.T) {
	var raw []float64
	for at := 450.0; at <= 900; at += 15 {
		raw = append(raw, at*1000, at/15) // 30, 31, …
	}
	series := storeapi.Series{Chunks: []storeapi.Chunk{
		// Up to 500 at 299, then reset: 40 at 599.
		{MinTime: 0, MaxTime: 599_000, Aggr: &storeapi.Aggregates{Counter: floats(t,
			0, 100, 99_000, 300, 199_000, 400, 299_000, 500, 399_000, 526, 499_000, 533, 599_000, 540, 599_000, 40)}},
		{MinTime: 450_000, MaxTime: 900_000, Raw: floats(t, raw...)},
	}}
	for _, kind := range []dedup.Kind{dedup.Firnline, dedup.Penalty, dedup.Chain} {
		it := newSeries(series, &shape{read: readCounter, counter: true, kind: kind, bounds: bounds{0, 1_000_000}}).Iterator(nil)
		last, n := 0.0, 0
		for ; it.Next() != chunkenc.ValNone; n++ {
			_, v := it.At()
			require.GreaterOrEqual(t, v, last, kind)
			last = v
		}
		require.NoError(t, it.Err())
		require.Greater(t, n, 10, kind)
		// 540 at 599, and 20 more until 900, or up to 15 fewer where penalty is silent for a while.
		require.InDelta(t, 552, last, 9, kind)
	}
	it := newSeries(series, &shape{read: readCounter, counter: true, kind: dedup.Firnline, bounds: bounds{800_000, 1_000_000}}).Iterator(nil)
	for range 3 {
		require.Equal(t, chunkenc.ValFloat, it.Seek(0), "stays")
	}
	at, v := it.At()
	require.Equal(t, int64(810_000), at)
	require.InDelta(t, 554, v, 1, "wherever a reader begins")
}

// A downsampled histogram that was reset, and raw ones of a pair that were not
// merged yet and go on behind it: the growth over the seam is that of the raw
// samples, and no reset is counted twice.
func TestHistogramsBehindDownsampled(t *testing.T) {
	one := tsdbutil.GenerateTestFloatHistogram(0)
	one.CounterResetHint = histogram.GaugeType // so that the appender takes them as they are
	hists := func(points ...float64) storeapi.Data {
		c := chunkenc.NewFloatHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for i := 0; i < len(points); i += 2 {
			_, _, _, err := app.AppendFloatHistogram(nil, 0, int64(points[i]), one.Copy().Mul(points[i+1]), true)
			require.NoError(t, err)
		}
		d := storeapi.DataOf(c)
		d.Bytes[2] = d.Bytes[2]&^chunkenc.CounterResetHeaderMask | byte(chunkenc.UnknownCounterReset)
		return d
	}
	raw := func(replica uint32, from int64) storeapi.Chunk {
		var points []float64
		for at := from; at < 900_000; at += 15_000 {
			points = append(points, float64(at), float64(at/15_000)) // 40, 41, …
		}
		return storeapi.Chunk{MinTime: from, MaxTime: int64(points[len(points)-2]), Replica: replica, Raw: hists(points...)}
	}
	// Up to 500 at 299, then reset: 40 at 599.
	counter := hists(0, 100, 99_000, 300, 199_000, 400, 299_000, 500, 399_000, 526, 499_000, 533, 599_000, 540, 599_000, 40)
	series := storeapi.Series{Chunks: []storeapi.Chunk{
		{MinTime: 0, MaxTime: 599_000, Replica: 1, Aggr: &storeapi.Aggregates{Counter: counter}}, raw(2, 600_000), raw(3, 607_000),
	}}
	for _, kind := range []dedup.Kind{dedup.Firnline, dedup.Penalty, dedup.Chain} {
		it := newSeries(series, &shape{read: readCounter, counter: true, kind: kind, bounds: bounds{0, 1_000_000}}).Iterator(nil)
		var last *histogram.FloatHistogram
		for it.Next() != chunkenc.ValNone {
			_, h := it.AtFloatHistogram(nil)
			require.False(t, last != nil && h.DetectReset(last), "%s at %d ms", kind, it.AtT())
			last = h
		}
		require.NoError(t, it.Err())
		// 540 at 599, and 19 more until 885, or fewer where penalty is silent for two windows.
		require.InDelta(t, 552, last.Count/one.Count, 8, kind)
	}
}

// Raw counters are not corrected; that is PromQL's part.
func TestRawCounterAsItIs(t *testing.T) {
	s := newSeries(storeapi.Series{Chunks: []storeapi.Chunk{
		{MinTime: 1, MaxTime: 2, Raw: floats(t, 1, 10, 2, 20)}, {MinTime: 3, MaxTime: 4, Raw: floats(t, 3, 5, 4, 6)},
	}}, &shape{read: readCounter, counter: true, kind: dedup.Firnline, bounds: bounds{0, 100}})
	require.Equal(t, []string{"1:10", "2:20", "3:5", "4:6"}, samplesOf(t, s.Iterator(nil)))
}

// Only samples asked for are returned, unless trimming is off; an iterator used
// again starts afresh.
func TestTrimAndReuse(t *testing.T) {
	var chunks []storeapi.Chunk
	for i := range 10 {
		from := float64(i * 10)
		chunks = append(chunks, storeapi.Chunk{MinTime: int64(from), MaxTime: int64(from) + 5, Raw: floats(t, from, from, from+5, from+5)})
	}
	sh := &shape{kind: dedup.Firnline, bounds: bounds{15, 30}}
	s := newSeries(storeapi.Series{Chunks: chunks}, sh)
	var it chunkenc.Iterator
	for range 3 {
		it = s.Iterator(it)
		require.Equal(t, []string{"15:15", "20:20", "25:25", "30:30"}, samplesOf(t, it))
		require.Equal(t, chunkenc.ValNone, it.Next())
	}
	it = s.Iterator(it)
	require.Equal(t, chunkenc.ValFloat, it.Seek(21))
	require.Equal(t, int64(25), it.AtT())
	require.Equal(t, chunkenc.ValFloat, it.Seek(3), "never backwards")
	require.Equal(t, int64(25), it.AtT())
	require.Equal(t, chunkenc.ValNone, it.Seek(31))
	require.Equal(t, chunkenc.ValNone, it.Seek(15), "the end is the end")
	inside := newSeries(storeapi.Series{Chunks: chunks}, &shape{bounds: bounds{20, 25}}).Iterator(it)
	require.Equal(t, []string{"20:20", "25:25"}, samplesOf(t, inside), "bounds that are those of a chunk")
	require.Equal(t, chunkenc.ValNone, inside.Seek(20), "the end is the end")
	require.Empty(t, samplesOf(t, newSeries(storeapi.Series{Chunks: chunks}, &shape{bounds: bounds{16, 19}}).Iterator(it)), "between chunks")
	require.Len(t, samplesOf(t, newSeries(storeapi.Series{Chunks: chunks}, &shape{bounds: unbounded()}).Iterator(it)), 20)
}

// One iterator passed from series to series, as the engine does: what it
// allocates does not grow with the number of samples.
func BenchmarkIterate(b *testing.B) {
	for _, samples := range []int{120, 12_000} {
		var list []storetest.Sample
		for i := range samples {
			list = append(list, storetest.Sample{T: int64(i) * 15_000, V: float64(i)})
		}
		in := storeapi.Series{Labels: labels.FromStrings("a", "b"), Chunks: storetest.Chunks(b, list, false, 120)}
		sh := &shape{kind: dedup.Firnline, bounds: bounds{0, int64(samples) * 15_000}}
		b.Run(fmt.Sprintf("samples=%d", samples), func(b *testing.B) {
			b.ReportAllocs()
			var it chunkenc.Iterator
			for b.Loop() {
				it = newSeries(in, sh).Iterator(it)
				for it.Next() != chunkenc.ValNone {
				}
			}
		})
	}
}

// Allocations of reading a series don't depend on its number of samples.
func TestAllocationsPerSeries(t *testing.T) {
	allocs := func(samples int) float64 {
		var list []storetest.Sample
		for i := range samples {
			list = append(list, storetest.Sample{T: int64(i) * 15_000, V: float64(i)})
		}
		in := storeapi.Series{Chunks: storetest.Chunks(t, list, false, 120)}
		sh := &shape{kind: dedup.Firnline, bounds: bounds{0, int64(samples) * 15_000}}
		var it chunkenc.Iterator
		least := math.Inf(1) // others of the process allocate, too
		for range 10 {
			least = min(least, testing.AllocsPerRun(20, func() {
				it = newSeries(in, sh).Iterator(it)
				for it.Next() != chunkenc.ValNone {
				}
			}))
		}
		return least
	}
	require.LessOrEqual(t, allocs(12_000), allocs(120))
}
