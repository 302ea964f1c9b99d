package dedup

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

type point struct {
	t int64
	v float64
}

var staleV = math.Float64frombits(value.StaleNaN)

// replica encodes points in chunks of n samples.
func replica(tb testing.TB, n int, points []point) (out []chunks.Meta) {
	tb.Helper()
	for part := range slices.Chunk(points, n) {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(tb, err)
		for _, p := range part {
			app.Append(0, p.t, p.v)
		}
		out = append(out, chunks.Meta{Chunk: c, MinTime: part[0].t, MaxTime: part[len(part)-1].t})
	}
	return out
}

func iterate(replicas []Replica) (out []chunkenc.Iterator) {
	for _, r := range replicas {
		var its []chunkenc.Iterator
		for _, m := range slices.Concat(r...) {
			its = append(its, m.Chunk.Iterator(nil))
		}
		out = append(out, storage.ChainSampleIteratorFromIterators(nil, its))
	}
	return out
}

// merge reads the replicas through Split and New.
func merge(tb testing.TB, kind Kind, counter bool, replicas ...[]chunks.Meta) []point {
	tb.Helper()
	return drain(tb, New(kind, counter, iterate(Split(slices.Concat(replicas...)))...))
}

func drain(tb testing.TB, it chunkenc.Iterator) (out []point) {
	tb.Helper()
	for it.Next() == chunkenc.ValFloat {
		t, v := it.At()
		require.Equal(tb, t, it.AtT())
		out = append(out, point{t, v})
	}
	require.NoError(tb, it.Err())
	return out
}

// equal compares bits, so that stale markers are equal to themselves.
func equal(tb testing.TB, want, got []point, msg ...any) {
	tb.Helper()
	bits := func(ps []point) (out []string) {
		for _, p := range ps {
			v := fmt.Sprint(p.v)
			if value.IsStaleNaN(p.v) {
				v = "stale"
			}
			out = append(out, fmt.Sprintf("%d:%s", p.t, v))
		}
		return out
	}
	require.Equal(tb, bits(want), bits(got), msg...)
}

func series(from, to, step int64, f func(t int64) float64, lost ...int64) (out []point) {
	for t := from; t <= to; t += step {
		if !slices.Contains(lost, t) {
			out = append(out, point{t, f(t)})
		}
	}
	return out
}

func TestSplitTellsReplicasApart(t *testing.T) {
	// A pair scraped every 15 s, b 7 s behind a: by time alone each chunk of a
	// would be nearest to the chunk of b that ends just before it.
	one := func(int64) float64 { return 1 }
	a := replica(t, 10, series(0, 900_000, 15_000, one))
	b := replica(t, 10, series(7_000, 907_000, 15_000, one))
	mixed := slices.Concat(a, b, a)
	for range 20 {
		rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		require.Equal(t, []Replica{{a}, {b}}, Split(mixed))
	}
	require.Empty(t, Split(nil))
}

// Late samples of a known replica lie between those it had in time: they are not
// another replica's, and none is left out.
func TestSplitKeepsLateSamplesOfAKnownReplica(t *testing.T) {
	f := func(t int64) float64 { return float64(t) }
	inTime := replica(t, 10, series(0, 900_000, 30_000, f))
	late := replica(t, 10, series(7_000, 400_000, 30_000, f))
	of := func(ref chunks.ChunkRef, metas []chunks.Meta) []chunks.Meta {
		for i := range metas {
			metas[i].Ref = ref
		}
		return metas
	}
	mixed := slices.Concat(of(1, inTime), of(1, late), of(2, replica(t, 10, series(3_000, 903_000, 30_000, f))))
	split := Split(mixed)
	require.Len(t, split, 2)
	require.Equal(t, Replica{inTime, late}, split[0])
	got := drain(t, New(Firnline, true, iterate(split)...))
	want := slices.Concat(series(0, 900_000, 30_000, f), series(7_000, 400_000, 30_000, f))
	slices.SortFunc(want, func(a, b point) int { return int(a.t - b.t) })
	for _, p := range want {
		require.Contains(t, got, p)
	}
}

