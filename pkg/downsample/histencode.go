package downsample

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// appendHists appends a chunk of histograms of one layout and of this kind: the
// bytes that chunkenc's appender writes for gauges, but for the kind. The appender
// writes all samples anew for each bucket that comes late; here the buckets of
// all are known beforehand.
func appendHists(dst []byte, ts []int64, hs []*histogram.FloatHistogram, kind chunkenc.CounterResetHeader) ([]byte, error) {
	e := histEncoder{xorEncoder: xorEncoder{out: binary.BigEndian.AppendUint16(dst, uint16(len(ts)))}}
	e.out = append(e.out, byte(kind))
	if len(hs) == 0 {
		return e.out, nil
	}
	if err := e.begin(ts, hs); err != nil {
		return dst, err
	}
	for i, h := range hs {
		e.add(i, ts, h)
	}
	return e.end(), nil
}

// histEncoder writes the samples of one chunk.
type histEncoder struct {
	xorEncoder
	positive, negative buckets
	count, zeros, sum  column
	delta              int64
}

// column is one number of each histogram, as bits, and the window of its last change.
type column struct {
	last              uint64
	leading, trailing uint8
}

// buckets are those that any of the histograms has, on one side of zero.
type buckets struct {
	begun   bool
	spans   []histogram.Span
	n       int   // how many
	at      []int // their indexes; nil while all histograms have the same spans
	columns []column
	others  []int // indexes of one histogram
}

// begin finds the buckets of all and writes the layout.
func (e *histEncoder) begin(ts []int64, hs []*histogram.FloatHistogram) error {
	first := hs[0]
	if isStale(first) {
		first = &histogram.FloatHistogram{}
	}
	for i, h := range hs {
		if isStale(h) {
			continue // its buckets don't count
		}
		if h.Schema != first.Schema || h.ZeroThreshold != first.ZeroThreshold || i > 0 && isStale(hs[i-1]) ||
			h.UsesCustomBuckets() && !histogram.CustomBucketBoundsMatch(h.CustomValues, first.CustomValues) {
			return fmt.Errorf("histogram at %d ms has another layout", ts[i])
		}
		if !e.positive.widen(h.PositiveSpans, len(h.PositiveBuckets)) || !e.negative.widen(h.NegativeSpans, len(h.NegativeBuckets)) {
			return fmt.Errorf("%w: histogram at %d ms has spans that don't fit its buckets", ErrCorrupt, ts[i])
		}
	}
	e.zeroThreshold(first.ZeroThreshold)
	e.varint(int64(first.Schema))
	e.layout(&e.positive)
	e.layout(&e.negative)
	if first.UsesCustomBuckets() {
		e.varuint(uint64(len(first.CustomValues)))
		for _, bound := range first.CustomValues {
			e.customBound(bound)
		}
	}
	return nil
}

func isStale(h *histogram.FloatHistogram) bool { return value.IsStaleNaN(h.Sum) }

// layout writes where buckets are, and makes room for what is to be known of each.
func (e *histEncoder) layout(b *buckets) {
	e.varuint(uint64(len(b.spans)))
	for _, s := range b.spans {
		e.varuint(uint64(s.Length))
		e.varint(int64(s.Offset))
	}
	b.columns = make([]column, b.n)
}

// widen takes in the buckets of one more histogram. It is false where there
// aren't as many as its spans say, or these are out of order.
func (b *buckets) widen(spans []histogram.Span, n int) bool {
	if b.begun && slices.Equal(b.spans, spans) {
		return n == b.n
	}
	var ok bool
	if b.others, ok = appendIndexes(b.others[:0], spans, n); !ok {
		return false
	}
	if !b.begun {
		b.begun, b.spans, b.n = true, spans, n
		return true
	}
	if b.at == nil {
		b.at, _ = appendIndexes(make([]int, 0, b.n), b.spans, b.n)
	}
	if within(b.others, b.at) {
		return true
	}
	all := slices.Concat(b.at, b.others)
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > n {
		spans = spansOf(all)
	}
	b.at, b.spans, b.n = all, spans, len(all)
	return true
}

// within tells whether all of a are in b; both ascend.
func within(a, b []int) bool {
	for _, i := range b {
		if len(a) > 0 && a[0] == i {
			a = a[1:]
		}
	}
	return len(a) == 0
}

