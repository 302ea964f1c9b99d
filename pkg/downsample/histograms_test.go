package downsample

import (
	"fmt"
	"maps"
	"math"
	"math/rand"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// histSample is a raw sample: a float where h is nil.
type histSample struct {
	t int64
	v float64
	h *histogram.FloatHistogram
}

// histSource is a client whose histograms change in every way they can.
type histSource struct {
	rnd     *rand.Rand
	schema  int32 // of exponential ones; counts are kept at schema 3
	custom  bool
	gauge   bool
	zero    float64 // threshold
	bounds  []float64
	buckets map[int]int
	zeros   int
	sum     float64
}

func (s *histSource) reset() {
	s.buckets, s.zeros, s.sum = map[int]int{}, 0, 0
}

// change changes what only changes now and then.
func (s *histSource) change() {
	switch s.rnd.Intn(8) {
	case 0:
		s.reset()
	case 1:
		s.schema = max(0, s.schema-1)
	case 2: // finer: never without a reset
		s.schema = 3
		s.reset()
	case 3:
		s.zero = []float64{0, 1.0 / 1024, 1.0 / 512}[s.rnd.Intn(3)]
	case 4:
		s.bounds = [][]float64{{1, 2, 3, 4}, {1, 2, 4, 8}, {0.5}}[s.rnd.Intn(3)]
		s.reset()
	case 5:
		s.custom = !s.custom
		s.reset()
	case 6:
		s.gauge = !s.gauge
		s.reset()
	}
}

func (s *histSource) next() *histogram.FloatHistogram {
	if s.gauge && s.rnd.Intn(3) == 0 {
		s.reset()
	}
	for range s.rnd.Intn(4) {
		s.buckets[s.rnd.Intn(40)]++
		s.zeros += s.rnd.Intn(2)
		s.sum += float64(s.rnd.Intn(64)) / 8
	}
	h := &histogram.FloatHistogram{Schema: 3, Sum: s.sum}
	if s.gauge {
		h.CounterResetHint = histogram.GaugeType
	}
	counts := map[int]int{}
	for i, n := range s.buckets {
		if s.custom {
			i %= len(s.bounds) + 1
		}
		counts[i] += n
	}
	next := 0
	for _, i := range slices.Sorted(maps.Keys(counts)) {
		h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(i - next), Length: 1})
		h.PositiveBuckets = append(h.PositiveBuckets, float64(counts[i]))
		h.Count += float64(counts[i])
		next = i + 1
	}
	if s.custom {
		h.Schema, h.CustomValues = histogram.CustomBucketsSchema, s.bounds
		return h
	}
	h.ZeroThreshold, h.ZeroCount = s.zero, float64(s.zeros)
	h.Count += h.ZeroCount
	if s.schema < 3 {
		if err := h.ReduceResolution(s.schema); err != nil {
			panic(err)
		}
	}
	return h
}

// randomHistograms returns a series of histograms, and of floats now and then.
func randomHistograms(rnd *rand.Rand) (out []histSample) {
	src := &histSource{rnd: rnd, schema: 3, bounds: []float64{1, 2, 3, 4}, custom: rnd.Intn(2) == 0, gauge: rnd.Intn(4) == 0}
	src.reset()
	calm := []int{3, 30, 1000}[rnd.Intn(3)]
	n := []int{1, 1 + rnd.Intn(20), 1 + rnd.Intn(600)}[rnd.Intn(3)]
	step := []int64{15_000, 60_000, 299_999, Resolution5m, Resolution1h}[rnd.Intn(5)]
	t := 1_699_999_200_000 + rnd.Int63n(3*Resolution1h)
	isFloat := false
	for range n {
		if rnd.Intn(calm) == 0 {
			src.change()
		}
		if rnd.Intn(10*calm) == 0 {
			isFloat = !isFloat
		}
		if rnd.Intn(40) == 0 {
			t = windowEnd(t, Resolution1h) + rnd.Int63n(2)
		}
		switch {
		case isFloat:
			out = append(out, histSample{t: t, v: float64(rnd.Intn(100))})
		case rnd.Intn(40) == 0:
			out = append(out, histSample{t: t, h: &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}})
		default:
			out = append(out, histSample{t: t, h: src.next()})
		}
		if rnd.Intn(30) > 0 {
			t += step
		}
	}
	return out
}

