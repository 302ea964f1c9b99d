package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// The fields of a Metric that hold its data.
const (
	gaugeData       = 5
	sumData         = 7
	histogramData   = 9
	exponentialData = 10
	summaryData     = 11
)

// The temporalities of OTLP.
const (
	temporalityDelta      = 1
	temporalityCumulative = 2
)

// noRecordedValue is the flag of a data point that says its series has ended.
const noRecordedValue = 1

// otlpMetric is where a metric stands in the body, and under what.
type otlpMetric struct {
	resource, scope, schema span
	name, help, unit        span
	data                    span // Gauge, Sum, Histogram…
	kind                    byte // the field that data is in
	temporality             byte
	monotonic               bool
}

// origin is where the labels of a series come from.
type origin struct {
	metric int32  // its number in otlpState.metrics; -1: made are the labels
	point  span   // the data point
	nth    uint32 // of what the library makes of this point
	made   labels.Labels
}

const (
	ofLibrary = -1 // the library has made the labels
	ofTarget  = -2 // target_info of a resource
)

// otlpState is what decoding OTLP needs beside the columns.
type otlpState struct {
	tr        *translation
	metrics   []otlpMetric
	origins   []origin
	families  map[batch.Key]error // those that this request has spoken of
	targets   map[targetSample]struct{}
	described bool // the family of target_info is there
	named     atomic.Pointer[namedSeries]
}

func (st *otlpState) reset() {
	clear(st.origins)
	st.begin()
	st.tr = nil
}

// begin makes ready for a walk.
func (st *otlpState) begin() {
	st.metrics, st.origins = st.metrics[:0], st.origins[:0]
	clear(st.families)
	clear(st.targets)
	st.described = false
	st.named.Store(nil)
}

func (st *otlpState) large() bool {
	return cap(st.metrics) > keptSpans || cap(st.origins) > keptSpans || len(st.targets) > keptSpans
}

// errLibrary asks that the library reads the whole request and writes it anew:
// it has delta points to convert, or is legal in a way that the walk doesn't know.
var errLibrary = errors.New("for the library")

// otlpProto decodes an ExportMetricsServiceRequest. Samples of gauges,
// cumulative sums and explicit histograms are read in place; a series of
// theirs is known by the bytes of its resource, scope, metric and attributes, and the library
// names it when somebody asks for its labels. The other kinds go through the library, metric by metric.
func (r *request) otlpProto(into *batch.Batch, from Sender) error {
	r.otlp.tr = r.d.translation(from.options())
	err := r.walkOTLP(into)
	if !errors.Is(err, errLibrary) {
		return err
	}
	req := pmetricotlp.NewExportRequest()
	s := r.scanner("OTLP protobuf")
	room := guardedPerItem * r.d.cfg.MaxItems
	if guard(&s, request0, 0, &room); s.err != nil {
		return s.err
	}
	if err := req.UnmarshalProto(r.body.b); err != nil {
		return refuse.Errorf(refuse.BadRequest, "", "malformed OTLP protobuf: %v", err)
	}
	return r.rewritten(req, into, from)
}

