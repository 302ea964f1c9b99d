package downsample

import (
	"fmt"
	"math"
	"math/big"
	"math/rand"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// randomSeries returns raw samples with all that C9 names: resets on the edges
// of windows and hours, NaN, stale markers, gaps, equal timestamps, one sample
// only. Its values are multiples of 1/8 below 2^40, so that no sum of them is
// rounded; they are below 0 only where low is.
func randomSeries(rnd *rand.Rand, low int) (ts []int64, vs []float64) {
	n := []int{1, 2, 1 + rnd.Intn(50), 1 + rnd.Intn(3000)}[rnd.Intn(4)]
	step := []int64{1000, 15_000, 60_000, 299_999, Resolution5m, Resolution1h, 7_000_000}[rnd.Intn(7)]
	t := 1_699_999_200_000 + rnd.Int63n(3*Resolution1h)
	if rnd.Intn(2) == 0 {
		t -= t % step
	}
	gauge, v := rnd.Intn(3) == 0, float64(rnd.Intn(1000))
	for range n {
		switch rnd.Intn(40) {
		case 0:
			t += rnd.Int63n(3 * Resolution1h)
		case 1: // the last millisecond of a window, or the first
			t = windowEnd(t, Resolution5m) + rnd.Int63n(2)
			v = float64(rnd.Intn(3))
		case 2:
			t = windowEnd(t, Resolution1h) + rnd.Int63n(2)
			v = float64(rnd.Intn(3))
		case 3:
			v = 0
		case 4:
			ts, vs = append(ts, t), append(vs, math.NaN())
		case 5:
			ts, vs = append(ts, t), append(vs, math.Float64frombits(value.StaleNaN))
			t += rnd.Int63n(2)
		}
		if gauge {
			v = float64(low+rnd.Intn(1<<20)) / 8
		} else {
			v += float64(rnd.Intn(800)) / 8
		}
		ts, vs = append(ts, t), append(vs, v)
		if rnd.Intn(30) > 0 { // else the next has the same timestamp
			t += step
		}
	}
	return ts, vs
}

// kept returns what counts of a series, in the plainest way.
func kept(ts []int64, vs []float64) (out []sample) {
	for i, t := range ts {
		if math.IsNaN(vs[i]) || len(out) > 0 && t <= out[len(out)-1].t {
			continue
		}
		out = append(out, sample{t, vs[i]})
	}
	return out
}

// corrected returns the true growth of a counter up to each sample, from 0 on.
func corrected(samples []sample) []*big.Float {
	total, last := new(big.Float).SetPrec(500), 0.0
	out := make([]*big.Float, len(samples))
	for i, s := range samples {
		switch {
		case s.v < last:
			total.Add(total, big.NewFloat(s.v))
		default:
			total.Add(total, new(big.Float).SetPrec(500).Sub(big.NewFloat(s.v), big.NewFloat(last)))
		}
		last = s.v
		out[i] = new(big.Float).Copy(total)
	}
	return out
}

func decodeFloats(tb testing.TB, e Encoded) *floatChunk {
	tb.Helper()
	c, err := Decode(e.Payload)
	require.NoError(tb, err)
	f := &floatChunk{}
	require.NoError(tb, f.decode(c))
	require.Equal(tb, e.Windows, len(f.t))
	require.Equal(tb, e.Windows, c.NumSamples())
	require.Equal(tb, e.MaxTime, f.t[len(f.t)-1])
	require.False(tb, e.Histograms)
	n := len(f.ct)
	require.Equal(tb, e.Windows+2, n, "the counter has two samples more")
	require.Equal(tb, f.ct[n-1], f.ct[n-2], "the last timestamp stands twice")
	require.Equal(tb, e.MinTime, f.ct[0])
	return f
}

// checkFloats holds the chunks of a resolution against the raw samples.
func checkFloats(tb testing.TB, raw []sample, chunks []Encoded, resolution int64) {
	tb.Helper()
	rest := raw
	for _, e := range chunks {
		c := decodeFloats(tb, e)
		n := 0
		for n < len(rest) && rest[n].t <= e.MaxTime {
			n++
		}
		in := rest[:n]
		rest = rest[n:]
		require.NotEmpty(tb, in)
		require.Equal(tb, in[0], sample{c.firstT, c.first}, "first raw sample")
		require.Equal(tb, in[n-1].v, c.last, "last raw value")
		require.LessOrEqual(tb, len(c.t), chunkWindows)
		checkWindows(tb, in, c, resolution)
	}
	require.Empty(tb, rest, "samples in no chunk")
}

func checkWindows(tb testing.TB, in []sample, c *floatChunk, resolution int64) {
	tb.Helper()
	total := corrected(in)
	at := 0
	for i, t := range c.t {
		end := windowEnd(in[at].t, resolution)
		count, sum := 0, new(big.Float).SetPrec(500)
		least, largest := math.Inf(1), math.Inf(-1)
		for ; at < len(in) && in[at].t <= end; at++ {
			count++
			sum.Add(sum, big.NewFloat(in[at].v))
			least, largest = math.Min(least, in[at].v), math.Max(largest, in[at].v)
		}
		require.Equal(tb, min(end, in[len(in)-1].t), t, "timestamp")
		require.Equal(tb, float64(count), c.count[i], "count at %d", t)
		require.Equal(tb, least, c.min[i], "min at %d", t)
		require.Equal(tb, largest, c.max[i], "max at %d", t)
		requireExact(tb, sum, c.sum[i], "sum at %d", t)
		// A gauge below 0 at the start of a chunk is its counter's 0.
		want := new(big.Float).SetPrec(500).Sub(total[at-1], total[0])
		requireExact(tb, want.Add(want, big.NewFloat(in[0].v)), c.counter[i], "counter at %d", t)
	}
	require.Equal(tb, len(in), at, "samples in no window")
}

func requireExact(tb testing.TB, want *big.Float, got float64, msg string, args ...any) {
	tb.Helper()
	w, accuracy := want.Float64()
	require.Equal(tb, big.Exact, accuracy, "the oracle's values are too fine")
	require.Equal(tb, w, got, fmt.Sprintf(msg, args...))
}

// inBatches adds samples in batches of random size.
func inBatches(tb testing.TB, rnd *rand.Rand, d *Downsampler, ts []int64, vs []float64) {
	tb.Helper()
	for len(ts) > 0 {
		n := min(len(ts), 1+rnd.Intn(200))
		require.NoError(tb, d.Floats(ts[:n], vs[:n]))
		ts, vs = ts[n:], vs[n:]
	}
}

// finish returns copies of a resolution's chunks.
func finish(tb testing.TB, d *Downsampler, resolution int64) []Encoded {
	tb.Helper()
	chunks, err := d.Finish(resolution)
	require.NoError(tb, err)
	chunks = slices.Clone(chunks)
	for i := range chunks {
		chunks[i].Payload = slices.Clone(chunks[i].Payload)
	}
	return chunks
}

// aggregated returns the 1h chunks of 5m chunks.
func aggregated(tb testing.TB, fine []Encoded) []Encoded {
	tb.Helper()
	d := NewDownsampler(Resolution1h)
	for _, e := range fine {
		c, err := Decode(e.Payload)
		require.NoError(tb, err)
		require.NoError(tb, d.Aggregate(c))
	}
	return finish(tb, d, Resolution1h)
}

// TestFloatsAreExact compares both tiers with an oracle, and the two ways to the
// coarser one with each other. RELIABILITY C9, P4
func TestFloatsAreExact(t *testing.T) {
	for seed := range int64(200) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { checkFloatsOf(t, seed) })
	}
}