// RELIABILITY Q5: k equal copies are one.
func TestEqualCopiesAreOne(t *testing.T) {
	in := series(0, 600_000, 15_000, func(t int64) float64 { return float64(t % 100_000) }, 45_000, 60_000)
	for _, kind := range []Kind{Firnline, Penalty, Chain} {
		for k := 1; k <= 3; k++ {
			var all [][]chunks.Meta
			for i := range k {
				all = append(all, replica(t, 7+5*i, in)) // Chunks cut at other places.
			}
			if kind == Penalty && k > 1 {
				continue // Its penalty after a gap may skip samples: Thanos' behaviour.
			}
			equal(t, in, merge(t, kind, true, all...), "%s, %d copies", kind, k)
		}
	}
}

func TestGapIsFilledFromTheOther(t *testing.T) {
	f := func(t int64) float64 { return float64(t) }
	a := series(0, 300_000, 30_000, f, 120_000, 150_000, 180_000)
	b := series(10_000, 310_000, 30_000, f, 40_000)
	want := slices.Concat(
		series(0, 90_000, 30_000, f),
		series(130_000, 310_000, 30_000, f))
	equal(t, want, merge(t, Firnline, true, replica(t, 120, a), replica(t, 120, b)))
}

func TestStaleMarkerOfOneReplicaIsNotTaken(t *testing.T) {
	one := func(int64) float64 { return 1 }
	a := append(series(0, 90_000, 30_000, one), point{120_000, staleV})
	b := append(series(10_000, 220_000, 30_000, one), point{250_000, staleV})
	got := merge(t, Firnline, false, replica(t, 120, a), replica(t, 120, b))
	want := slices.Concat(series(0, 90_000, 30_000, one), series(130_000, 220_000, 30_000, one), []point{{250_000, staleV}})
	equal(t, want, got)

	// Gone for both: the series must end with a marker.
	b = append(series(10_000, 100_000, 30_000, one), point{130_000, staleV})
	got = merge(t, Firnline, false, replica(t, 120, a), replica(t, 120, b))
	require.True(t, value.IsStaleNaN(got[len(got)-1].v))
	require.Len(t, got, 5, "one marker is enough")
}

func TestMovingBetweenReplicasIsNoReset(t *testing.T) {
	// b lags: its values are those of 20 s before. Moving to it must not go down.
	a := series(0, 90_000, 30_000, func(t int64) float64 { return float64(t) })
	b := series(5_000, 300_000, 30_000, func(t int64) float64 { return float64(max(0, t-60_000)) })
	got := merge(t, Firnline, true, replica(t, 120, a), replica(t, 120, b))
	want := slices.Concat(a, []point{{125_000, 90_000}, {155_000, 95_000}, {185_000, 125_000}})
	equal(t, want, got[:len(want)])

	// As gauges the values are what they are.
	got = merge(t, Firnline, false, replica(t, 120, a), replica(t, 120, b))
	require.Equal(t, 65_000.0, got[len(a)].v)
}

func TestRealResetAtAMoveIsKept(t *testing.T) {
	f := func(t int64) float64 {
		if t >= 100_000 {
			return float64(t - 100_000)
		}
		return float64(t)
	}
	a := series(0, 90_000, 30_000, f)
	b := series(5_000, 300_000, 30_000, f)
	got := merge(t, Firnline, true, replica(t, 120, a), replica(t, 120, b))
	require.Equal(t, point{125_000, 25_000}, got[len(a)])
}

// Two corrected counters of which one has seen a reset of 1000 more: moving to
// the other and back neither goes down nor jumps.
func TestCorrectedCounters(t *testing.T) {
	a := series(0, 600_000, 30_000, func(t int64) float64 { return 1000 + float64(t/1000) })
	a = slices.DeleteFunc(a, func(p point) bool { return p.t > 200_000 && p.t < 400_000 })
	b := series(10_000, 900_000, 30_000, func(t int64) float64 { return float64(t / 1000) })
	for _, kind := range []Kind{Firnline, Penalty, Chain} {
		got := drain(t, NewCorrected(kind, iterate([]Replica{{replica(t, 120, a)}, {replica(t, 120, b)}})...))
		for i := 1; i < len(got); i++ {
			grown := got[i].v - got[i-1].v
			require.GreaterOrEqual(t, grown, 0.0, "%s at %d", kind, got[i].t)
			require.LessOrEqual(t, grown, 200.0, "%s at %d", kind, got[i].t)
		}
		require.InDelta(t, 1000+900, got[len(got)-1].v, 100, kind)
	}
}