func (r *request) otlpJSON(into *batch.Batch, from Sender) error {
	r.otlp.tr = r.d.translation(from.options())
	s := r.scanner("OTLP JSON")
	if guardJSON(&s, guardedPerItem*r.d.cfg.MaxItems); s.err != nil {
		return s.err
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalJSON(r.body.b); err != nil {
		what, at := jsonFault(r.body.b, err)
		if at < 0 {
			return refuse.Errorf(refuse.BadRequest, "", "malformed OTLP JSON of %d bytes: %s", len(r.body.b), what)
		}
		return refuse.Errorf(refuse.BadRequest, "", "malformed OTLP JSON near byte %d: %s", at, what)
	}
	return r.rewritten(req, into, from)
}

// rewritten decodes what the library has read, in the library's own protobuf.
func (r *request) rewritten(req pmetricotlp.ExportRequest, into *batch.Batch, from Sender) error {
	if from.options().DeltaToCumulative {
		if err := r.d.deltas.convert(from.Tenant, req.Metrics(), into); err != nil {
			return err
		}
	}
	p, err := req.MarshalProto()
	if err != nil {
		return refuse.Errorf(refuse.BadRequest, "", "OTLP request can't be written as protobuf: %v", err)
	}
	body, err := r.d.Wrap(p)
	if err != nil {
		return err
	}
	r.body.Free()
	r.body, r.room = body, r.d.cfg.MaxItems
	err = r.walkOTLP(into)
	if errors.Is(err, errLibrary) {
		return refuse.Errorf(refuse.BadRequest, "", "OTLP request can't be read as the library wrote it")
	}
	return err
}

// otlpWalk is one walk over a request.
type otlpWalk struct {
	*request
	*scanner
	into *batch.Batch

	resourceKey batch.Key
	earliest    uint64 // ns, of the resource's data points
	latest      uint64
}

// targetSample keeps resources of the same labels from writing target_info twice.
type targetSample struct {
	hash uint64
	t    int64
}

func (r *request) walkOTLP(into *batch.Batch) error {
	into.Series, into.Floats, into.Histograms = into.Series[:0], into.Floats[:0], into.Histograms[:0]
	into.Exemplars, into.Families = into.Exemplars[:0], into.Families[:0]
	r.otlp.begin()
	into.Labels = r.labelsOTLP
	s := r.scanner("OTLP protobuf")
	w := otlpWalk{request: r, scanner: &s, into: into}
	for s.more() {
		num, wire := s.tag()
		if num != 1 {
			s.skip(wire)
		} else if s.is(wire, wireBytes) {
			w.resourceMetrics()
		}
	}
	return s.err
}

// only reads the place of a message that must not be there twice.
func (w *otlpWalk) only(wire int, at *span) {
	if !w.is(wire, wireBytes) {
		return
	}
	if at.to != 0 {
		w.forLibrary()
	}
	*at = w.place()
}

// place reads the place of a field of bytes.
func (w *otlpWalk) place() span {
	n := w.length()
	w.i += n
	return span{uint32(w.i - n), uint32(w.i)}
}

func (w *otlpWalk) forLibrary() {
	if w.err == nil {
		w.err = errLibrary
	}
}

// next goes to the next field of number num.
func (w *otlpWalk) next(num int32) bool {
	for w.more() {
		n, wire := w.tag()
		if n == num {
			return true
		}
		w.skip(wire)
	}
	return false
}

// resourceMetrics {1 resource, 2 scope metrics, 3 schema, 1000 deprecated}
func (w *otlpWalk) resourceMetrics() {
	w.take(w.scanner, 1)
	outer, begin := w.enter(), w.i
	var m otlpMetric
	for w.more() {
		switch num, wire := w.tag(); num {
		case 1:
			w.only(wire, &m.resource)
		case 2:
			if w.is(wire, wireBytes) {
				w.place()
			}
		case 1000:
			w.forLibrary()
		default:
			w.skip(wire)
		}
	}
	w.hashed = append(append(w.hashed[:0], w.otlp.tr.mark[:]...), w.b[m.resource.from:m.resource.to]...)
	w.resourceKey = w.d.key(w.hashed)
	w.earliest, w.latest = math.MaxUint64, 0
	for w.i = begin; w.next(2); {
		w.scopeMetrics(m)
	}
	w.leave(outer)
	if w.err == nil && w.earliest < math.MaxUint64 && w.otlp.tr.opts.TargetInfo {
		w.targetInfo(m.resource)
	}
}

// scopeMetrics {1 scope, 2 metrics, 3 schema}
func (w *otlpWalk) scopeMetrics(m otlpMetric) {
	w.take(w.scanner, 1)
	outer, begin := w.enter(), w.i
	for w.more() {
		switch num, wire := w.tag(); num {
		case 1:
			w.only(wire, &m.scope)
		case 2:
			if w.is(wire, wireBytes) {
				w.place()
			}
		case 3:
			if w.is(wire, wireBytes) {
				m.schema = w.place()
			}
		default:
			w.skip(wire)
		}
	}
	for w.i = begin; w.next(2); {
		w.metric(m)
	}
	w.leave(outer)
}

// metric {1 name, 2 help, 3 unit, 5|7|9|10|11 data, 12 metadata}
func (w *otlpWalk) metric(m otlpMetric) {
	w.take(w.scanner, 1)
	outer := w.enter()
	for w.more() {
		num, wire := w.tag()
		var at *span
		switch num {
		case 1:
			at = &m.name
		case 2:
			at = &m.help
		case 3:
			at = &m.unit
		case gaugeData, sumData, histogramData, exponentialData, summaryData:
			m.kind, at = byte(num), &m.data
		default:
			w.skip(wire)
			continue
		}
		if w.is(wire, wireBytes) {
			*at = w.place()
		}
	}
	w.leave(outer)
	if w.err == nil && m.kind != 0 {
		w.data(m)
	}
}

// data {1 data points, 2 temporality, 3 monotonic (of a sum)}
func (w *otlpWalk) data(m otlpMetric) {
	behind, outer := w.i, w.end
	defer func() { w.i, w.end = behind, outer }()
	w.i, w.end = int(m.data.from), int(m.data.to)
	count := 0
	for w.more() {
		num, wire := w.tag()
		switch {
		case num == 1 && w.is(wire, wireBytes):
			w.place()
			count++
		case num == 2 && m.kind != gaugeData && m.kind != summaryData && w.is(wire, wireVarint):
			m.temporality = byte(w.varint())
		case num == 3 && m.kind == sumData && w.is(wire, wireVarint):
			m.monotonic = w.varint() != 0
		case w.err == nil:
			w.skip(wire)
		}
	}
	if w.err != nil || count == 0 {
		return
	}
	w.take(w.scanner, count)
	opts := &w.otlp.tr.opts
	switch {
	case m.temporality == temporalityDelta && opts.DeltaToCumulative:
		w.forLibrary()
	case m.kind == gaugeData,
		m.kind == sumData && m.temporality == temporalityCumulative,
		m.kind == histogramData && m.temporality == temporalityCumulative && !opts.ConvertHistogramsToNHCB:
		w.inPlace(m, count)
	default:
		w.throughLibrary(m, count)
	}
}

// inPlace reads the samples of a metric where they stand.
func (w *otlpWalk) inPlace(m otlpMetric, count int) {
	if err := w.family(m); err != nil {
		w.refused(count, err)
		for w.i = int(m.data.from); w.next(1); {
			w.timeOnly()
		}
		return
	}
	w.otlp.metrics = append(w.otlp.metrics, m)
	key := w.metricKey(m)
	for w.i = int(m.data.from); w.next(1); {
		if m.kind == histogramData {
			w.histogramPoint(key)
		} else {
			w.number(key)
		}
	}
}

// metricKey identifies a metric under its resource and scope.
func (w *otlpWalk) metricKey(m otlpMetric) batch.Key {
	h := appendKey(w.hashed[:0], w.resourceKey)
	for _, at := range [...]span{m.scope, m.schema, m.name, m.unit} {
		h = binary.AppendUvarint(h, uint64(at.to-at.from))
		h = append(h, w.b[at.from:at.to]...)
	}
	w.hashed = append(h, m.kind, bit(m.monotonic))
	return w.d.key(w.hashed)
}

func appendKey(b []byte, k batch.Key) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, k.Hi), k.Lo)
}