// TestIncreaseIsThatOfRaw cuts a series into blocks anywhere, downsamples each,
// some of them twice, and reads the counter over all. RELIABILITY C9, P4, "Relations"
func TestIncreaseIsThatOfRaw(t *testing.T) {
	for seed := range int64(200) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { checkIncreaseOf(t, seed) })
	}
}

// FuzzDownsample looks for series that the tests above don't have. RELIABILITY C9
func FuzzDownsample(f *testing.F) {
	f.Add(int64(1))
	f.Fuzz(func(t *testing.T, seed int64) {
		checkFloatsOf(t, seed)
		checkIncreaseOf(t, seed)
		checkHistogramsOf(t, seed)
		checkHistogramIncreaseOf(t, seed)
	})
}

func checkFloatsOf(t *testing.T, seed int64) {
	rnd := rand.New(rand.NewSource(seed))
	ts, vs := randomSeries(rnd, -1<<19)
	raw := kept(ts, vs)
	d := NewDownsampler(Resolution5m, Resolution1h)
	for range 2 { // The second time in the memory of the first.
		d.Reset()
		inBatches(t, rnd, d, ts, vs)
		fine, coarse := finish(t, d, Resolution5m), finish(t, d, Resolution1h)
		checkFloats(t, raw, fine, Resolution5m)
		checkFloats(t, raw, coarse, Resolution1h)
		require.Equal(t, coarse, aggregated(t, fine), "by way of 5m chunks")

		only := NewDownsampler(Resolution1h)
		require.NoError(t, only.Floats(ts, vs))
		require.Equal(t, coarse, finish(t, only, Resolution1h), "without the 5m tier")
	}
}

