package replicate

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// Columns that a frame has beside those that all have.
const (
	hasFloatCounts = 1 << iota // else each series has one float
	hasHistograms
	hasExemplars
	hasStartTimes // of floats
	allFlags      = 1<<iota - 1
)

// frameWriter makes the payload of a frame. It is used for one frame at a time, and keeps its memory.
type frameWriter struct {
	out     []byte
	tail    []byte // what comes behind the symbols
	symbols []byte
	known   map[string]uint64 // symbol → number
	defined int               // series of the last frame that went with their labels
}

// write makes the frame of a Write. define tells which series go with their
// labels, announce which families go. The result is overwritten by the next call.
func (f *frameWriter) write(w *batch.Write, define func(id uint64) bool, announce func(i int) bool) ([]byte, error) {
	f.out, f.tail, f.symbols = f.out[:0], f.tail[:0], f.symbols[:0]
	if f.known == nil {
		f.known = map[string]uint64{}
	}
	clear(f.known)
	f.out = append(f.out, w.Session[:]...)
	f.out = appendString(f.out, string(w.Tenant))
	f.out = binary.AppendUvarint(f.out, uint64(len(w.Only)))
	flags := flagsOf(w)
	f.out = append(f.out, flags)
	f.columns(w, flags)
	if flags&hasHistograms != 0 {
		f.histograms(w)
	}
	if err := f.definitions(w, define); err != nil {
		return nil, err
	}
	if flags&hasExemplars != 0 {
		f.exemplars(w)
	}
	f.families(w, announce)
	f.out = binary.AppendUvarint(f.out, uint64(len(f.known)))
	f.out = append(f.out, f.symbols...)
	f.out = append(f.out, f.tail...)
	return f.out, nil
}

func flagsOf(w *batch.Write) (flags byte) {
	for _, n := range w.Only {
		s := &w.Batch.Series[n]
		if s.Floats.Len() != 1 {
			flags |= hasFloatCounts
		}
		if s.Histograms.Len() > 0 {
			flags |= hasHistograms
		}
		if s.Exemplars.Len() > 0 {
			flags |= hasExemplars
		}
		for i := s.Floats.From; i < s.Floats.To; i++ {
			if w.Batch.Floats[i].ST != 0 {
				flags |= hasStartTimes
			}
		}
	}
	return flags
}

// columns writes numbers of series, counts, times and values.
func (f *frameWriter) columns(w *batch.Write, flags byte) {
	b := slices.Grow(f.out, 16*len(w.Only))
	last := uint64(0)
	for _, n := range w.Only {
		id := w.Batch.Series[n].ID
		b = appendVarint(b, int64(id-last))
		last = id
	}
	for _, c := range []struct {
		flag byte
		span func(*batch.Series) batch.Span
	}{
		{hasFloatCounts, func(s *batch.Series) batch.Span { return s.Floats }},
		{hasHistograms, func(s *batch.Series) batch.Span { return s.Histograms }},
		{hasExemplars, func(s *batch.Series) batch.Span { return s.Exemplars }},
	} {
		if flags&c.flag != 0 {
			for _, n := range w.Only {
				b = binary.AppendUvarint(b, uint64(c.span(&w.Batch.Series[n]).Len()))
			}
		}
	}
	lastT := int64(0)
	for _, n := range w.Only {
		s := &w.Batch.Series[n]
		for i := s.Floats.From; i < s.Floats.To; i++ {
			t := w.Batch.Floats[i].T
			b = appendVarint(b, t-lastT)
			lastT = t
		}
	}
	for _, n := range w.Only {
		s := &w.Batch.Series[n]
		for i := s.Floats.From; i < s.Floats.To; i++ {
			x := &w.Batch.Floats[i]
			if flags&hasStartTimes != 0 {
				b = appendStart(b, x.ST, x.T)
			}
			b = appendFloat(b, x.V)
		}
	}
	f.out = b
}

// appendVarint writes a number as encoding/binary does; most are small.
func appendVarint(b []byte, v int64) []byte {
	if u := uint64(v)<<1 ^ uint64(v>>63); u < 0x80 {
		return append(b, byte(u))
	}
	return binary.AppendVarint(b, v)
}

// appendStart writes a start timestamp: 0 for none, else how long before the sample it is, zigzag, plus 1.
func appendStart(b []byte, st, t int64) []byte {
	if st == 0 {
		return append(b, 0)
	}
	d := t - st
	return binary.AppendUvarint(b, uint64(d<<1^d>>63)+1)
}

