package wire

// otlpWriter writes requests for the library out of parts of a body, from the
// inside out: data points, metrics, the request. Each step has memory of its own,
// which the next request is written into: without that the steps of new series are a quarter of
// all memory that they allocate (BenchmarkNewSeries).
type otlpWriter struct {
	points  []byte // of the metric that is being written: fields of number 1
	metric  []byte
	metrics []byte // those that are written, fields of number 2
	scope   []byte
	inner   []byte
	out     []byte
}

// keptWriter bounds what waits for the next request.
const keptWriter = 256 << 10

func (d *Decoder) otlpWriter() *otlpWriter {
	w, ok := d.writers.Get().(*otlpWriter)
	if !ok {
		w = &otlpWriter{}
	}
	w.reset()
	return w
}

func (d *Decoder) putBack(w *otlpWriter) {
	if cap(w.out) <= keptWriter {
		d.writers.Put(w)
	}
}

func (w *otlpWriter) reset() { w.points, w.metrics = w.points[:0], w.metrics[:0] }

// endMetric writes the metric m of a body with the points that were written.
func (w *otlpWriter) endMetric(body []byte, m *otlpMetric) {
	if m.temporality != 0 {
		w.points = append(w.points, 2<<3|wireVarint, m.temporality)
	}
	if m.monotonic {
		w.points = append(w.points, 3<<3|wireVarint, 1)
	}
	head := field(field(field(w.metric[:0], 1, body[m.name.from:m.name.to]), 2, body[m.help.from:m.help.to]), 3, body[m.unit.from:m.unit.to])
	w.metric = field(head, m.kind, w.points)
	w.metrics, w.points = field(w.metrics, 2, w.metric), w.points[:0]
}

// request is a request of the metrics that were written, under the resource and
// the scope of m. It is good until w is used again.
func (w *otlpWriter) request(body []byte, m *otlpMetric) []byte {
	w.scope = append(field(w.scope[:0], 1, body[m.scope.from:m.scope.to]), w.metrics...)
	w.scope = field(w.scope, 3, body[m.schema.from:m.schema.to])
	w.inner = field(field(w.inner[:0], 1, body[m.resource.from:m.resource.to]), 2, w.scope)
	w.out = field(w.out[:0], 1, w.inner)
	return w.out
}

// oneField is p as a field of number 1.
func oneField(p []byte) []byte { return field(nil, 1, p) }

// field appends a field of bytes.
func field(b []byte, num byte, p []byte) []byte {
	b = append(b, num<<3|wireBytes)
	n := uint64(len(p))
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), p...)
}
