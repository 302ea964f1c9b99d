package wire

import (
	"encoding/binary"
	"hash/maphash"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// symbol is a string of the request's table.
type symbol struct {
	at     span
	hi, lo uint64 // its hashes
	family metadata2
	given  bool // family was added to the Batch for the metric of this name
}

// metadata2 is a Metadata message: a type and references of symbols.
type metadata2 struct{ kind, help, unit uint32 }

// rw2State is what decoding a request of version 2 needs beside the columns.
type rw2State struct {
	symbols []symbol
	name    uint32 // the symbol "__name__"; 0 if there is none
	hashes  []byte // scratch: a series' symbol hashes with the second seed
}

func (st *rw2State) reset() { st.symbols, st.hashes, st.name = st.symbols[:0], st.hashes[:0], 0 }

func (st *rw2State) large() bool { return cap(st.symbols) > keptSpans || cap(st.hashes) > keptSpans }

// remoteWrite2 decodes an io.prometheus.write.v2.Request:
//
//	4 symbols
//	5 TimeSeries {1 references (packed), 2 Sample {1 value, 2 time, 3 start},
//	              3 Histogram, 4 Exemplar {1 references, 2 value, 3 time},
//	              5 Metadata {1 type, 3 help, 4 unit}}
//
// The symbols may stand behind the series that use them, so they are read first.
func (r *request) remoteWrite2(into *batch.Batch) error {
	into.Labels = r.labels2
	s := r.scanner("remote write 2")
	series := r.readSymbols(&s)
	if s.err == nil && series > 0 {
		r.checkSymbols(&s)
	}
	s.i = 0
	for s.more() {
		num, wire := s.tag()
		if num == 5 {
			r.series2(&s, into)
		} else {
			s.skip(wire)
		}
	}
	return s.err
}

// readSymbols reads the table of symbols, each hashed once, and counts the series.
func (r *request) readSymbols(s *scanner) (series int) {
	st := &r.rw2
	for s.more() {
		at := s.i
		num, wire := s.tag()
		switch num {
		case 1, 2, 3:
			// Reserved, so that a message of version 1 is noticed instead of taken for an empty one.
			s.badAt(at, "field %d is one of version 1; check the content type", num)
		case 4:
			if s.is(wire, wireBytes) {
				r.take(s, 1)
				text := s.bytes()
				st.symbols = append(st.symbols, symbol{
					at: span{uint32(s.i - len(text)), uint32(s.i)},
					hi: maphash.Bytes(r.d.hi, text), lo: maphash.Bytes(r.d.lo, text),
				})
				if string(text) == model.MetricNameLabel {
					st.name = uint32(len(st.symbols) - 1)
				}
			}
		case 5:
			if s.is(wire, wireBytes) {
				r.take(s, 1)
				series++
				s.pass(s.length())
			}
		default:
			s.skip(wire)
		}
	}
	return series
}

func (r *request) checkSymbols(s *scanner) {
	if st := &r.rw2; len(st.symbols) == 0 || st.symbols[0].at.from != st.symbols[0].at.to {
		s.badAt(0, "the first symbol is not the empty string")
	}
}

// series2 decodes a TimeSeries.
func (r *request) series2(s *scanner, into *batch.Batch) {
	outer := s.enter()
	names := startRun(s, 1)
	sr := newSeries(into)
	var meta metadata2
	for s.more() {
		at := s.i
		num, wire := s.tag()
		switch num {
		case 1:
			s.skip(wire) // packed or not: resolve checks
			names.add(at, s.i)
		case 2:
			if s.is(wire, wireBytes) {
				r.take(s, 1)
				into.Floats = append(into.Floats, sample(s, true))
			}
		case 3:
			if s.is(wire, wireBytes) {
				r.histogram(s, into)
			}
		case 4:
			if s.is(wire, wireBytes) {
				r.exemplar2(s, into)
			}
		case 5:
			if s.is(wire, wireBytes) {
				r.metadata2(s, &meta)
			}
		default:
			s.skip(wire)
		}
	}
	at := names.place(s)
	s.leave(outer)
	if s.err != nil {
		return
	}
	metric, ok := r.resolve(s, at, &sr)
	if !ok {
		return
	}
	r.labels = append(r.labels, at)
	finish(&sr, into)
	if meta != (metadata2{}) {
		r.family(metric, meta, into)
	}
}

// resolve makes a series' Key of the hashes of its symbols, in their order. It
// returns the symbol of the metric's name, 0 if there is none.
func (r *request) resolve(s *scanner, at span, sr *batch.Series) (metric uint32, ok bool) {
	m := scanner{b: s.b, i: int(at.from), end: int(at.to), protocol: s.protocol}
	n := pairHashes{st: &r.rw2, hi: r.hashed[:0], lo: r.rw2.hashes[:0]}
	if packed := onlyField(m.b[m.i:m.end]); packed == nil || !n.addSmall(packed) {
		n.hi, n.lo, n.count = n.hi[:0], n.lo[:0], 0
		for ref := range r.references(&m) {
			n.add(ref)
		}
	}
	r.hashed, r.rw2.hashes = n.hi, n.lo
	if n.count&1 != 0 {
		m.badAt(int(at.from), "%d references where names and values make pairs", n.count)
	}
	sr.Key = batch.Key{Hi: maphash.Bytes(r.d.hi, n.hi), Lo: maphash.Bytes(r.d.lo, n.lo)}
	s.err = m.err
	return n.metric, m.err == nil
}

// pairHashes collects the hashes of the symbols that make the labels of a series.
type pairHashes struct {
	st     *rw2State
	hi, lo []byte
	count  int
	isName bool
	metric uint32 // the value of the last name that is __name__
}

func (n *pairHashes) add(ref uint32) {
	y := &n.st.symbols[ref]
	n.hi = binary.LittleEndian.AppendUint64(n.hi, y.hi)
	n.lo = binary.LittleEndian.AppendUint64(n.lo, y.lo)
	if n.count&1 == 0 {
		n.isName = ref == n.st.name && ref != 0
	} else if n.isName {
		n.metric = ref
	}
	n.count++
}

// addSmall adds packed references of at most two bytes each, which is what most are. It
// reports whether all are such, and within the table; else the caller begins anew.
func (n *pairHashes) addSmall(packed []byte) bool {
	for i := 0; i < len(packed); {
		ref := uint32(packed[i])
		i++
		if ref >= 0x80 {
			if i == len(packed) || packed[i] >= 0x80 {
				return false
			}
			ref = ref&0x7f | uint32(packed[i])<<7
			i++
		}
		if int(ref) >= len(n.st.symbols) {
			return false
		}
		n.add(ref)
	}
	return true
}

// onlyField is what is in the only field of b if that is bytes of less than 128. nil: it is not so.
func onlyField(b []byte) []byte {
	if len(b) > 2 && b[1] < 0x80 && len(b) == 2+int(b[1]) {
		return b[2:]
	}
	return nil
}

// references iterates over the references to symbols in the fields of number 1
// of a message; all that it yields are within the table.
func (r *request) references(s *scanner) func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for s.more() {
			num, wire := s.tag()
			switch {
			case num != 1:
				s.skip(wire)
			case wire == wireVarint:
				if ref := r.reference(s); s.err == nil && !yield(ref) {
					return
				}
			case s.is(wire, wireBytes):
				outer := s.enter()
				for s.more() {
					if ref := r.reference(s); s.err == nil && !yield(ref) {
						return
					}
				}
				s.leave(outer)
			}
		}
	}
}

