package model

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// source makes up the samples of one series, scrape by scrape.
type source struct {
	labels labels.Labels
	next   func(rnd *rand.Rand) Sample // without its time

	absent int     // scrapes still to be missed
	known  bool    // was in the scrape before
	missed []int64 // ms; the newest scrapes that were missed
}

// scrape returns the sample at t; false where the target has gone.
func (s *source) scrape(rnd *rand.Rand, t int64) (Sample, bool) {
	if s.absent > 0 {
		s.absent--
		s.missed = append(s.missed, t)
		return Sample{}, false
	}
	sample := s.next(rnd)
	sample.Time = t
	if s.known && rnd.IntN(60) == 0 { // goes away, with a stale marker or without one
		s.absent, s.known, s.missed = 1+rnd.IntN(50), false, nil
		if rnd.IntN(2) == 0 {
			return Sample{}, false
		}
		return stale(sample), true
	}
	s.known = true
	return sample, true
}

func stale(s Sample) Sample {
	nan := math.Float64frombits(value.StaleNaN)
	switch {
	case s.Hist != nil:
		return Sample{Time: s.Time, Hist: &histogram.Histogram{Sum: nan}}
	case s.FloatHist != nil:
		return Sample{Time: s.Time, FloatHist: &histogram.FloatHistogram{Sum: nan}}
	}
	return Sample{Time: s.Time, Value: nan}
}

// oddValues are label values that sort, escape or match in surprising ways.
var oddValues = []string{"a", "ab", "B", "ü", "x y", `q"\`, "1", "10", "\x01", "a\nb"}

// sources makes up the series of one target.
func sources(rnd *rand.Rand) []*source {
	var out []*source
	add := func(name string, n int, next func() func(*rand.Rand) Sample) {
		for i := range n {
			b := labels.NewBuilder(labels.FromStrings("__name__", name, "pod", fmt.Sprint("pod-", i)))
			if rnd.IntN(2) == 0 {
				b.Set("zone", oddValues[rnd.IntN(len(oddValues))])
			}
			if rnd.IntN(4) == 0 {
				b.Set("cluster", "overridden")
			}
			if rnd.IntN(4) == 0 {
				b.Set("Upper", oddValues[rnd.IntN(len(oddValues))]) // sorts before external labels
			}
			out = append(out, &source{labels: b.Labels(), next: next()})
		}
	}
	add("queue", 1+rnd.IntN(4), gauge)
	add("requests_total", 1+rnd.IntN(4), counter)
	add("latency", 1+rnd.IntN(3), func() func(*rand.Rand) Sample { return native(false) })
	add("size", 1+rnd.IntN(2), func() func(*rand.Rand) Sample { return native(true) })
	add("custom", 1+rnd.IntN(2), customBuckets)
	add("temperature", 1, gaugeHistogram)
	add("mixed", 1, mixed)
	return out
}

func gauge() func(*rand.Rand) Sample {
	v := 10.0
	return func(rnd *rand.Rand) Sample {
		switch rnd.IntN(100) {
		case 0:
			return Sample{Value: math.NaN()}
		case 1:
			return Sample{Value: math.Inf(rnd.IntN(2)*2 - 1)}
		case 2:
			return Sample{Value: math.Copysign(0, -1)}
		}
		v += rnd.NormFloat64()
		return Sample{Value: v}
	}
}

func counter() func(*rand.Rand) Sample {
	v := 0.0
	return func(rnd *rand.Rand) Sample {
		if v += float64(rnd.IntN(20)); rnd.IntN(80) == 0 {
			v = float64(rnd.IntN(3))
		}
		return Sample{Value: v}
	}
}

// native counts observations in exponential buckets; it is reset, and changes
// its schema, now and then.
func native(float bool) func(*rand.Rand) Sample {
	counts, schema := make([]int64, 8), int32(1)
	return func(rnd *rand.Rand) Sample {
		if rnd.IntN(80) == 0 {
			clear(counts)
			schema = int32(rnd.IntN(4)) - 1
		}
		for range rnd.IntN(6) {
			counts[rnd.IntN(len(counts))]++
		}
		h := ofCounts(counts)
		h.Schema, h.ZeroThreshold = schema, 0.001
		if float {
			return Sample{FloatHist: h.ToFloat(nil)}
		}
		return Sample{Hist: h}
	}
}

// customBuckets is a histogram with bounds of its own (schema -53), which change.
func customBuckets() func(*rand.Rand) Sample {
	counts, bounds := make([]int64, 4), []float64{0.1, 1, 10}
	return func(rnd *rand.Rand) Sample {
		if rnd.IntN(80) == 0 {
			clear(counts)
			bounds = []float64{0.1, 1 + float64(rnd.IntN(3)), 10}
		}
		counts[rnd.IntN(len(counts))]++
		h := ofCounts(counts)
		h.Schema, h.CustomValues = histogram.CustomBucketsSchema, bounds
		return Sample{Hist: h}
	}
}

func gaugeHistogram() func(*rand.Rand) Sample {
	counts := make([]int64, 5)
	return func(rnd *rand.Rand) Sample {
		for i := range counts {
			counts[i] = int64(rnd.IntN(4))
		}
		h := ofCounts(counts)
		h.CounterResetHint, h.ZeroThreshold = histogram.GaugeType, 0.001
		return Sample{Hist: h}
	}
}

// mixed changes between floats and histograms.
func mixed() func(*rand.Rand) Sample {
	float, hist, asHist := counter(), native(false), false
	return func(rnd *rand.Rand) Sample {
		if rnd.IntN(30) == 0 {
			asHist = !asHist
		}
		if asHist {
			return hist(rnd)
		}
		return float(rnd)
	}
}

// ofCounts is a histogram with so many observations in each bucket; empty ones
// are left out of the spans as instrumentation does.
func ofCounts(counts []int64) *histogram.Histogram {
	h := &histogram.Histogram{}
	var before, sum int64
	gap := int32(0)
	for i, c := range counts {
		if c == 0 {
			gap++
			continue
		}
		if gap > 0 || len(h.PositiveSpans) == 0 {
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: gap})
			gap = 0
		}
		h.PositiveSpans[len(h.PositiveSpans)-1].Length++
		h.PositiveBuckets = append(h.PositiveBuckets, c-before)
		before = c
		sum += c * int64(i+1)
		h.Count += uint64(c)
	}
	h.Sum = float64(sum) / 4
	return h
}