func checkIncreaseOf(t *testing.T, seed int64) {
	rnd := rand.New(rand.NewSource(seed))
	ts, vs := randomSeries(rnd, 0)
	raw := kept(ts, vs)
	total := corrected(raw)
	var its []chunkenc.Iterator
	for i := 0; i < len(raw); {
		n := min(len(raw)-i, 1+rnd.Intn(2000))
		d := NewDownsampler(Resolution5m, Resolution1h)
		for _, s := range raw[i : i+n] {
			require.NoError(t, d.Floats([]int64{s.t}, []float64{s.v}))
		}
		for _, e := range finish(t, d, []int64{Resolution5m, Resolution1h}[rnd.Intn(2)]) {
			its = append(its, counterOf(t, e))
		}
		i += n
	}
	at := 0
	it := NewCounter(its)
	for it.Next() == chunkenc.ValFloat {
		now, v := it.At()
		for at+1 < len(raw) && raw[at+1].t <= now {
			at++
		}
		requireExact(t, total[at], v, "counter at %d", now)
	}
	require.NoError(t, it.Err())
	require.Equal(t, max(len(raw)-1, 0), at, "the counter ends early")
}

// TestReadersSeeTheWindows reads the aggregates as a query does. RELIABILITY C9
func TestReadersSeeTheWindows(t *testing.T) {
	ts := []int64{0, 100_000, 300_000, 599_999, 600_000}
	vs := []float64{1, 2, 10, 20, 7}
	d := NewDownsampler(Resolution5m, Resolution1h)
	require.NoError(t, d.Floats(ts, vs))
	read := func(resolution int64) map[string][]sample {
		chunks := finish(t, d, resolution)
		require.Len(t, chunks, 1)
		c, err := Decode(chunks[0].Payload)
		require.NoError(t, err)
		it := func(a Type) chunkenc.Iterator { return chunkOf(c[a].Bytes).Iterator(nil) }
		return map[string][]sample{
			"count": floats(t, it(Count)), "sum": floats(t, it(Sum)), "min": floats(t, it(Min)), "max": floats(t, it(Max)),
			"average": floats(t, NewAverage(it(Count), it(Sum))),
			"counter": floats(t, NewCounter([]chunkenc.Iterator{it(Counter)})),
		}
	}
	require.Equal(t, map[string][]sample{
		"count":   {{299_999, 2}, {599_999, 2}, {600_000, 1}},
		"sum":     {{299_999, 3}, {599_999, 30}, {600_000, 7}},
		"min":     {{299_999, 1}, {599_999, 10}, {600_000, 7}},
		"max":     {{299_999, 2}, {599_999, 20}, {600_000, 7}},
		"average": {{299_999, 1.5}, {599_999, 15}, {600_000, 7}},
		"counter": {{0, 1}, {299_999, 2}, {599_999, 20}, {600_000, 27}},
	}, read(Resolution5m))
	require.Equal(t, map[string][]sample{
		"count": {{600_000, 5}}, "sum": {{600_000, 40}}, "min": {{600_000, 1}}, "max": {{600_000, 20}},
		"average": {{600_000, 8}}, "counter": {{0, 1}, {600_000, 27}},
	}, read(Resolution1h))
}

