package replicate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// frameReader reads the payload of a frame into a Batch. Every count is
// compared with the bytes that are left before memory is taken for it.
// The Batch's Labels needs the reader and the payload.
type frameReader struct {
	b   []byte // what is left
	all int    // bytes of the payload
	err error  // the first; nothing is read after it

	symbols [][]byte
	defined []definition
}

// definition says where the labels of a series are.
type definition struct {
	series int
	labels []byte
}

// read fills w and its Batch, which is empty.
func (r *frameReader) read(payload []byte, w *batch.Write) error {
	r.b, r.all, r.err = payload, len(payload), nil
	r.symbols, r.defined = r.symbols[:0], r.defined[:0]
	copy(w.Session[:], r.bytes(len(w.Session)))
	id, err := tenant.Parse(string(r.string()))
	if r.err == nil && err != nil {
		r.fail("%v", err)
	}
	w.Tenant = id
	n := r.count(1)
	flags := r.byte()
	if flags&^allFlags != 0 {
		r.fail("flags %x are not known", flags)
	}
	r.columns(w, n, flags)
	if flags&hasHistograms != 0 {
		r.histograms(w.Batch)
	}
	r.readSymbols()
	r.definitions(w.Batch)
	if flags&hasExemplars != 0 {
		r.exemplars(w.Batch)
	}
	r.families(w.Batch)
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	w.Batch.Labels = r.labelsOf
	return r.err
}

func (r *frameReader) columns(w *batch.Write, n int, flags byte) {
	b := w.Batch
	b.Series = slices.Grow(b.Series[:0], n)[:n]
	w.Only = slices.Grow(w.Only[:0], n)[:n]
	id := uint64(0)
	for i := range b.Series { // the columns of all series are read without a call for what is small
		if len(r.b) > 0 && r.b[0] < 0x80 {
			id += uint64(int64(r.b[0]>>1) ^ -int64(r.b[0]&1))
			r.b = r.b[1:]
		} else {
			id += uint64(r.varint())
		}
		if id == 0 && r.err == nil {
			r.fail("series %d has number 0", i)
		}
		b.Series[i] = batch.Series{ID: id, Floats: batch.Span{From: uint32(i), To: uint32(i) + 1}}
		w.Only[i] = uint32(i)
	}
	floats := n
	if flags&hasFloatCounts != 0 {
		floats = r.spans(b, 9, func(s *batch.Series, x batch.Span) { s.Floats = x })
	}
	histograms, exemplars := 0, 0
	if flags&hasHistograms != 0 {
		histograms = r.spans(b, 10, func(s *batch.Series, x batch.Span) { s.Histograms = x })
	}
	if flags&hasExemplars != 0 {
		exemplars = r.spans(b, 11, func(s *batch.Series, x batch.Span) { s.Exemplars = x })
	}
	if r.err != nil || !r.fits(floats, 9) {
		return
	}
	b.Floats = slices.Grow(b.Floats[:0], floats)[:floats]
	b.Histograms = slices.Grow(b.Histograms[:0], histograms)[:histograms]
	b.Exemplars = slices.Grow(b.Exemplars[:0], exemplars)[:exemplars]
	r.floats(b.Floats, flags)
}

// spans reads how many elements each series has, each of at least size bytes, and returns their sum.
func (r *frameReader) spans(b *batch.Batch, size int, set func(*batch.Series, batch.Span)) int {
	total := uint64(0)
	for i := range b.Series {
		c := r.uvarint()
		if c > uint64(len(r.b)) {
			r.fail("series %d has %d elements", i, c)
			return 0
		}
		set(&b.Series[i], batch.Span{From: uint32(total), To: uint32(total + c)})
		total += c
		if !r.fits(int(total), size) {
			return 0
		}
	}
	return int(total)
}

// floats reads times, start times and values.
func (r *frameReader) floats(out []batch.Float, flags byte) {
	t := int64(0)
	for i := range out {
		if len(r.b) > 0 && r.b[0] < 0x80 {
			t += int64(r.b[0]>>1) ^ -int64(r.b[0]&1)
			r.b = r.b[1:]
		} else {
			t += r.varint()
		}
		out[i] = batch.Float{T: t}
	}
	if flags&hasStartTimes != 0 {
		for i := range out {
			out[i].ST = r.start(out[i].T)
			out[i].V = r.float()
		}
		return
	}
	values := r.bytes(8 * len(out))
	if values == nil {
		return
	}
	for i := range out {
		out[i].V = math.Float64frombits(binary.LittleEndian.Uint64(values[8*i:]))
	}
}

func (r *frameReader) start(t int64) int64 {
	u := r.uvarint()
	if u == 0 {
		return 0
	}
	u--
	return t - (int64(u>>1) ^ -int64(u&1))
}

func (r *frameReader) histograms(b *batch.Batch) {
	t := int64(0)
	for i := range b.Histograms {
		if r.err != nil {
			return
		}
		t += r.varint()
		h := batch.Histogram{ST: r.start(t), T: t}
		switch kind := r.byte(); kind {
		case integerHistogram:
			h.H = r.histogram()
		case floatHistogram:
			h.FH = r.floatHistogram()
		default:
			r.fail("kind of histogram %d is not known", kind)
		}
		b.Histograms[i] = h
	}
}

func (r *frameReader) histogram() *histogram.Histogram {
	h := &histogram.Histogram{CounterResetHint: histogram.CounterResetHint(r.byte()), Schema: int32(r.varint()), ZeroThreshold: r.float(), ZeroCount: r.uvarint(), Count: r.uvarint(), Sum: r.float()}
	h.PositiveSpans, h.PositiveBuckets = r.histogramSpans(), r.deltas()
	h.NegativeSpans, h.NegativeBuckets = r.histogramSpans(), r.deltas()
	h.CustomValues = r.listOfFloats()
	return h
}

