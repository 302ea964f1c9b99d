package querier

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
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
		readCount:   {"299:10", "599:5", "610:35", "620:5"},
		readSum:     {"299:100", "599:100", "610:35", "620:5"},
		readMin:     {"299:1", "599:2", "610:35", "620:5"},
		readMax:     {"299:50", "599:60", "610:35", "620:5"},
		readCounter: {"10:1", "299:50", "599:80", "610:85", "620:90"},
	} {
		s := newSeries(series, &shape{read: read, counter: read == readCounter, kind: dedup.Firnline, bounds: bounds{0, 1000}})
		require.Equal(t, want, samplesOf(t, s.Iterator(nil)), "reading %d", read)
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
		return testing.AllocsPerRun(20, func() {
			it = newSeries(in, sh).Iterator(it)
			for it.Next() != chunkenc.ValNone {
			}
		})
	}
	require.LessOrEqual(t, allocs(12_000), allocs(120))
}