func appendFloat(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (f *frameWriter) histograms(w *batch.Write) {
	last := int64(0)
	for _, n := range w.Only {
		s := &w.Batch.Series[n]
		for i := s.Histograms.From; i < s.Histograms.To; i++ {
			h := &w.Batch.Histograms[i]
			f.out = binary.AppendVarint(f.out, h.T-last)
			last = h.T
			f.out = appendStart(f.out, h.ST, h.T)
			if h.H != nil {
				f.out = appendHistogram(f.out, h.H)
			} else {
				f.out = appendFloatHistogram(f.out, h.FH)
			}
		}
	}
}

// Kinds of histograms.
const (
	integerHistogram = 0
	floatHistogram   = 1
)

func appendHistogram(b []byte, h *histogram.Histogram) []byte {
	b = append(b, integerHistogram, byte(h.CounterResetHint))
	b = binary.AppendVarint(b, int64(h.Schema))
	b = appendFloat(b, h.ZeroThreshold)
	b = binary.AppendUvarint(b, h.ZeroCount)
	b = binary.AppendUvarint(b, h.Count)
	b = appendFloat(b, h.Sum)
	for _, side := range []struct {
		spans   []histogram.Span
		buckets []int64
	}{{h.PositiveSpans, h.PositiveBuckets}, {h.NegativeSpans, h.NegativeBuckets}} {
		b = appendSpans(b, side.spans)
		b = binary.AppendUvarint(b, uint64(len(side.buckets)))
		for _, d := range side.buckets {
			b = binary.AppendVarint(b, d)
		}
	}
	return appendFloats(b, h.CustomValues)
}

func appendFloatHistogram(b []byte, h *histogram.FloatHistogram) []byte {
	b = append(b, floatHistogram, byte(h.CounterResetHint))
	b = binary.AppendVarint(b, int64(h.Schema))
	b = appendFloat(b, h.ZeroThreshold)
	b = appendFloat(b, h.ZeroCount)
	b = appendFloat(b, h.Count)
	b = appendFloat(b, h.Sum)
	b = appendFloats(appendSpans(b, h.PositiveSpans), h.PositiveBuckets)
	b = appendFloats(appendSpans(b, h.NegativeSpans), h.NegativeBuckets)
	return appendFloats(b, h.CustomValues)
}

func appendSpans(b []byte, spans []histogram.Span) []byte {
	b = binary.AppendUvarint(b, uint64(len(spans)))
	for _, s := range spans {
		b = binary.AppendVarint(b, int64(s.Offset))
		b = binary.AppendUvarint(b, uint64(s.Length))
	}
	return b
}

func appendFloats(b []byte, values []float64) []byte {
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = appendFloat(b, v)
	}
	return b
}

// definitions writes hash and labels of the series to define, which are counted first.
func (f *frameWriter) definitions(w *batch.Write, define func(id uint64) bool) error {
	count, last := uint64(0), -1
	start := len(f.tail)
	for i, n := range w.Only {
		s := &w.Batch.Series[n]
		if !define(s.ID) {
			continue
		}
		ls, err := w.Batch.Labels(int(n))
		if err != nil {
			return err
		}
		count++
		f.tail = binary.AppendUvarint(f.tail, uint64(i-last))
		last = i
		f.tail = binary.LittleEndian.AppendUint64(f.tail, s.Hash)
		f.labels(ls)
	}
	f.tail = insertUvarint(f.tail, start, count)
	f.defined = int(count)
	return nil
}

// insertUvarint puts a number before what stands from start on.
func insertUvarint(b []byte, start int, n uint64) []byte {
	var head [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(head[:], n)
	b = append(b, head[:size]...)
	copy(b[start+size:], b[start:len(b)-size])
	copy(b[start:], head[:size])
	return b
}

func (f *frameWriter) labels(ls labels.Labels) {
	f.tail = binary.AppendUvarint(f.tail, uint64(ls.Len()))
	ls.Range(func(l labels.Label) {
		f.tail = binary.AppendUvarint(f.tail, f.symbol(l.Name))
		f.tail = binary.AppendUvarint(f.tail, f.symbol(l.Value))
	})
}

// symbol returns the number of a string.
func (f *frameWriter) symbol(s string) uint64 {
	n, ok := f.known[s]
	if !ok {
		n = uint64(len(f.known))
		f.known[s] = n
		f.symbols = appendString(f.symbols, s)
	}
	return n
}

func (f *frameWriter) exemplars(w *batch.Write) {
	last := int64(0)
	for _, n := range w.Only {
		s := &w.Batch.Series[n]
		for i := s.Exemplars.From; i < s.Exemplars.To; i++ {
			f.exemplar(&w.Batch.Exemplars[i], &last)
		}
	}
}

func (f *frameWriter) exemplar(e *exemplar.Exemplar, last *int64) {
	f.tail = binary.AppendVarint(f.tail, e.Ts-*last)
	*last = e.Ts
	has := byte(0)
	if e.HasTs {
		has = 1
	}
	f.tail = append(f.tail, has)
	f.tail = appendFloat(f.tail, e.Value)
	f.labels(e.Labels)
}

func (f *frameWriter) families(w *batch.Write, announce func(i int) bool) {
	start, count := len(f.tail), uint64(0)
	for i := range w.Batch.Families {
		if !announce(i) {
			continue
		}
		count++
		m := &w.Batch.Families[i]
		for _, s := range []string{m.Name, string(m.Type), m.Unit, m.Help} {
			f.tail = appendString(f.tail, s)
		}
	}
	f.tail = insertUvarint(f.tail, start, count)
}