func addSamples(tb testing.TB, d *Downsampler, samples []histSample) {
	tb.Helper()
	for _, s := range samples {
		if s.h == nil {
			require.NoError(tb, d.Floats([]int64{s.t}, []float64{s.v}))
			continue
		}
		before := s.h.Copy()
		require.NoError(tb, d.Histogram(s.t, s.h))
		require.True(tb, before.Equals(s.h), "the caller's histogram was changed")
	}
}

// keptHistograms returns what counts of a series.
func keptHistograms(in []histSample) (out []histSample) {
	for _, s := range in {
		stale := s.h != nil && value.IsStaleNaN(s.h.Sum)
		if !stale && (len(out) == 0 || s.t > out[len(out)-1].t) {
			out = append(out, s)
		}
	}
	return out
}

// alike tells whether two histograms of a layout are the same at the coarser
// schema of both.
func alike(tb testing.TB, a, b *histogram.FloatHistogram) bool {
	tb.Helper()
	a, b = a.Copy(), b.Copy()
	for _, h := range []*histogram.FloatHistogram{a, b} {
		if schema := min(a.Schema, b.Schema); h.Schema > schema {
			require.NoError(tb, h.ReduceResolution(schema))
		}
		h.Compact(0)
	}
	return a.Equals(b)
}

func add(tb testing.TB, a, b *histogram.FloatHistogram) *histogram.FloatHistogram {
	tb.Helper()
	if a == nil {
		return b.Copy()
	}
	sum, _, _, err := a.Copy().Add(b)
	require.NoError(tb, err)
	return sum
}

// grown is the plainest way to correct a counter: add what is new.
func grown(tb testing.TB, total, prev, h *histogram.FloatHistogram) *histogram.FloatHistogram {
	tb.Helper()
	if total == nil || h.DetectReset(prev) {
		return add(tb, total, h)
	}
	delta, _, _, err := h.Copy().Sub(prev)
	require.NoError(tb, err)
	return add(tb, total, delta)
}

// checkHistograms holds the chunks of a resolution against the raw samples.
func checkHistograms(tb testing.TB, raw []histSample, chunks []Encoded, resolution int64) {
	tb.Helper()
	rest := raw
	for _, e := range chunks {
		n := 0
		for n < len(rest) && rest[n].t <= e.MaxTime {
			n++
		}
		in := rest[:n]
		rest = rest[n:]
		require.NotEmpty(tb, in)
		require.Equal(tb, in[0].t, e.MinTime)
		require.Equal(tb, in[0].h != nil, e.Histograms)
		if e.Histograms {
			checkHistogramChunk(tb, in, e, resolution)
			continue
		}
		var plain []sample
		for _, s := range in {
			require.Nil(tb, s.h)
			plain = append(plain, sample{s.t, s.v})
		}
		checkFloats(tb, plain, []Encoded{e}, resolution)
	}
	require.Empty(tb, rest, "samples in no chunk")
}

func checkHistogramChunk(tb testing.TB, in []histSample, e Encoded, resolution int64) {
	tb.Helper()
	sub, err := Decode(e.Payload)
	require.NoError(tb, err)
	require.False(tb, sub.Has(Min) || sub.Has(Max))
	require.Equal(tb, chunkenc.EncFloatHistogram, sub[Sum].Encoding)
	require.Equal(tb, chunkenc.EncFloatHistogram, sub[Counter].Encoding)
	c, err := decodeHists(sub)
	require.NoError(tb, err)
	require.LessOrEqual(tb, e.Windows, chunkWindows)
	require.Len(tb, c.t, e.Windows)
	kind := layoutOf(in[0].h)
	require.True(tb, kind.equal(c.layout), "layout %+v, want %+v", c.layout, kind)
	require.True(tb, alike(tb, in[0].h, c.first))
	schema := in[0].h.Schema
	for _, s := range in {
		require.True(tb, kind.fits(s.h), "histograms of two layouts in a chunk")
		schema = min(schema, s.h.Schema)
	}
	require.Equal(tb, schema, c.sum[0].Schema)

	var total *histogram.FloatHistogram
	at := 0
	for i, t := range c.t {
		end := windowEnd(in[at].t, resolution)
		count := 0
		var sum *histogram.FloatHistogram
		for ; at < len(in) && in[at].t <= end; at++ {
			count++
			sum = add(tb, sum, in[at].h)
			if kind.gauge {
				total = in[at].h
			} else {
				total = grown(tb, total, in[max(0, at-1)].h, in[at].h)
			}
		}
		require.Equal(tb, min(end, in[len(in)-1].t), t)
		require.Equal(tb, float64(count), c.count[i])
		require.Truef(tb, alike(tb, sum, c.sum[i]), "sum at %d: %v, want %v", t, c.sum[i], sum)
		require.Truef(tb, alike(tb, total, c.counter[i]), "counter at %d: %v, want %v", t, c.counter[i], total)
		require.Equal(tb, histogram.GaugeType, c.sum[i].CounterResetHint, "a sum may go down")
		require.Equal(tb, kind.gauge, c.counter[i].CounterResetHint == histogram.GaugeType)
	}
	require.Equal(tb, len(in), at)
	if c.last != nil {
		require.True(tb, alike(tb, in[len(in)-1].h, c.last), "last raw value")
	}
}

