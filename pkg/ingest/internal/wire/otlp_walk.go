package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"
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
		return refuse.Errorf(refuse.BadRequest, "", "malformed OTLP JSON: %v", err) // it names the byte
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
	got, err := w.guarded(w.alone(&m, oneField(nil)), w.otlp.tr.settings)
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
	got, err := w.guarded(w.alone(&w.otlp.metrics[len(w.otlp.metrics)-1], oneField(w.b[point.from:point.to])), w.otlp.tr.settings)
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

// throughLibrary lets the library translate a metric of a kind that is not read in place.
func (w *otlpWalk) throughLibrary(m otlpMetric, count int) {
	for w.i = int(m.data.from); w.next(1); {
		w.timeOnly()
	}
	if w.err != nil {
		return
	}
	got, err := w.guarded(w.alone(&m, w.b[m.data.from:m.data.to]), w.otlp.tr.settings)
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

// targetInfo adds the series that describes a resource.
func (w *otlpWalk) targetInfo(resource span) {
	t := w.target(resource)
	if !t.is {
		return
	}
	sr := newSeries(w.into)
	w.hashed = append(appendKey(w.hashed[:0], w.resourceKey), targetInfo...)
	sr.Key = w.d.key(w.hashed)
	first, last := time.Unix(0, int64(w.earliest)), time.Unix(0, int64(w.latest))
	interval := max(time.Duration(w.otlp.tr.opts.LookbackDelta)/2, last.Sub(first)/maxTargetSamples)
	for at := first; at.Before(last); at = at.Add(interval) {
		w.targetSample(t, at.UnixMilli())
	}
	w.targetSample(t, last.UnixMilli())
	if len(w.into.Floats) == int(sr.Floats.From) {
		return // another resource has said all of it
	}
	if !w.otlp.described {
		w.otlp.described = true
		w.into.Families = append(w.into.Families, batch.Family{Name: targetInfo, Metadata: metadata.Metadata{Type: model.MetricTypeGauge, Help: "Target metadata"}})
	}
	finish(&sr, w.into)
	w.otlp.origins = append(w.otlp.origins, origin{metric: ofTarget, point: resource})
}

func (w *otlpWalk) targetSample(t target, ms int64) {
	k := targetSample{t.hash, ms}
	if _, ok := w.otlp.targets[k]; ok {
		return
	}
	if w.otlp.targets == nil {
		w.otlp.targets = map[targetSample]struct{}{}
	}
	w.otlp.targets[k] = struct{}{}
	w.take(w.scanner, 1)
	w.into.Floats = append(w.into.Floats, batch.Float{T: ms, V: 1})
}

// target tells whether a resource has a target_info, remembered by its bytes.
func (w *otlpWalk) target(resource span) target {
	t, ok := w.otlp.tr.targets.get(w.resourceKey)
	if ok {
		return t
	}
	if ls := w.targetLabels(resource); !ls.IsEmpty() {
		t = target{is: true, hash: ls.Hash()}
	}
	w.otlp.tr.targets.put(w.resourceKey, t)
	return t
}