// TestSumIsSequential: values that do round are added in order of time, those
// of 1h by their 5m sums; a counter without resets is the raw value.
func TestSumIsSequential(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	var ts []int64
	var vs []float64
	v := 0.0
	for i := range 480 {
		v += rnd.Float64()
		ts, vs = append(ts, int64(i)*15_000), append(vs, v)
	}
	d := NewDownsampler(Resolution5m, Resolution1h)
	require.NoError(t, d.Floats(ts, vs))
	fine, coarse := decodeFloats(t, finish(t, d, Resolution5m)[0]), decodeFloats(t, finish(t, d, Resolution1h)[0])
	require.Len(t, fine.t, 24)
	require.Len(t, coarse.t, 2)
	for i := range fine.t {
		sum := 0.0
		for _, v := range vs[20*i : 20*i+20] {
			sum += v
		}
		require.Equal(t, sum, fine.sum[i])
		require.Equal(t, vs[20*i+19], fine.counter[i])
	}
	for i := range coarse.t {
		sum := 0.0
		for _, v := range fine.sum[12*i : 12*i+12] {
			sum += v
		}
		require.Equal(t, sum, coarse.sum[i])
		require.Equal(t, vs[240*i+239], coarse.counter[i])
	}
}

func TestNothingInNothingOut(t *testing.T) {
	d := NewDownsampler(Resolution5m, Resolution1h)
	require.NoError(t, d.Floats([]int64{1, 2}, []float64{math.NaN(), math.Float64frombits(value.StaleNaN)}))
	require.Empty(t, finish(t, d, Resolution5m))
	require.Empty(t, finish(t, d, Resolution1h))
	require.Error(t, d.Floats([]int64{1}, nil))
	require.Error(t, d.Aggregate(Chunk{}), "5m windows are not made of 5m windows")
}

// TestExtremeTimes: windows at both ends of time, and those before 1970.
func TestExtremeTimes(t *testing.T) {
	raw := []sample{
		{math.MinInt64 + 1, 1}, {-Resolution5m - 1, 2}, {-Resolution5m, 3}, {-1, 4}, {0, 5}, {math.MaxInt64 - 1, 6}, {math.MaxInt64, 7},
	}
	d := NewDownsampler(Resolution5m, Resolution1h)
	for _, s := range raw {
		require.NoError(t, d.Floats([]int64{s.t}, []float64{s.v}))
	}
	checkFloats(t, raw, finish(t, d, Resolution5m), Resolution5m)
	checkFloats(t, raw, finish(t, d, Resolution1h), Resolution1h)
}

func BenchmarkFloats(b *testing.B) {
	for _, step := range []int64{15_000, 60_000} {
		n := int(48 * Resolution1h / step)
		rnd := rand.New(rand.NewSource(1))
		ts, vs, v := make([]int64, n), make([]float64, n), 0.0
		for i := range ts {
			v += float64(rnd.Intn(50))
			ts[i], vs[i] = 1_700_000_000_000-1_700_000_000_000%Resolution1h+int64(i)*step, v
		}
		var chunks [][]byte
		for i := 0; i < n; i += 120 {
			end := min(n, i+120)
			chunks = append(chunks, AppendXORChunk(nil, ts[i:end], vs[i:end]))
		}
		b.Run(fmt.Sprintf("tiers=5m+1h/step=%ds/samples=%d", step/1000, n), func(b *testing.B) {
			d := NewDownsampler(Resolution5m, Resolution1h)
			b.ReportAllocs()
			for b.Loop() {
				d.Reset()
				for _, c := range chunks {
					ts, vs, _ = AppendXOR(ts[:0], vs[:0], c)
					_ = d.Floats(ts, vs)
				}
				_, _ = d.Finish(Resolution5m)
				_, _ = d.Finish(Resolution1h)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
		})
	}
}

// TestWindowsAtTheEnds: no time is so early or late that its window lies
// elsewhere.
func TestWindowsAtTheEnds(t *testing.T) {
	for _, at := range []int64{math.MinInt64, math.MinInt64 + 1, -Resolution5m - 1, -Resolution5m, -1, 0, 1, Resolution5m, math.MaxInt64 - 1, math.MaxInt64} {
		start, end := WindowStart(at, Resolution5m), windowEnd(at, Resolution5m)
		require.LessOrEqual(t, start, at)
		require.GreaterOrEqual(t, end, at)
		require.Less(t, uint64(end-start), uint64(Resolution5m), "%d", at)
	}
}