// TestHistogramsAreExact: exponential and custom buckets, counters and gauges,
// floats in between, schemas, bounds and zero thresholds that change. RELIABILITY C9, P4
func TestHistogramsAreExact(t *testing.T) {
	for seed := range int64(300) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { checkHistogramsOf(t, seed) })
	}
}

func checkHistogramsOf(t *testing.T, seed int64) {
	samples := randomHistograms(rand.New(rand.NewSource(seed)))
	raw := keptHistograms(samples)
	d := NewDownsampler(Resolution5m, Resolution1h)
	addSamples(t, d, samples)
	fine, coarse := finish(t, d, Resolution5m), finish(t, d, Resolution1h)
	checkHistograms(t, raw, fine, Resolution5m)
	checkHistograms(t, raw, coarse, Resolution1h)
	again := aggregated(t, fine)
	require.Len(t, again, len(coarse))
	for i := range coarse {
		require.Equal(t, coarse[i], again[i], "by way of 5m chunks")
	}
}

// TestHistogramIncreaseIsThatOfRaw reads the counters of blocks cut anywhere as
// one. RELIABILITY C9, P4, "Relations"
func TestHistogramIncreaseIsThatOfRaw(t *testing.T) {
	for seed := range int64(300) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { checkHistogramIncreaseOf(t, seed) })
	}
}

func checkHistogramIncreaseOf(t *testing.T, seed int64) {
	rnd := rand.New(rand.NewSource(seed))
	raw := keptHistograms(randomHistograms(rnd))
	var its []chunkenc.Iterator
	for i := 0; i < len(raw); {
		n := min(len(raw)-i, 1+rnd.Intn(400))
		d := NewDownsampler(Resolution5m, Resolution1h)
		addSamples(t, d, raw[i:i+n])
		for _, e := range finish(t, d, []int64{Resolution5m, Resolution1h}[rnd.Intn(2)]) {
			its = append(its, counterOf(t, e))
		}
		i += n
	}
	checkIncrease(t, raw, NewCounter(its))
}

func counterOf(tb testing.TB, e Encoded) chunkenc.Iterator {
	tb.Helper()
	c, err := Decode(e.Payload)
	require.NoError(tb, err)
	chunk, err := chunkenc.FromData(c[Counter].Encoding, c[Counter].Bytes)
	require.NoError(tb, err)
	return chunk.Iterator(nil)
}