// Histograms of corrected counters are raised as floats are: each float of a
// random history stands for a histogram with that many times the same buckets.
func TestCorrectedHistograms(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 2))
		truth := newTruth(rng, 1_800_000)
		var all [][]point
		for range 2 + rng.IntN(2) {
			var points []point
			add, down := float64(rng.IntN(1000)), int64(-1) // what it knows of resets before
			for at := rng.Int64N(400_000); at < 1_800_000; at += 30_000 {
				if rng.IntN(20) == 0 {
					down = at + rng.Int64N(300_000)
				}
				if n := len(points); n > 0 {
					add += max(0, points[n-1].v-truth.at(at)-add) // its resets are corrected
				}
				if at >= down {
					points = append(points, point{at, truth.at(at) + add})
				}
			}
			all = append(all, points)
		}
		for _, kind := range []Kind{Firnline, Penalty, Chain} {
			var plain, native []chunkenc.Iterator
			for _, points := range all {
				plain = append(plain, storage.NewListSeriesIterator(listOf(points, false)))
				native = append(native, storage.NewListSeriesIterator(listOf(points, true)))
			}
			want, it := drain(t, NewCorrected(kind, plain...)), NewCorrected(kind, native...)
			var before *histogram.FloatHistogram
			for _, p := range want {
				require.Equal(t, chunkenc.ValFloatHistogram, it.Next(), "%s, seed %d", kind, seed)
				at, h := it.AtFloatHistogram(nil)
				require.Equal(t, p, point{at, h.Count}, "%s, seed %d", kind, seed)
				require.Equal(t, native1.Copy().Mul(p.v), h, "%s, seed %d", kind, seed)
				require.False(t, before != nil && h.DetectReset(before), "%s, seed %d", kind, seed)
				before = h
			}
			require.Equal(t, chunkenc.ValNone, it.Next())
			require.NoError(t, it.Err())
		}
	}
}

// native1 is a histogram of one observation.
var native1 = &histogram.FloatHistogram{
	Count: 1, Sum: 4, ZeroCount: 0.25, ZeroThreshold: 0.001, PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}, {Offset: 1, Length: 1}},
	PositiveBuckets: []float64{0.25, 0.5}, NegativeSpans: []histogram.Span{}, NegativeBuckets: []float64{},
}

type listed struct {
	point
	h *histogram.FloatHistogram
}

func (l listed) ST() int64                     { return 0 }
func (l listed) T() int64                      { return l.t }
func (l listed) F() float64                    { return l.v }
func (l listed) H() *histogram.Histogram       { return nil }
func (l listed) FH() *histogram.FloatHistogram { return l.h }
func (l listed) Copy() chunks.Sample           { return l }
func (l listed) Type() chunkenc.ValueType {
	if l.h != nil {
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

type list []listed

func (l list) Get(i int) chunks.Sample { return l[i] }
func (l list) Len() int                { return len(l) }

func listOf(points []point, native bool) (out list) {
	for _, p := range points {
		l := listed{point: p}
		if native {
			l.h = native1.Copy().Mul(p.v)
		}
		out = append(out, l)
	}
	return out
}

// Only histograms of one kind continue one another, and what is no counter is
// handed on; nor does what is not a number count.
func TestCorrectedOfSeveralKinds(t *testing.T) {
	custom := &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 2, Sum: 4, CustomValues: []float64{1},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{1, 1},
	}
	gauge := native1.Copy().Mul(3)
	gauge.CounterResetHint = histogram.GaugeType
	stale := &histogram.FloatHistogram{Sum: staleV}
	a := list{{point{1000, 0}, native1.Copy().Mul(8)}, {point{2000, 0}, native1.Copy().Mul(9)}}
	b := list{
		{point{31_000, 0}, native1.Copy().Mul(5)}, {point{32_000, 0}, stale}, {point{33_000, 0}, native1.Copy().Mul(6)},
		{point{34_000, 0}, gauge}, {point{35_000, 0}, custom}, {point{36_000, 7}, nil}, {point{37_000, math.NaN()}, nil}, {point{38_000, 8}, nil},
	}
	for _, kind := range []Kind{Firnline, Penalty} {
		it := NewCorrected(kind, storage.NewListSeriesIterator(a), storage.NewListSeriesIterator(b))
		var got []string
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if typ == chunkenc.ValFloat {
				_, v := it.At()
				got = append(got, fmt.Sprint(v))
				continue
			}
			_, h := it.AtFloatHistogram(&histogram.FloatHistogram{})
			got = append(got, fmt.Sprint("h", h.Count))
		}
		require.NoError(t, it.Err())
		require.Equal(t, []string{"h8", "h9", "h9", "h0", "h10", "h3", "h2", "7", "NaN", "8"}, got, kind)
	}
}