// family adds what the library says about a metric, once in a request, and
// returns its error. The answer is remembered by the bytes it depends on.
func (w *otlpWalk) family(m otlpMetric) error {
	h := append(w.hashed[:0], w.otlp.tr.mark[:]...)
	for _, at := range [...]span{m.name, m.help, m.unit} {
		h = binary.AppendUvarint(h, uint64(at.to-at.from))
		h = append(h, w.b[at.from:at.to]...)
	}
	w.hashed = append(h, m.kind, bit(m.monotonic))
	key := w.d.key(w.hashed)
	if err, ok := w.otlp.families[key]; ok {
		return err
	}
	f, ok := w.otlp.tr.families.get(key)
	if !ok {
		f = w.askFamily(m)
		w.otlp.tr.families.put(key, f)
	}
	if w.otlp.families == nil {
		w.otlp.families = map[batch.Key]error{}
	}
	w.otlp.families[key] = f.err
	if f.err == nil {
		w.into.Families = append(w.into.Families, f.Family)
	}
	return f.err
}

func (w *otlpWalk) askFamily(m otlpMetric) (f family) {
	m.resource, m.scope, m.schema = span{}, span{}, span{}
	got, err := w.alone(&m, oneField(nil))
	switch {
	case err != nil:
		f.err = err
	case len(got) == 0:
		f.err = errors.New("nothing is made of it")
	default:
		f.Family = got[0].family
	}
	return f
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// refused counts samples that the library doesn't take.
func (w *otlpWalk) refused(samples int, err error) {
	reason := refuse.BadRequest
	var e *refuse.Error
	if errors.As(err, &e) {
		reason = e.Reason
	}
	w.into.Refused.Add(reason, samples, func() *refuse.Error { return refuse.Errorf(reason, "", "OTLP: %v", err) })
}

// timeOnly reads the time of a data point of any kind.
func (w *otlpWalk) timeOnly() {
	outer := w.enter()
	for w.more() {
		num, wire := w.tag()
		if num == 3 && w.is(wire, wireFixed64) {
			w.at(w.fixed64())
		} else if w.err == nil {
			w.skip(wire)
		}
	}
	w.leave(outer)
}

// throughLibrary lets the library translate a metric of a kind that is not read in place.
func (w *otlpWalk) throughLibrary(m otlpMetric, count int) {
	for w.i = int(m.data.from); w.next(1); {
		w.timeOnly()
	}
	if w.err != nil {
		return
	}
	got, err := w.alone(&m, w.b[m.data.from:m.data.to])
	if err != nil {
		w.refused(max(1, count-len(got)), err)
	}
	for i, a := range got {
		if i == 0 {
			w.into.Families = append(w.into.Families, a.family)
		}
		w.made(a)
	}
}

// made adds a sample that the library made.
func (w *otlpWalk) made(a appended) {
	w.take(w.scanner, 1+len(a.exemplars))
	sr := newSeries(w.into)
	w.hashed = a.labels.Bytes(w.hashed[:0])
	sr.Key = w.d.key(w.hashed)
	if a.histogram.H != nil || a.histogram.FH != nil {
		w.into.Histograms = append(w.into.Histograms, a.histogram)
	} else {
		w.into.Floats = append(w.into.Floats, a.float)
	}
	w.into.Exemplars = append(w.into.Exemplars, a.exemplars...)
	finish(&sr, w.into)
	w.otlp.origins = append(w.otlp.origins, origin{metric: ofLibrary, made: a.labels})
}

// maxTargetSamples bounds the target_info of a resource in one request. The library
// writes one for every interval between the earliest and the latest data point, and a
// point without a time stands in 1970. Above the bound the interval is longer.
const maxTargetSamples = 1000