// checkIncrease compares count and sum of the counter at each sample of it with
// those of raw samples. What can't be added starts anew.
func checkIncrease(tb testing.TB, raw []histSample, it chunkenc.Iterator) {
	tb.Helper()
	at, count, sum := -1, 0.0, 0.0
	step := func() {
		at++
		h := raw[at].h
		switch {
		case h == nil:
			return
		case h.CounterResetHint == histogram.GaugeType || at == 0 || raw[at-1].h == nil ||
			raw[at-1].h.CounterResetHint == histogram.GaugeType || raw[at-1].h.UsesCustomBuckets() != h.UsesCustomBuckets():
			count, sum = h.Count, h.Sum
		case h.DetectReset(raw[at-1].h):
			count, sum = count+h.Count, sum+h.Sum
		default:
			count, sum = count+h.Count-raw[at-1].h.Count, sum+h.Sum-raw[at-1].h.Sum
		}
	}
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		for at+1 < len(raw) && raw[at+1].t <= it.AtT() {
			step()
		}
		require.Equal(tb, raw[at].h == nil, typ == chunkenc.ValFloat)
		if typ == chunkenc.ValFloat {
			continue
		}
		_, h := it.AtFloatHistogram(nil)
		require.Equal(tb, count, h.Count, "count at %d", it.AtT())
		require.Equal(tb, sum, h.Sum, "sum at %d", it.AtT())
		require.Equal(tb, raw[at].h.CounterResetHint == histogram.GaugeType, h.CounterResetHint == histogram.GaugeType)
	}
	require.NoError(tb, it.Err())
	require.Equal(tb, len(raw)-1, at, "the counter ends early")
}

// TestHistogramWithNaNSum: who observes NaN has a sum of NaN for ever, and still
// counts.
func TestHistogramWithNaNSum(t *testing.T) {
	d := NewDownsampler(Resolution5m)
	require.NoError(t, d.Histogram(1000, &histogram.FloatHistogram{Count: 3, ZeroCount: 3, Sum: math.NaN()}))
	chunks := finish(t, d, Resolution5m)
	require.Len(t, chunks, 1)
	sub, err := Decode(chunks[0].Payload)
	require.NoError(t, err)
	c, err := decodeHists(sub)
	require.NoError(t, err)
	require.Equal(t, []float64{1}, c.count)
	require.Equal(t, 3.0, c.counter[0].Count)
}

// TestIntHistograms: integers become what their floats do, however a histogram
// differs from the one before it.
func TestIntHistograms(t *testing.T) {
	none := &histogram.Histogram{Count: 3, Sum: 1, ZeroCount: 3, ZeroThreshold: 0.001}
	stale := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	gauge := tsdbutil.GenerateTestGaugeHistogram(3)
	var in []*histogram.Histogram
	for i := range int64(50) {
		in = append(in, tsdbutil.GenerateTestHistogram(i), tsdbutil.GenerateTestHistogram(i+1))
		in = append(in, []*histogram.Histogram{none, tsdbutil.GenerateTestCustomBucketsHistogram(i), stale, gauge}[i%4])
	}
	ints, floats := NewDownsampler(Resolution5m, Resolution1h), NewDownsampler(Resolution5m, Resolution1h)
	for i, h := range in {
		require.NoError(t, ints.IntHistogram(int64(i)*60_000, h))
		require.NoError(t, floats.Histogram(int64(i)*60_000, h.ToFloat(nil)))
	}
	for _, resolution := range []int64{Resolution5m, Resolution1h} {
		require.Equal(t, finish(t, floats, resolution), finish(t, ints, resolution))
	}
}

func BenchmarkHistograms(b *testing.B) {
	src := &histSource{rnd: rand.New(rand.NewSource(1)), schema: 3}
	src.reset()
	var samples []histSample
	for i := range 2000 {
		samples = append(samples, histSample{t: 1_699_999_200_000 + int64(i)*15_000, h: src.next()})
	}
	b.Run(fmt.Sprintf("tiers=5m+1h/samples=%d", len(samples)), func(b *testing.B) {
		d := NewDownsampler(Resolution5m, Resolution1h)
		b.ReportAllocs()
		for b.Loop() {
			d.Reset()
			for _, s := range samples {
				_ = d.Histogram(s.t, s.h)
			}
			_, _ = d.Finish(Resolution5m)
			_, _ = d.Finish(Resolution1h)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(samples)), "ns/sample")
	})
	var ints []*histogram.Histogram
	for i := range samples {
		ints = append(ints, tsdbutil.GenerateTestHistogram(int64(i)))
	}
	b.Run(fmt.Sprintf("ints/tiers=5m+1h/samples=%d", len(samples)), func(b *testing.B) {
		d := NewDownsampler(Resolution5m, Resolution1h)
		b.ReportAllocs()
		for b.Loop() {
			d.Reset()
			for i, h := range ints {
				_ = d.IntHistogram(samples[i].t, h)
			}
			_, _ = d.Finish(Resolution5m)
			_, _ = d.Finish(Resolution1h)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(samples)), "ns/sample")
	})
}