// RELIABILITY Q5
func TestRandomPairs(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { randomPair(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

// randomPair scrapes one true counter, which now and then is reset, from two or
// three replicas that are skewed, jitter, lose scrapes and restart, and holds
// the merged series against what must be true of it.
func randomPair(t *testing.T, rng *rand.Rand) {
	const interval, end = int64(30_000), int64(3_600_000)
	truth := newTruth(rng, end)
	var all [][]chunks.Meta
	covered := map[int64]bool{} // scrape windows that some replica has
	for range 2 + rng.IntN(2) {
		var points []point
		skew, down := rng.Int64N(interval), int64(-1)
		for at := skew; at < end; at += interval {
			if rng.IntN(40) == 0 {
				down = at + rng.Int64N(20*interval)
			}
			if at < down || rng.IntN(30) == 0 {
				continue
			}
			ts := at + rng.Int64N(50)
			points = append(points, point{ts, truth.at(ts)})
			covered[ts/interval] = true
		}
		if len(points) > 0 {
			all = append(all, replica(t, 20+rng.IntN(100), points))
		}
	}
	got := merge(t, Firnline, true, all...)
	for i, p := range got {
		require.Equal(t, truth.at(p.t), p.v, "samples of a counter scraped on time are handed on raw")
		if i == 0 {
			continue
		}
		prev := got[i-1]
		require.Greater(t, p.t, prev.t)
		if p.v < prev.v {
			require.True(t, truth.resetIn(prev.t, p.t), "false reset at %d", p.t)
		}
		missed := 0
		for w := prev.t/interval + 1; w < p.t/interval; w++ {
			if covered[w] {
				missed++
			}
		}
		require.LessOrEqual(t, missed, 2, "gap between %d and %d", prev.t, p.t)
	}
	// The order of the replicas does not matter.
	slices.Reverse(all)
	equal(t, got, merge(t, Firnline, true, all...))
	// Nor where a reader begins.
	for range 10 {
		from := rng.Int64N(end)
		it := New(Firnline, true, iterate(Split(slices.Concat(all...)))...)
		i := slices.IndexFunc(got, func(p point) bool { return p.t >= from })
		if i < 0 {
			require.Equal(t, chunkenc.ValNone, it.Seek(from))
			continue
		}
		require.Equal(t, chunkenc.ValFloat, it.Seek(from))
		ts, v := it.At()
		equal(t, got[i:], append([]point{{ts, v}}, drain(t, it)...))
	}
}

// truth is a counter with resets.
type truth struct {
	resets []int64
	rate   float64
}

func newTruth(rng *rand.Rand, end int64) truth {
	tr := truth{resets: []int64{0}, rate: rng.Float64() * 10}
	for t := rng.Int64N(end); t < end; t += 200_000 + rng.Int64N(end) {
		tr.resets = append(tr.resets, t)
	}
	return tr
}

func (tr truth) at(t int64) float64 {
	i, _ := slices.BinarySearch(tr.resets, t+1)
	return math.Floor(tr.rate * float64(t-tr.resets[i-1]))
}

func (tr truth) resetIn(from, to int64) bool {
	return slices.ContainsFunc(tr.resets, func(r int64) bool { return from < r && r <= to })
}

func TestHistogramReplicas(t *testing.T) {
	h := func(n int64) *histogram.Histogram {
		h := tsdbutil.GenerateTestHistogram(n)
		h.CounterResetHint = histogram.UnknownCounterReset
		return h
	}
	encode := func(ts ...int64) []chunks.Meta {
		c := chunkenc.NewHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for _, at := range ts {
			_, _, _, err := app.AppendHistogram(nil, 0, at, h(at/1000), true)
			require.NoError(t, err)
		}
		return []chunks.Meta{{Chunk: c, MinTime: ts[0], MaxTime: ts[len(ts)-1]}}
	}
	a := encode(0, 30_000, 60_000)
	b := encode(5_000, 35_000, 65_000, 95_000, 125_000)
	it := New(Firnline, true, iterate(Split(slices.Concat(a, b)))...)
	for _, want := range []int64{0, 30_000, 60_000, 95_000, 125_000} {
		require.Equal(t, chunkenc.ValHistogram, it.Next())
		at, got := it.AtHistogram(nil)
		require.Equal(t, want, at)
		require.Equal(t, h(want/1000).Count, got.Count)
		_, fh := it.AtFloatHistogram(nil)
		require.Equal(t, float64(got.Count), fh.Count)
		if want == 95_000 {
			require.Equal(t, histogram.UnknownCounterReset, got.CounterResetHint, "a hint speaks of the replica's own sample before")
		}
	}
	require.Equal(t, chunkenc.ValNone, it.Next())
}

// Gauge histograms go down as they like: none is held at the other replica's,
// though who asks takes the series for a counter, as one may that begins with a
// stale marker.
func TestGaugeHistogramReplicas(t *testing.T) {
	encode := func(from, to int64, count int64) chunkenc.Iterator {
		c := chunkenc.NewHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for at := from; at < to; at += 30_000 {
			h := tsdbutil.GenerateTestHistogram(count)
			h.CounterResetHint = histogram.GaugeType
			_, _, _, err := app.AppendHistogram(nil, 0, at, h, true)
			require.NoError(t, err)
		}
		return c.Iterator(nil)
	}
	few := tsdbutil.GenerateTestFloatHistogram(1).Count
	it := New(Firnline, true, encode(0, 90_000, 9), encode(5_000, 150_000, 1))
	moved := false
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		at, got := it.AtFloatHistogram(nil)
		require.Equal(t, histogram.GaugeType, got.CounterResetHint)
		if at > 60_000 {
			require.Equal(t, few, got.Count, "at %d", at)
			moved = true
		}
	}
	require.NoError(t, it.Err())
	require.True(t, moved)
}

func TestPenalty(t *testing.T) {
	// The samples in A4.12's terms: a is read first; b may speak after a pause of
	// a that is longer than the penalty of twice the interval.
	f := func(t int64) float64 { return float64(t) }
	a := series(10_000, 40_000, 10_000, f)
	a = append(a, series(80_000, 100_000, 10_000, f)...)
	b := series(15_000, 105_000, 10_000, f)
	got := merge(t, Penalty, false, replica(t, 120, a), replica(t, 120, b))
	equal(t, []point{{10_000, 10_000}, {20_000, 20_000}, {30_000, 30_000}, {40_000, 40_000}, {65_000, 65_000}, {75_000, 75_000}, {85_000, 85_000}, {95_000, 95_000}, {105_000, 105_000}}, got)

	// A counter that is lower after the change is raised.
	b = series(15_000, 105_000, 10_000, func(t int64) float64 { return float64(t) - 40_000 })
	got = merge(t, Penalty, true, replica(t, 120, a), replica(t, 120, b))
	require.Equal(t, point{65_000, 40_000}, got[4])
	require.Equal(t, point{75_000, 50_000}, got[5])
}

func TestParseKind(t *testing.T) {
	for _, s := range []string{"firnline", "penalty", "chain"} {
		k, err := ParseKind(s)
		require.NoError(t, err)
		require.Equal(t, Kind(s), k)
	}
	_, err := ParseKind("best")
	require.ErrorContains(t, err, "firnline, penalty, chain")
}

func BenchmarkMerge(b *testing.B) {
	const samples = 10_000
	f := func(t int64) float64 { return float64(t / 7) }
	pair := Split(slices.Concat(
		replica(b, 120, series(0, samples*15_000, 15_000, f)),
		replica(b, 120, series(7_000, samples*15_000, 15_000, f))))
	for _, kind := range []Kind{Firnline, Penalty, Chain} {
		b.Run(fmt.Sprintf("kind=%s/replicas=2/samples=%d", kind, samples), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				it := New(kind, true, iterate(pair)...)
				for it.Next() != chunkenc.ValNone {
				}
			}
		})
	}
	b.Run(fmt.Sprintf("replicas=1/samples=%d", samples), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			it := New(Firnline, true, iterate(pair[:1])...)
			for it.Next() != chunkenc.ValNone {
			}
		}
	})
}
