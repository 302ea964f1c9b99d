package wire

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// rawHistogram is a Histogram message, the same in both versions of remote
// write but for field 17. An integer one fills deltas, a float one counts.
type rawHistogram struct {
	count, zero          uint64 // an integer, or the bits of a float
	isFloat, zeroIsFloat bool
	sum, zeroThreshold   float64
	schema               int32
	hint                 histogram.CounterResetHint
	st, t                int64
	positive, negative   []histogram.Span
	posDeltas, negDeltas []int64
	posCounts, negCounts []float64
	custom               []float64
}

// histogram reads a Histogram. What it makes is memory of its own, since heads
// keep the last histogram of a series.
func (r *request) histogram(s *scanner, into *batch.Batch) {
	r.take(s, 1)
	var h rawHistogram
	outer := s.enter()
	for s.more() {
		num, wire := s.tag()
		switch {
		case num < 8:
			h.head(s, num, wire)
		case num < 14 || num == 16:
			h.buckets(s, num, wire)
		case num == 14:
			if s.is(wire, wireVarint) {
				h.hint = histogram.CounterResetHint(s.varint())
			}
		case num == 15:
			if s.is(wire, wireVarint) {
				h.t = int64(s.varint())
			}
		case num == 17:
			if s.is(wire, wireVarint) {
				h.st = int64(s.varint())
			}
		default:
			s.skip(wire)
		}
	}
	s.leave(outer)
	into.Histograms = append(into.Histograms, h.sample())
}

// head reads what stands before the buckets.
func (h *rawHistogram) head(s *scanner, num int32, wire int) {
	want := wireFixed64
	if num == 1 || num == 4 || num == 6 {
		want = wireVarint
	}
	if !s.is(wire, want) {
		return
	}
	switch num {
	case 1:
		h.count, h.isFloat = s.varint(), false
	case 2:
		h.count, h.isFloat = s.fixed64(), true
	case 3:
		h.sum = s.double()
	case 4:
		h.schema = int32(unzigzag(uint64(uint32(s.varint()))))
	case 5:
		h.zeroThreshold = s.double()
	case 6:
		h.zero, h.zeroIsFloat = s.varint(), false
	case 7:
		h.zero, h.zeroIsFloat = s.fixed64(), true
	}
}

func (h *rawHistogram) buckets(s *scanner, num int32, wire int) {
	switch num {
	case 8:
		h.negative = appendSpan(s, wire, h.negative)
	case 9:
		h.negDeltas = appendDeltas(s, wire, h.negDeltas)
	case 10:
		h.negCounts = appendDoubles(s, wire, h.negCounts)
	case 11:
		h.positive = appendSpan(s, wire, h.positive)
	case 12:
		h.posDeltas = appendDeltas(s, wire, h.posDeltas)
	case 13:
		h.posCounts = appendDoubles(s, wire, h.posCounts)
	case 16:
		h.custom = appendDoubles(s, wire, h.custom)
	}
}

func (h *rawHistogram) sample() batch.Histogram {
	if h.isFloat {
		f := &histogram.FloatHistogram{
			CounterResetHint: h.hint, Schema: h.schema, ZeroThreshold: h.zeroThreshold,
			Count: math.Float64frombits(h.count), Sum: h.sum,
			PositiveSpans: h.positive, PositiveBuckets: h.posCounts,
			NegativeSpans: h.negative, NegativeBuckets: h.negCounts,
			CustomValues: h.custom,
		}
		if h.zeroIsFloat {
			f.ZeroCount = math.Float64frombits(h.zero)
		}
		return batch.Histogram{ST: h.st, T: h.t, FH: f}
	}
	i := &histogram.Histogram{
		CounterResetHint: h.hint, Schema: h.schema, ZeroThreshold: h.zeroThreshold,
		Count: h.count, Sum: h.sum,
		PositiveSpans: h.positive, PositiveBuckets: h.posDeltas,
		NegativeSpans: h.negative, NegativeBuckets: h.negDeltas,
		CustomValues: h.custom,
	}
	if !h.zeroIsFloat {
		i.ZeroCount = h.zero
	}
	return batch.Histogram{ST: h.st, T: h.t, H: i}
}

// appendSpan reads a BucketSpan {1 offset, 2 length}.
func appendSpan(s *scanner, wire int, to []histogram.Span) []histogram.Span {
	if !s.is(wire, wireBytes) {
		return to
	}
	var p histogram.Span
	outer := s.enter()
	for s.more() {
		num, wire := s.tag()
		if num > 2 {
			s.skip(wire)
		} else if s.is(wire, wireVarint) {
			if v := uint32(s.varint()); num == 1 {
				p.Offset = int32(unzigzag(uint64(v)))
			} else {
				p.Length = v
			}
		}
	}
	s.leave(outer)
	return append(to, p)
}

// appendDeltas reads numbers, packed or one by one.
func appendDeltas(s *scanner, wire int, to []int64) []int64 {
	if wire == wireVarint {
		return append(to, unzigzag(s.varint()))
	}
	if !s.is(wire, wireBytes) {
		return to
	}
	outer := s.enter()
	if n := varintsIn(s.b[s.i:s.end]); to == nil && n > 0 {
		to = make([]int64, 0, n)
	}
	for s.more() {
		to = append(to, unzigzag(s.varint()))
	}
	s.leave(outer)
	return to
}

// varintsIn counts the varints in b.
func varintsIn(b []byte) int {
	n := 0
	for _, c := range b {
		n += int(^c >> 7)
	}
	return n
}

// appendDoubles reads numbers, packed or one by one.
func appendDoubles(s *scanner, wire int, to []float64) []float64 {
	if wire == wireFixed64 {
		return append(to, s.double())
	}
	if !s.is(wire, wireBytes) {
		return to
	}
	outer := s.enter()
	if n := (s.end - s.i) / 8; to == nil && n > 0 {
		to = make([]float64, 0, n)
	}
	for s.more() {
		to = append(to, s.double())
	}
	s.leave(outer)
	return to
}
