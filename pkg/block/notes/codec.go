package notes

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// The content of a note, in a block.Frame. A string is its length and its bytes;
// labels are a count and so many pairs of strings, sorted by name.
//
//	┌──────────────────────────────────────────────────────────────────────────┐
//	│ minTime <varint> │ maxTime − minTime <uvarint>                           │
//	│ families <uvarint> × ( name, type, help, unit <strings> )        sorted  │
//	│ series <uvarint> × ( labels │ exemplars <uvarint, 1 or more> ×           │
//	│     ( ms − those before, minTime at first <varint>                       │
//	│       value <8b, big endian> │ labels ) )              sorted, each once │
//	└──────────────────────────────────────────────────────────────────────────┘
const magic = 0xF19A407E

// maxContentBytes bounds a note before compression. Decoded it takes at most
// some 30 times that: an exemplar of 10 bytes takes 56 and its labels 24.
const maxContentBytes = 32 << 20

func frame() block.Frame { return block.Frame{Magic: magic, MaxContentBytes: maxContentBytes} }

// Encode returns the bytes of a note, which it sorts. One that is too large is
// an error.
func (n *Note) Encode() ([]byte, error) {
	n.normalize()
	b := binary.AppendVarint(nil, n.MinTime)
	b = binary.AppendUvarint(b, uint64(n.MaxTime-n.MinTime))
	b = binary.AppendUvarint(b, uint64(len(n.Families)))
	for _, f := range n.Families {
		for _, s := range []string{f.Name, f.Type, f.Help, f.Unit} {
			b = appendString(b, s)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(n.Series)))
	for _, s := range n.Series {
		b = appendSeries(b, s, n.MinTime)
	}
	return frame().Seal(b)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendLabels(b []byte, lset labels.Labels) []byte {
	b = binary.AppendUvarint(b, uint64(lset.Len()))
	lset.Range(func(l labels.Label) { b = appendString(appendString(b, l.Name), l.Value) })
	return b
}

// appendSeries writes a series with times relative to from. Records of a Log have the same layout.
func appendSeries(b []byte, s Series, from int64) []byte {
	b = appendLabels(b, s.Labels)
	b = binary.AppendUvarint(b, uint64(len(s.Exemplars)))
	for _, e := range s.Exemplars {
		b = binary.AppendVarint(b, e.Ts-from)
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(e.Value))
		b = appendLabels(b, e.Labels)
		from = e.Ts
	}
	return b
}

// Decode reads what Encode has written. The error wraps block.ErrCorrupt or
// block.ErrUnknownVersion. The result is bounded by the input's length and
// maxContentBytes.
func Decode(data []byte) (*Note, error) {
	content, err := frame().Unseal(data)
	if err != nil {
		return nil, err
	}
	return decodeContent(content)
}

func decodeContent(content []byte) (*Note, error) {
	r := &reader{data: string(content)}
	n := &Note{MinTime: r.int()}
	n.MaxTime = n.MinTime + int64(r.uint())
	if n.MaxTime < n.MinTime {
		r.fail("times out of range")
	}
	for range r.count(minFamily) {
		f := Family{Name: r.string(), Type: r.string(), Help: r.string(), Unit: r.string()}
		if last := len(n.Families) - 1; last >= 0 && compareFamilies(n.Families[last], f) >= 0 {
			r.fail("families are not in order")
		}
		if r.err != nil {
			break
		}
		n.Families = append(n.Families, f)
	}
	for range r.count(minSeries) {
		s := r.series(n.MinTime)
		if last := len(n.Series) - 1; last >= 0 && labels.Compare(n.Series[last].Labels, s.Labels) >= 0 {
			r.fail("series are not in order")
		}
		if r.err != nil {
			break
		}
		n.Series = append(n.Series, s)
	}
	if r.err == nil && r.off < len(r.data) {
		r.fail("%d bytes too many", len(r.data)-r.off)
	}
	if r.err != nil {
		return nil, r.err
	}
	return n, nil
}

// Least lengths of what is counted, so that a count is bounded by the bytes left.
const (
	minFamily   = 4
	minSeries   = 2
	minExemplar = 10
	minLabel    = 2
)

// reader reads content. After the first error, which is kept, every reading
// gives zeros. Strings that it returns share the memory of the whole.
type reader struct {
	data    string
	off     int
	err     error
	scratch labels.ScratchBuilder
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: offset %d of the content: %s", block.ErrCorrupt, r.off, fmt.Sprintf(format, args...))
	}
}

func (r *reader) uint() uint64 {
	var v uint64
	for i := 0; i < binary.MaxVarintLen64 && r.err == nil; i++ {
		if r.off+i >= len(r.data) {
			break
		}
		c := r.data[r.off+i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 && (i < binary.MaxVarintLen64-1 || c <= 1) {
			r.off += i + 1
			return v
		}
	}
	r.fail("bad number")
	return 0
}

func (r *reader) int() int64 {
	v := r.uint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads how many things follow, each of at least so many bytes.
func (r *reader) count(least int) int {
	n := r.uint()
	if n > uint64(len(r.data)-r.off)/uint64(least) {
		r.fail("%d entries in %d bytes", n, len(r.data)-r.off)
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	n := r.count(1)
	s := r.data[r.off : r.off+n]
	r.off += n
	return s
}

func (r *reader) float() float64 {
	if r.err != nil || len(r.data)-r.off < 8 {
		r.fail("a value is missing")
		return 0
	}
	var bits uint64
	for _, c := range []byte(r.data[r.off : r.off+8]) {
		bits = bits<<8 | uint64(c)
	}
	r.off += 8
	return math.Float64frombits(bits)
}

// labels reads labels, which must be sorted by name, each once, without empty
// values: otherwise other code would not find its way in them.
func (r *reader) labels() labels.Labels {
	r.scratch.Reset()
	last := ""
	for i := range r.count(minLabel) {
		name, value := r.string(), r.string()
		if i > 0 && name <= last {
			r.fail("labels are not in order")
		}
		if name == "" || value == "" {
			r.fail("a label is empty")
		}
		if r.err != nil {
			return labels.EmptyLabels()
		}
		r.scratch.Add(name, value)
		last = name
	}
	return r.scratch.Labels()
}

// series reads what appendSeries has written.
func (r *reader) series(from int64) Series {
	s := Series{Labels: r.labels()}
	n := r.count(minExemplar)
	if n == 0 {
		r.fail("a series without exemplars")
		return Series{}
	}
	s.Exemplars = make([]exemplar.Exemplar, n)
	for i := range s.Exemplars {
		e := exemplar.Exemplar{Ts: from + r.int(), HasTs: true, Value: r.float(), Labels: r.labels()}
		if i > 0 && compareExemplars(s.Exemplars[i-1], e) >= 0 {
			r.fail("exemplars are not in order")
		}
		if r.err != nil {
			return Series{}
		}
		s.Exemplars[i], from = e, e.Ts
	}
	return s
}
