package wire

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// remoteWrite1 decodes a prometheus.WriteRequest:
//
//	1 TimeSeries {1 Label {1 name, 2 value}, 2 Sample {1 value, 2 time},
//	              3 Exemplar {1 Label, 2 value, 3 time}, 4 Histogram}
//	3 MetricMetadata {1 type, 2 family, 4 help, 5 unit}
//
// The content of labels is not looked at: a mistake in there is found by labels1.
func (r *request) remoteWrite1(into *batch.Batch) error {
	into.Labels = r.labels1
	s := r.scanner("remote write 1")
	for s.more() {
		num, wire := s.tag()
		switch num {
		case 1:
			if s.is(wire, wireBytes) {
				r.series1(&s, into)
			}
		case 3:
			if s.is(wire, wireBytes) {
				r.metadata1(&s, into)
			}
		default:
			s.skip(wire)
		}
	}
	return s.err
}

// series1 decodes a TimeSeries. Senders put its labels side by side, so that
// one range of the body names the series; other ways are legal too.
func (r *request) series1(s *scanner, into *batch.Batch) {
	r.take(s, 1)
	outer := s.enter()
	names := startRun(s, 1)
	sr := newSeries(into)
	for s.more() {
		at := s.i
		num, wire := s.tag()
		if num > 4 {
			s.skip(wire)
			continue
		}
		if !s.is(wire, wireBytes) {
			break
		}
		switch num {
		case 1:
			s.pass(s.length())
			names.add(at, s.i)
		case 2:
			r.take(s, 1)
			into.Floats = append(into.Floats, sample(s, false))
		case 3:
			r.exemplar1(s, into)
		case 4:
			r.histogram(s, into)
		}
	}
	r.named(s, &names, &sr)
	s.leave(outer)
	finish(&sr, into)
}

// newSeries is a series whose columns begin where the Batch's end.
func newSeries(b *batch.Batch) batch.Series {
	return batch.Series{
		Floats:     batch.Span{From: uint32(len(b.Floats))},
		Histograms: batch.Span{From: uint32(len(b.Histograms))},
		Exemplars:  batch.Span{From: uint32(len(b.Exemplars))},
	}
}

// finish ends a series' columns and adds it.
func finish(sr *batch.Series, b *batch.Batch) {
	sr.Floats.To, sr.Histograms.To, sr.Exemplars.To = uint32(len(b.Floats)), uint32(len(b.Histograms)), uint32(len(b.Exemplars))
	b.Series = append(b.Series, *sr)
}

// fieldRun follows where the fields of one number stand within a message.
type fieldRun struct {
	num       byte // below 16: its tag has one byte
	from, to  int  // the first run of them
	message   int  // where the message begins
	scattered bool // they stand in more places than one
}

// startRun is at the beginning of a message.
func startRun(s *scanner, num byte) fieldRun {
	f := fieldRun{num: num, from: s.i, to: s.i, message: s.i}
	f.pass(s)
	return f
}

// pass passes over fields that go on where the run ends.
func (f *fieldRun) pass(s *scanner) {
	if s.i != f.to {
		return
	}
	b, i, tag := s.b[:s.end], s.i, f.num<<3|wireBytes
	for i+1 < len(b) && b[i] == tag && b[i+1] < 0x80 {
		next := i + 2 + int(b[i+1])
		if next > len(b) {
			break // the caller's loop will say so
		}
		i = next
	}
	s.i, f.to = i, i
}

// add notes a field at [at, to).
func (f *fieldRun) add(at, to int) {
	switch {
	case f.from == f.to:
		f.from, f.to = at, to
	case f.to == at:
		f.to = to
	default:
		f.scattered = true
	}
}

// gather appends all fields of the run. s is in their message.
func (f *fieldRun) gather(s *scanner, to []byte) []byte {
	if !f.scattered {
		return append(to, s.b[f.from:f.to]...)
	}
	m := scanner{b: s.b, i: f.message, end: s.end, protocol: s.protocol}
	for m.more() {
		at := m.i
		num, wire := m.tag()
		m.skip(wire)
		if num == int32(f.num) {
			to = append(to, m.b[at:m.i]...)
		}
	}
	return to
}

// place is where the fields are: alone, or among others in their message.
func (f *fieldRun) place(s *scanner) span {
	if f.scattered {
		return span{uint32(f.message), uint32(s.end)}
	}
	return span{uint32(f.from), uint32(f.to)}
}

// named gives a series its Key and remembers where its labels are. s stands in its TimeSeries.
func (r *request) named(s *scanner, f *fieldRun, sr *batch.Series) {
	if s.err != nil {
		return
	}
	r.labels = append(r.labels, f.place(s))
	if !f.scattered {
		sr.Key = r.d.key(s.b[f.from:f.to])
		return
	}
	r.hashed = f.gather(s, r.hashed[:0])
	sr.Key = r.d.key(r.hashed)
}

// labels1 parses the labels of series i: the fields of number 1 in its range.
func (r *request) labels1(i int) (ls labels.Labels, err error) {
	at := r.labels[i]
	s := scanner{b: r.body.b, i: int(at.from), end: int(at.to), protocol: "remote write 1"}
	r.d.builder(func(b *labels.ScratchBuilder) {
		for s.more() {
			num, wire := s.tag()
			if num == 1 {
				label1(&s, b)
			} else {
				s.skip(wire)
			}
		}
		b.Sort()
		ls = b.Labels()
	})
	return ls, s.err
}

