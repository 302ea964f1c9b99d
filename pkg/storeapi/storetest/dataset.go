package storetest

import (
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// Times of the data set, ms. All of it lies in one two-hour window, as a block
// has it; "late" series begin where "early" ones have ended.
const (
	baseTime   = int64(1_700_006_400_000) // a multiple of two hours
	scrape     = int64(15_000)
	earlyCount = 250
	lateCount  = 130
	lateTime   = baseTime + 300*scrape
)

// Input is the data of the Store under test.
type Input struct {
	External   labels.Labels
	Series     []Series
	Mint, Maxt int64 // of all samples, ms
}

// dataSet returns the series all tests run on. What each is there for:
//
//   - http_requests: several chunks, matchers of all kinds, labels that some lack
//   - clash: a label of the name of an external label, two of which become equal
//   - order: label sets that are prefixes of others, so that an added label changes the order
//   - replicated: a replica label within the series, whose removal changes the order
//   - early, late: time ranges
//   - latency_*: histograms
func dataSet() Input {
	in := Input{
		External: labels.FromStrings("cluster", "eu-1", "monitor", "k8s", "replica", "a"),
		Mint:     baseTime, Maxt: lateTime + (lateCount-1)*scrape,
	}
	add := func(samples []Sample, pairs ...string) {
		in.Series = append(in.Series, Series{Labels: labels.FromStrings(pairs...), Samples: samples})
	}
	for i, code := range []string{"200", "404", "500", ""} {
		for j, job := range []string{"api", "web"} {
			add(floats(baseTime, earlyCount, float64(10*i+j)), "__name__", "http_requests", "code", code, "job", job)
		}
	}
	add(floats(baseTime, 5, 1), "__name__", "clash", "cluster", "own", "job", "x")
	add(floats(baseTime+5*scrape, 5, 2), "__name__", "clash", "cluster", "other", "job", "x")
	add(floats(baseTime, 5, 3), "__name__", "clash", "job", "y")

	add(floats(baseTime, 3, 1), "__name__", "order", "a", "1")
	add(floats(baseTime, 3, 2), "__name__", "order", "a", "1", "b", "1")
	add(floats(baseTime, 3, 3), "__name__", "order", "a", "1", "b", "1", "zone", "1")
	add(floats(baseTime, 3, 4), "__name__", "order", "a", "1", "zone", "1")
	add(floats(baseTime, 3, 5), "__name__", "order", "a", "2")
	add(floats(baseTime, 3, 6), "__name__", "order")

	for i, pair := range [][2]string{{"1", "d"}, {"2", "c"}, {"3", "b"}, {"4", "a"}, {"5", "a"}} {
		add(floats(baseTime+int64(i)*scrape, 4, float64(i)), "__name__", "replicated", "host", pair[0], "path", pair[1])
	}

	add(floats(baseTime, 10, 7), "__name__", "spans", "when", "early")
	add(floats(lateTime, lateCount, 8), "__name__", "spans", "when", "late")

	add(integers(tsdbutil.GenerateTestHistograms(40)), "__name__", "latency_integer")
	add(integers(tsdbutil.GenerateTestCustomBucketsHistograms(40)), "__name__", "latency_custom")
	add(integers(tsdbutil.GenerateTestGaugeHistograms(40)), "__name__", "latency_gauge")
	add(fractions(tsdbutil.GenerateTestFloatHistograms(40)), "__name__", "latency_float")

	for i := range 60 {
		add(floats(baseTime, 2, float64(i)), "__name__", "many", "i", strconv.Itoa(i), "parity", strconv.Itoa(i%2))
	}
	return in
}

func floats(start int64, n int, v float64) (out []Sample) {
	for i := range n {
		out = append(out, Sample{T: start + int64(i)*scrape, V: v + float64(i)/4})
	}
	return out
}

func integers(hs []*histogram.Histogram) (out []Sample) {
	for i, h := range hs {
		if h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
		out = append(out, Sample{T: baseTime + int64(i)*scrape, H: h})
	}
	return out
}

func fractions(hs []*histogram.FloatHistogram) (out []Sample) {
	for i, h := range hs {
		h.CounterResetHint = histogram.UnknownCounterReset
		out = append(out, Sample{T: baseTime + int64(i)*scrape, FH: h})
	}
	return out
}
