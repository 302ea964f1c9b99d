package wire

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/value"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// at notes the time of a data point for target_info.
func (w *otlpWalk) at(ns uint64) { w.earliest, w.latest = min(w.earliest, ns), max(w.latest, ns) }

// milliseconds is how Prometheus' library converts times.
func milliseconds(ns uint64) int64 { return int64(ns) / 1_000_000 }

// number reads a NumberDataPoint {2 start, 3 time, 4 double, 5 exemplars, 6 int, 7 attributes, 8 flags}.
func (w *otlpWalk) number(key batch.Key) {
	outer := w.enter()
	point := span{uint32(w.i), uint32(w.end)}
	names := startRun(w.scanner, 7)
	var v float64
	var start, at, flags uint64
	exemplars := false
	for w.more() {
		from := w.i
		num, wire := w.tag()
		switch {
		case num == 7 && w.is(wire, wireBytes):
			w.place()
			names.add(from, w.i)
			names.pass(w.scanner)
		case num == 3 && w.is(wire, wireFixed64):
			at = w.fixed64()
		case num == 2 && w.is(wire, wireFixed64):
			start = w.fixed64()
		case num == 4 && w.is(wire, wireFixed64):
			v = w.double()
		case num == 6 && w.is(wire, wireFixed64):
			v = float64(int64(w.fixed64()))
		case num == 8 && w.is(wire, wireVarint):
			flags = w.varint()
		case num == 5 && w.is(wire, wireBytes):
			w.place()
			exemplars = true
		case w.err == nil:
			w.skip(wire)
		}
	}
	w.at(at)
	if flags&noRecordedValue != 0 {
		v = math.Float64frombits(value.StaleNaN)
	}
	key = w.pointKey(key, &names)
	w.leave(outer)
	if w.err != nil {
		return
	}
	sr := newSeries(w.into)
	sr.Key = key
	w.into.Floats = append(w.into.Floats, batch.Float{ST: milliseconds(start), T: milliseconds(at), V: v})
	if exemplars {
		for _, list := range w.exemplarsOf(point) {
			w.into.Exemplars = append(w.into.Exemplars, list...)
		}
	}
	finish(&sr, w.into)
	w.otlp.origins = append(w.otlp.origins, origin{metric: int32(len(w.otlp.metrics) - 1), point: point})
}

// pointKey identifies a data point: its metric and its attributes.
func (w *otlpWalk) pointKey(metric batch.Key, names *fieldRun) batch.Key {
	w.hashed = names.gather(w.scanner, appendKey(w.hashed[:0], metric))
	return w.d.key(w.hashed)
}

// exemplarsOf lets the library read the exemplars of a data point: a list for each series of it.
func (w *otlpWalk) exemplarsOf(point span) (lists [][]exemplar.Exemplar) {
	got, err := w.alone(&w.otlp.metrics[len(w.otlp.metrics)-1], oneField(w.b[point.from:point.to]))
	if err != nil {
		return nil // a sample of a known series goes without; else labelsOTLP says what is bad
	}
	for _, a := range got {
		w.take(w.scanner, len(a.exemplars))
		lists = append(lists, a.exemplars)
	}
	return lists
}

// histogramPoint reads a HistogramDataPoint {2 start, 3 time, 4 count, 5 sum,
// 6 buckets, 7 bounds, 8 exemplars, 9 attributes, 10 flags} as the classic series of
// its sum, its count and its buckets, in the library's order.
func (w *otlpWalk) histogramPoint(key batch.Key) {
	outer := w.enter()
	h := histogramSeries{otlpWalk: w, point: span{uint32(w.i), uint32(w.end)}}
	names := startRun(w.scanner, 9)
	var start, at, count, flags uint64
	var sum float64
	var buckets, bounds []byte
	hasSum, exemplars := false, false
	for w.more() {
		from := w.i
		num, wire := w.tag()
		switch {
		case num == 9 && w.is(wire, wireBytes):
			w.place()
			names.add(from, w.i)
			names.pass(w.scanner)
		case num == 2 && w.is(wire, wireFixed64):
			start = w.fixed64()
		case num == 3 && w.is(wire, wireFixed64):
			at = w.fixed64()
		case num == 4 && w.is(wire, wireFixed64):
			count = w.fixed64()
		case num == 5 && w.is(wire, wireFixed64):
			sum, hasSum = w.double(), true
		case num == 6:
			buckets = w.packed(wire, buckets)
		case num == 7:
			bounds = w.packed(wire, bounds)
		case num == 8 && w.is(wire, wireBytes):
			w.place()
			exemplars = true
		case num == 10 && w.is(wire, wireVarint):
			flags = w.varint()
		case w.err == nil:
			w.skip(wire)
		}
	}
	w.at(at)
	h.key = w.pointKey(key, &names)
	w.leave(outer)
	if w.err != nil {
		return
	}
	h.float = batch.Float{ST: milliseconds(start), T: milliseconds(at)}
	h.ended = flags&noRecordedValue != 0
	if exemplars {
		h.exemplars = w.exemplarsOf(h.point)
	}
	if hasSum {
		h.add('s', 0, sum)
	}
	h.add('c', 0, float64(count))
	cumulative := uint64(0)
	for ; len(buckets) >= 8 && len(bounds) >= 8; buckets, bounds = buckets[8:], bounds[8:] {
		cumulative += binary.LittleEndian.Uint64(buckets)
		bound := binary.LittleEndian.Uint64(bounds)
		if !math.IsInf(math.Float64frombits(bound), 1) { // its series is the last one
			h.add('b', bound, float64(cumulative))
		}
	}
	h.add('i', 0, float64(count))
}

// packed reads numbers of 8 bytes. Those that stand in more than one piece are for the library.
func (w *otlpWalk) packed(wire int, before []byte) []byte {
	if wire == wireFixed64 || before != nil {
		w.forLibrary()
		return nil
	}
	if !w.is(wire, wireBytes) {
		return nil
	}
	b := w.bytes()
	if len(b)%8 != 0 {
		w.bad("%d bytes of numbers of 8", len(b))
	}
	return b
}

// histogramSeries adds the series of one data point of a histogram.
type histogramSeries struct {
	*otlpWalk
	key       batch.Key
	point     span
	float     batch.Float
	ended     bool
	nth       uint32
	exemplars [][]exemplar.Exemplar // of each series, in their order
}

func (h *histogramSeries) add(part byte, bound uint64, v float64) {
	h.take(h.scanner, 1)
	sr := newSeries(h.into)
	h.hashed = binary.LittleEndian.AppendUint64(append(appendKey(h.hashed[:0], h.key), part), bound)
	sr.Key = h.d.key(h.hashed)
	f := h.float
	f.V = v
	if h.ended {
		f.V = math.Float64frombits(value.StaleNaN)
	}
	h.into.Floats = append(h.into.Floats, f)
	if int(h.nth) < len(h.exemplars) {
		h.into.Exemplars = append(h.into.Exemplars, h.exemplars[h.nth]...)
	}
	finish(&sr, h.into)
	h.otlp.origins = append(h.otlp.origins, origin{metric: int32(len(h.otlp.metrics) - 1), point: h.point, nth: h.nth})
	h.nth++
}