// maxLabelBytes is what the labels of the TSDB can hold, of a name or a value.
const maxLabelBytes = 1<<24 - 1

// addLabel adds a label that lies in the body; the builder copies it when it makes the labels.
func addLabel(s *scanner, b *labels.ScratchBuilder, name, value []byte) {
	if len(name) > maxLabelBytes || len(value) > maxLabelBytes {
		s.tooLarge("a label of %d bytes, at most %d can be stored", max(len(name), len(value)), maxLabelBytes)
		return
	}
	b.Add(borrow(name), borrow(value))
}

func label1(s *scanner, b *labels.ScratchBuilder) {
	var pair [2][]byte
	outer := s.enter()
	for s.more() {
		num, wire := s.tag()
		if num > 2 {
			s.skip(wire)
		} else if s.is(wire, wireBytes) {
			pair[num-1] = s.bytes()
		}
	}
	s.leave(outer)
	addLabel(s, b, pair[0], pair[1])
}

// sample reads a Sample, which is the same in both versions but for field 3,
// the start timestamp.
func sample(s *scanner, rw2 bool) batch.Float {
	if f, ok := usualSample(s); ok {
		return f
	}
	var f batch.Float
	outer := s.enter()
	for s.more() {
		num, wire := s.tag()
		switch {
		case num == 1:
			if s.is(wire, wireFixed64) {
				f.V = s.double()
			}
		case num == 2:
			if s.is(wire, wireVarint) {
				f.T = int64(s.varint())
			}
		case num == 3 && rw2:
			if s.is(wire, wireVarint) {
				f.ST = int64(s.varint())
			}
		default:
			s.skip(wire)
		}
	}
	s.leave(outer)
	return f
}

// usualSample reads a Sample of 17 bytes: a value, and a time between 2004 and
// 2109, whose varint has 6 bytes. It halves what a sample costs.
func usualSample(s *scanner) (f batch.Float, ok bool) {
	const length = 0x10
	if s.end-s.i < 1+length || len(s.b)-s.i < 1+length+2 {
		return f, false // the varint's 6 bytes are read as 8
	}
	b := s.b[s.i : s.i+1+length+2]
	if b[0] != length || b[1] != 1<<3|wireFixed64 || b[10] != 2<<3|wireVarint {
		return f, false
	}
	t := binary.LittleEndian.Uint64(b[11:])
	if t&0x8080_8080_8080 != 0x0080_8080_8080 { // five bytes go on, the sixth ends it
		return f, false
	}
	f.V = math.Float64frombits(binary.LittleEndian.Uint64(b[2:]))
	f.T = int64(t&0x7f | t>>1&(0x7f<<7) | t>>2&(0x7f<<14) | t>>3&(0x7f<<21) | t>>4&(0x7f<<28) | t>>5&(0x7f<<35))
	s.i += 1 + length
	return f, true
}

func (r *request) exemplar1(s *scanner, into *batch.Batch) {
	r.take(s, 1)
	var e exemplar.Exemplar
	outer := s.enter()
	r.d.builder(func(b *labels.ScratchBuilder) {
		for s.more() {
			num, wire := s.tag()
			if num == 1 {
				if s.is(wire, wireBytes) {
					label1(s, b)
				}
			} else {
				exemplarField(s, num, wire, &e)
			}
		}
		b.Sort()
		e.Labels = b.Labels()
	})
	s.leave(outer)
	e.HasTs = e.Ts != 0
	into.Exemplars = append(into.Exemplars, e)
}

// exemplarField reads what exemplars of both versions have in common.
func exemplarField(s *scanner, num int32, wire int, e *exemplar.Exemplar) {
	switch num {
	case 2:
		if s.is(wire, wireFixed64) {
			e.Value = s.double()
		}
	case 3:
		if s.is(wire, wireVarint) {
			e.Ts = int64(s.varint())
		}
	default:
		s.skip(wire)
	}
}

// metadata1 reads a MetricMetadata. Its strings are part of the body.
func (r *request) metadata1(s *scanner, into *batch.Batch) {
	r.take(s, 1)
	f := batch.Family{Metadata: metadata.Metadata{Type: model.MetricTypeUnknown}}
	outer := s.enter()
	for s.more() {
		num, wire := s.tag()
		var text *string
		switch num {
		case 1:
			if s.is(wire, wireVarint) {
				f.Type = metricType(uint32(s.varint()))
			}
			continue
		case 2:
			text = &f.Name
		case 4:
			text = &f.Help
		case 5:
			text = &f.Unit
		default:
			s.skip(wire)
			continue
		}
		if s.is(wire, wireBytes) {
			*text = borrow(s.bytes())
		}
	}
	s.leave(outer)
	if f.Name != "" {
		into.Families = append(into.Families, f)
	}
}

// metricType maps the enumeration that both versions share.
func metricType(n uint32) model.MetricType {
	types := [...]model.MetricType{
		model.MetricTypeUnknown, model.MetricTypeCounter, model.MetricTypeGauge, model.MetricTypeHistogram,
		model.MetricTypeGaugeHistogram, model.MetricTypeSummary, model.MetricTypeInfo, model.MetricTypeStateset,
	}
	if n >= uint32(len(types)) {
		return model.MetricTypeUnknown
	}
	return types[n]
}
