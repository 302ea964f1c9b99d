package downsample

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// slowHists is appendHists by way of chunkenc's appender.
func slowHists(ts []int64, hs []*histogram.FloatHistogram, kind chunkenc.CounterResetHeader) ([]byte, error) {
	var c chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		return nil, err
	}
	for i, h := range hs {
		h = h.Copy() // The appender sets its spans.
		h.CounterResetHint = histogram.GaugeType
		var wider chunkenc.Chunk
		var widened bool
		if wider, widened, app, err = app.AppendFloatHistogram(nil, 0, ts[i], h, false); err != nil {
			return nil, err
		}
		if wider == nil {
			continue
		}
		if !widened {
			return nil, fmt.Errorf("histogram at %d ms has another layout", ts[i])
		}
		c = wider
	}
	b := c.Bytes()
	const flags = 2 // behind the number of samples
	b[flags] = b[flags]&^chunkenc.CounterResetHeaderMask | byte(kind)
	return b, nil
}

// anyHistogram is one of a layout, without empty buckets.
func anyHistogram(rnd *rand.Rand, layout *histogram.FloatHistogram, dense int) *histogram.FloatHistogram {
	h := layout.Copy()
	number := func() float64 {
		if rnd.Intn(5) == 0 {
			return math.Float64frombits(rnd.Uint64())
		}
		return float64(1 + rnd.Intn(1000))
	}
	h.Count, h.Sum = number(), number()
	side := func(from, to int) (spans []histogram.Span, counts []float64) {
		next := 0
		for i := from; i < to; i++ {
			if rnd.Intn(dense) != 0 {
				continue
			}
			if len(spans) == 0 || i > next {
				spans = append(spans, histogram.Span{Offset: int32(i - next)})
			}
			spans[len(spans)-1].Length++
			counts = append(counts, number())
			next = i + 1
		}
		return spans, counts
	}
	if h.UsesCustomBuckets() {
		h.PositiveSpans, h.PositiveBuckets = side(0, len(h.CustomValues)+1)
		return h
	}
	h.ZeroCount = number()
	h.PositiveSpans, h.PositiveBuckets = side(-10, 20)
	h.NegativeSpans, h.NegativeBuckets = side(-3, 1<<rnd.Intn(8))
	return h
}

func anyLayout(rnd *rand.Rand) *histogram.FloatHistogram {
	if rnd.Intn(3) == 0 {
		h := &histogram.FloatHistogram{Schema: histogram.CustomBucketsSchema}
		bounds := []float64{math.Inf(-1), -3.5, math.Copysign(0, -1), 0.001, 0.25, 1.0 / 3, 7, 33554.430, 33554.431, 1e9, math.Inf(1)}
		for i, b := range bounds {
			if i == 4 || rnd.Intn(2) == 0 {
				h.CustomValues = append(h.CustomValues, b)
			}
		}
		return h
	}
	zeros := []float64{0, 0x1p-128, 0x1p-243, 0x1p-244, 0x1p10, 0x1p11, 0.3, math.MaxFloat64, 5e-324}
	return &histogram.FloatHistogram{Schema: int32(rnd.Intn(13) - 4), ZeroThreshold: zeros[rnd.Intn(len(zeros))]}
}

// TestAppendHists: the bytes are those that chunkenc's appender writes, whatever
// buckets come and go, and what it refuses is refused. A failure prints the seed.
func TestAppendHists(t *testing.T) {
	refused := 0
	for seed := range int64(3000) {
		rnd := rand.New(rand.NewSource(seed))
		layout, dense := anyLayout(rnd), 1+rnd.Intn(4)
		var ts []int64
		var hs []*histogram.FloatHistogram
		at := rnd.Int63n(1<<40) - 1<<39
		for range 1 + rnd.Intn(12) {
			h := anyHistogram(rnd, layout, dense)
			switch rnd.Intn(100) {
			case 0:
				h = &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
			case 1:
				h = anyHistogram(rnd, anyLayout(rnd), dense)
			}
			ts, hs = append(ts, at), append(hs, h)
			at += rnd.Int63n(1 << rnd.Intn(62))
		}
		kind := []chunkenc.CounterResetHeader{chunkenc.UnknownCounterReset, chunkenc.GaugeType}[rnd.Intn(2)]
		want, wantErr := slowHists(ts, hs, kind)
		before := slices.Clone(hs)
		got, err := appendHists([]byte("x"), ts, hs, kind)
		if wantErr != nil {
			require.Error(t, err, "seed %d: %v", seed, wantErr)
			refused++
			continue
		}
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, append([]byte("x"), want...), got, "seed %d", seed)
		require.Equal(t, before, hs, "seed %d", seed)
	}
	require.Greater(t, refused, 100)
}

// TestAppendHistsRefuses: spans that nobody writes.
func TestAppendHistsRefuses(t *testing.T) {
	good := &histogram.FloatHistogram{PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{1, 2}}
	for name, bad := range map[string]*histogram.FloatHistogram{
		"fewer buckets":   {PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{1}},
		"more buckets":    {PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []float64{1, 2}},
		"a huge span":     {PositiveSpans: []histogram.Span{{Length: math.MaxUint32}}, PositiveBuckets: []float64{1}},
		"backwards":       {PositiveSpans: []histogram.Span{{Offset: 5, Length: 1}, {Offset: -3, Length: 1}}, PositiveBuckets: []float64{1, 2}},
		"no spans at all": {NegativeBuckets: []float64{1}},
	} {
		for _, hs := range [][]*histogram.FloatHistogram{{bad}, {good, bad}} {
			_, err := appendHists(nil, []int64{1, 2}[:len(hs)], hs, chunkenc.GaugeType)
			require.ErrorIs(t, err, ErrCorrupt, name)
		}
	}
}
