package blocktest

import (
	"github.com/prometheus/prometheus/model/histogram"
)

// Histogram returns a native histogram of 8 + 2n observations in exponential
// buckets, which grows with n as a counter does.
func Histogram(n int64) *histogram.Histogram {
	return &histogram.Histogram{
		Schema: 1, ZeroThreshold: 0.001, ZeroCount: 1, Count: uint64(8 + 2*n), Sum: float64(10 + n),
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}},
		// Deltas of 2, 3 and 2 + 2n observations.
		PositiveBuckets: []int64{2, 1, 2*n - 1},
	}
}

// FloatHistogram is Histogram with float counts.
func FloatHistogram(n int64) *histogram.FloatHistogram { return Histogram(n).ToFloat(nil) }

// CustomBuckets returns a histogram with the custom bounds 0.1, 1 and 10 (schema
// -53, what a classic histogram converts to) of 6 + n observations.
func CustomBuckets(n int64) *histogram.Histogram {
	return &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, Count: uint64(6 + n), Sum: float64(20 + 2*n),
		CustomValues:  []float64{0.1, 1, 10},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 4}},
		// Deltas of 1, 2, 2 and 1 + n observations.
		PositiveBuckets: []int64{1, 1, 0, n - 1},
	}
}