// reference reads one, which is within the table unless there is an error.
func (r *request) reference(s *scanner) uint32 {
	at := s.i
	ref := uint32(s.varint())
	if int(ref) >= len(r.rw2.symbols) {
		s.badAt(at, "a reference to symbol %d of %d", ref, len(r.rw2.symbols))
	}
	return ref
}

// text is a symbol's string, part of the body.
func (r *request) text(ref uint32) []byte {
	at := r.rw2.symbols[ref].at
	return r.body.b[at.from:at.to]
}

// labels2 makes the labels of series i.
func (r *request) labels2(i int) (ls labels.Labels, err error) {
	at := r.labels[i]
	s := scanner{b: r.body.b, i: int(at.from), end: int(at.to), protocol: "remote write 2"}
	r.d.builder(func(b *labels.ScratchBuilder) {
		r.resolveLabels(&s, b)
		ls = b.Labels()
	})
	return ls, s.err
}

func (r *request) resolveLabels(s *scanner, b *labels.ScratchBuilder) {
	var name []byte
	n := 0
	for ref := range r.references(s) {
		if n&1 == 0 {
			name = r.text(ref)
		} else {
			addLabel(s, b, name, r.text(ref))
		}
		n++
	}
	if n&1 != 0 {
		s.bad("%d references where names and values make pairs", n)
	}
	b.Sort()
}

func (r *request) exemplar2(s *scanner, into *batch.Batch) {
	r.take(s, 1)
	var e exemplar.Exemplar
	outer := s.enter()
	refs := *s // walks the same message for its references
	for s.more() {
		num, wire := s.tag()
		if num == 1 {
			s.skip(wire)
		} else {
			exemplarField(s, num, wire, &e)
		}
	}
	if s.err == nil {
		r.d.builder(func(b *labels.ScratchBuilder) {
			r.resolveLabels(&refs, b)
			e.Labels = b.Labels()
		})
		s.err = refs.err
	}
	s.leave(outer)
	e.HasTs = e.Ts != 0
	into.Exemplars = append(into.Exemplars, e)
}

// metadata2 reads a Metadata.
func (r *request) metadata2(s *scanner, m *metadata2) {
	outer := s.enter()
	for s.more() {
		num, wire := s.tag()
		switch num {
		case 1:
			if s.is(wire, wireVarint) {
				m.kind = uint32(s.varint())
			}
		case 3:
			if s.is(wire, wireVarint) {
				m.help = r.reference(s)
			}
		case 4:
			if s.is(wire, wireVarint) {
				m.unit = r.reference(s)
			}
		default:
			s.skip(wire)
		}
	}
	s.leave(outer)
}

// family adds what a series says about its metric, unless another series of
// the same name has just said the same. Its strings are part of the body.
func (r *request) family(metric uint32, meta metadata2, into *batch.Batch) {
	if metric == 0 {
		return
	}
	y := &r.rw2.symbols[metric]
	if y.given && y.family == meta {
		return
	}
	y.given, y.family = true, meta
	kind := metricType(meta.kind)
	into.Families = append(into.Families, batch.Family{
		Name:     familyName(borrow(r.text(metric)), kind),
		Metadata: metadata.Metadata{Type: kind, Help: borrow(r.text(meta.help)), Unit: borrow(r.text(meta.unit))},
	})
}

// familyName is the name that the series of a histogram or a summary share.
func familyName(metric string, kind model.MetricType) string {
	switch kind {
	case model.MetricTypeHistogram, model.MetricTypeGaugeHistogram, model.MetricTypeSummary:
		for _, suffix := range []string{"_bucket", "_sum", "_count", "_gsum", "_gcount"} {
			if short, ok := strings.CutSuffix(metric, suffix); ok && short != "" {
				return short
			}
		}
	}
	return metric
}