// appendIndexes appends the indexes of the buckets in spans, n at most.
func appendIndexes(dst []int, spans []histogram.Span, n int) ([]int, bool) {
	at := 0
	for i, s := range spans {
		if i > 0 && s.Offset < 0 || int64(s.Length) > int64(n) {
			return dst, false
		}
		at, n = at+int(s.Offset), n-int(s.Length)
		for range s.Length {
			dst = append(dst, at)
			at++
		}
	}
	return dst, n == 0
}

// spansOf is the shortest form of spans for indexes.
func spansOf(at []int) (out []histogram.Span) {
	next := 0
	for _, i := range at {
		if len(out) == 0 || i > next {
			out = append(out, histogram.Span{Offset: int32(i - next)})
		}
		out[len(out)-1].Length++
		next = i + 1
	}
	return out
}

// add writes sample i.
func (e *histEncoder) add(i int, ts []int64, h *histogram.FloatHistogram) {
	if isStale(h) {
		h = &histogram.FloatHistogram{Sum: h.Sum}
	}
	if i == 0 {
		e.varint(ts[0])
	} else {
		delta := ts[i] - ts[i-1]
		e.varint(delta - e.delta)
		e.delta = delta
	}
	first := i == 0
	e.number(&e.count, h.Count, first)
	e.number(&e.zeros, h.ZeroCount, first)
	e.number(&e.sum, h.Sum, first)
	if !isStale(h) {
		e.side(&e.positive, h.PositiveSpans, h.PositiveBuckets, first)
		e.side(&e.negative, h.NegativeSpans, h.NegativeBuckets, first)
	}
}

// side writes the buckets on one side of zero, and zeros for those that h doesn't have.
func (e *histEncoder) side(b *buckets, spans []histogram.Span, counts []float64, first bool) {
	if len(counts) == len(b.columns) {
		for i := range b.columns {
			e.number(&b.columns[i], counts[i], first)
		}
		return
	}
	b.others, _ = appendIndexes(b.others[:0], spans, len(counts))
	at := 0
	for i := range b.columns {
		n := 0.0
		if at < len(counts) && b.others[at] == b.at[i] {
			n = counts[at]
			at++
		}
		e.number(&b.columns[i], n, first)
	}
}

// number writes a number of the first sample as it is, and else what has changed.
func (e *histEncoder) number(c *column, v float64, first bool) {
	b := math.Float64bits(v)
	if first {
		e.bits(b, 64)
		c.last, c.leading = b, noWindow
		return
	}
	e.leading, e.trailing = c.leading, c.trailing
	e.value(b ^ c.last)
	c.last, c.leading, c.trailing = b, e.leading, e.trailing
}

// Fields of variable size: as many ones as tell the size, a zero but behind eight
// ones, and the value.
var fieldSizes = [...]uint{0, 3, 6, 9, 12, 18, 25, 56, 64}

func (e *histEncoder) varint(v int64) {
	class := 0
	if v != 0 {
		for class = 1; class < len(fieldSizes)-1 && !fits(v, fieldSizes[class]); class++ {
		}
	}
	e.field(class, uint64(v))
}

func (e *histEncoder) varuint(v uint64) {
	class := 0
	for uint(bits.Len64(v)) > fieldSizes[class] {
		class++
	}
	e.field(class, v)
}

func (e *histEncoder) field(class int, v uint64) {
	if last := len(fieldSizes) - 1; class == last {
		e.bits(1<<last-1, uint(last))
	} else {
		e.bits(1<<(class+1)-2, uint(class+1))
	}
	if size := fieldSizes[class]; size > 0 {
		e.bits(v<<(64-size)>>(64-size), size)
	}
}

// zeroThreshold writes a usual power of two in a byte.
func (e *histEncoder) zeroThreshold(v float64) {
	fraction, exponent := math.Frexp(v)
	switch {
	case v == 0:
		e.bits(0, 8)
	case fraction != 0.5 || exponent < -242 || exponent > 11:
		e.bits(255, 8)
		e.bits(math.Float64bits(v), 64)
	default:
		e.bits(uint64(exponent+243), 8)
	}
}

// customBound writes a multiple of a thousandth that isn't large as an integer,
// and all else as it is behind a zero.
func (e *histEncoder) customBound(v float64) {
	const largest = 33554430
	thousandths := math.Round(v * 1000)
	if v*1000 < 0 || v*1000 > largest || thousandths/1000 != v {
		e.bits(0, 1)
		e.bits(math.Float64bits(v), 64)
		return
	}
	e.varuint(uint64(thousandths) + 1)
}