func (r *frameReader) floatHistogram() *histogram.FloatHistogram {
	h := &histogram.FloatHistogram{CounterResetHint: histogram.CounterResetHint(r.byte()), Schema: int32(r.varint()), ZeroThreshold: r.float(), ZeroCount: r.float(), Count: r.float(), Sum: r.float()}
	h.PositiveSpans, h.PositiveBuckets = r.histogramSpans(), r.listOfFloats()
	h.NegativeSpans, h.NegativeBuckets = r.histogramSpans(), r.listOfFloats()
	h.CustomValues = r.listOfFloats()
	return h
}

func (r *frameReader) histogramSpans() []histogram.Span {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	spans := make([]histogram.Span, n)
	for i := range spans {
		spans[i] = histogram.Span{Offset: int32(r.varint()), Length: uint32(r.uvarint())}
	}
	return spans
}

func (r *frameReader) deltas() []int64 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	out := make([]int64, n)
	for i := range out {
		out[i] = r.varint()
	}
	return out
}

func (r *frameReader) listOfFloats() []float64 {
	n := r.count(8)
	if n == 0 {
		return nil
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = r.float()
	}
	return out
}

func (r *frameReader) readSymbols() {
	n := r.count(1)
	r.symbols = slices.Grow(r.symbols, n)
	for range n {
		r.symbols = append(r.symbols, r.string())
	}
}

// definitions notes where the labels of series are, and looks at them, so that
// reading them later can't fail.
func (r *frameReader) definitions(b *batch.Batch) {
	n := r.count(10)
	r.defined = slices.Grow(r.defined, n)
	at := -1
	for range n {
		step := r.uvarint()
		if r.err == nil && (step == 0 || step >= uint64(len(b.Series)-at)) {
			r.fail("definition of a series that is not there")
		}
		hash := r.bytes(8)
		if r.err != nil {
			return
		}
		at += int(step)
		b.Series[at].Hash = binary.LittleEndian.Uint64(hash)
		start := r.b
		r.checkLabels()
		r.defined = append(r.defined, definition{at, start[:len(start)-len(r.b)]})
	}
}

// checkLabels reads labels, whose names must ascend.
func (r *frameReader) checkLabels() {
	var last []byte
	for i := range r.count(2) {
		name, _ := r.symbol(), r.symbol()
		if r.err != nil {
			return
		}
		if i > 0 && bytes.Compare(name, last) <= 0 {
			r.fail("labels are not sorted: %q behind %q", name, last)
		}
		last = name
	}
}

// readLabels makes labels in memory of their own.
func (r *frameReader) readLabels() labels.Labels {
	n := r.count(2)
	b := labels.NewScratchBuilder(n)
	for range n {
		b.Add(string(r.symbol()), string(r.symbol()))
	}
	if r.err != nil {
		return labels.EmptyLabels()
	}
	return b.Labels()
}

// labelsOf is Batch.Labels. It changes nothing, so many may call it at once.
func (r *frameReader) labelsOf(i int) (labels.Labels, error) {
	at, ok := slices.BinarySearchFunc(r.defined, i, func(d definition, i int) int { return cmp.Compare(d.series, i) })
	if !ok {
		return labels.EmptyLabels(), batch.ErrNoLabels
	}
	own := frameReader{b: r.defined[at].labels, symbols: r.symbols}
	return own.readLabels(), own.err
}

func (r *frameReader) exemplars(b *batch.Batch) {
	t := int64(0)
	for i := range b.Exemplars {
		if r.err != nil {
			return
		}
		t += r.varint()
		has := r.byte()
		b.Exemplars[i] = exemplar.Exemplar{Ts: t, HasTs: has != 0, Value: r.float(), Labels: r.readLabels()}
	}
}

func (r *frameReader) families(b *batch.Batch) {
	for range r.count(4) {
		name, kind, unit, help := r.string(), r.string(), r.string(), r.string()
		if r.err != nil {
			return
		}
		b.Families = append(b.Families, batch.Family{Name: string(name), Metadata: metadata.Metadata{Type: model.MetricType(kind), Unit: string(unit), Help: string(help)}})
	}
}

// What a payload is made of. After an error each returns nothing.

func (r *frameReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = corrupt(r.all-len(r.b), format, args...)
		r.b = nil
	}
}

func (r *frameReader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *frameReader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail("it ends too early")
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *frameReader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 { // most are small
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *frameReader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *frameReader) float() float64 {
	if b := r.bytes(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (r *frameReader) string() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("a string of %d bytes", n)
		return nil
	}
	return r.bytes(int(n))
}

func (r *frameReader) symbol() []byte {
	n := r.uvarint()
	if r.err == nil && n >= uint64(len(r.symbols)) {
		r.fail("symbol %d of %d", n, len(r.symbols))
	}
	if r.err != nil {
		return nil
	}
	return r.symbols[n]
}

// count reads how many elements follow, each of at least size bytes.
func (r *frameReader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)) || !r.fits(int(n), size) {
		r.fail("%d elements in %d bytes", n, len(r.b))
		return 0
	}
	return int(n)
}

// fits tells whether there can be n more elements of at least size bytes.
func (r *frameReader) fits(n, size int) bool {
	if n > len(r.b)/size {
		r.fail("%d elements in %d bytes", n, len(r.b))
	}
	return r.err == nil
}
