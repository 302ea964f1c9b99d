package model

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

func sameBits(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }

// sameHistogram compares what two histograms say: schema, sums, and the buckets
// that have observations. How empty buckets are laid out, and hints about
// counter resets, are a storage's own affair.
func sameHistogram(a, b *histogram.FloatHistogram) bool {
	return a.Schema == b.Schema && sameBits(a.ZeroThreshold, b.ZeroThreshold) && sameBits(a.ZeroCount, b.ZeroCount) &&
		sameBits(a.Count, b.Count) && sameBits(a.Sum, b.Sum) && slices.Equal(a.CustomValues, b.CustomValues) &&
		slices.Equal(filled(a.PositiveSpans, a.PositiveBuckets), filled(b.PositiveSpans, b.PositiveBuckets)) &&
		slices.Equal(filled(a.NegativeSpans, a.NegativeBuckets), filled(b.NegativeSpans, b.NegativeBuckets))
}

type filledBucket struct {
	index int32
	count float64
}

func filled(spans []histogram.Span, counts []float64) (out []filledBucket) {
	index, at := int32(0), 0
	for _, s := range spans {
		index += s.Offset
		for range s.Length {
			if counts[at] != 0 {
				out = append(out, filledBucket{index, counts[at]})
			}
			index, at = index+1, at+1
		}
	}
	return out
}
