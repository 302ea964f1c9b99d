package wire

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Times of random data points, in seconds before some moment.
const otlpNow = 1_700_000_000

func randomOTLP(r *rand.Rand) pmetric.Metrics {
	md := pmetric.NewMetrics()
	for range r.Intn(4) {
		rm := md.ResourceMetrics().AppendEmpty()
		if n := md.ResourceMetrics().Len(); n > 1 && r.Intn(4) == 0 { // the same resource, in another order
			md.ResourceMetrics().At(n - 2).CopyTo(rm)
			reversed := pcommon.NewMap()
			var names []string
			for k := range rm.Resource().Attributes().All() {
				names = append(names, k)
			}
			for _, k := range slices.Backward(names) {
				v, _ := rm.Resource().Attributes().Get(k)
				v.CopyTo(reversed.PutEmpty(k))
			}
			reversed.CopyTo(rm.Resource().Attributes())
			continue
		}
		for _, k := range []string{"service.name", "service.namespace", "service.instance.id", "host.name", "host_name", "_x", "k8s.pod"} {
			if r.Intn(2) == 0 {
				randomValue(r, rm.Resource().Attributes().PutEmpty(k), 0)
			}
		}
		for range r.Intn(3) {
			sm := rm.ScopeMetrics().AppendEmpty()
			if r.Intn(2) == 0 {
				sm.Scope().SetName("lib")
				sm.Scope().SetVersion("1.2")
				sm.SetSchemaUrl("https://schema")
				randomAttributes(r, sm.Scope().Attributes())
			}
			for range r.Intn(6) {
				randomMetric(r, sm.Metrics().AppendEmpty())
			}
		}
	}
	return md
}

func randomValue(r *rand.Rand, v pcommon.Value, depth int) {
	switch r.Intn(9) {
	case 0:
		v.SetBool(true)
	case 1:
		v.SetInt(r.Int63n(100))
	case 2:
		v.SetDouble(1.5)
	case 3:
		v.SetEmptyBytes().Append(1, 2)
	case 4:
		if depth < 3 {
			randomValue(r, v.SetEmptySlice().AppendEmpty(), depth+1)
		}
	case 5:
		if depth < 3 {
			randomValue(r, v.SetEmptyMap().PutEmpty("k"), depth+1)
		}
	default:
		v.SetStr(fmt.Sprintf("v%d", r.Intn(3)))
	}
}

func randomAttributes(r *rand.Rand, m pcommon.Map) {
	for _, k := range []string{"http.method", "http_method", "le", "__name__", "job", "größe", "status.code"} {
		if r.Intn(3) == 0 {
			randomValue(r, m.PutEmpty(k), 0)
		}
	}
	if r.Intn(20) == 0 {
		m.PutStr("long", strings.Repeat("x", 300))
	}
}

func randomStamp(r *rand.Rand) pcommon.Timestamp {
	return pcommon.Timestamp(otlpNow*1e9 - r.Int63n(1200)*1e9 - r.Int63n(1000))
}

func randomMetric(r *rand.Rand, m pmetric.Metric) {
	m.SetName([]string{"http.server.duration", "requests", "a_total", "9lives", "größe", "mem.used"}[r.Intn(6)])
	m.SetUnit([]string{"", "By", "s", "1", "{req}", "By/s"}[r.Intn(6)])
	m.SetDescription([]string{"", "help"}[r.Intn(2)])
	n := r.Intn(4)
	switch r.Intn(6) {
	case 0, 1:
		g := m.SetEmptyGauge()
		for range n {
			randomNumber(r, g.DataPoints().AppendEmpty())
		}
	case 2, 3:
		s := m.SetEmptySum()
		s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		s.SetIsMonotonic(r.Intn(2) == 0)
		for range n {
			randomNumber(r, s.DataPoints().AppendEmpty())
		}
	case 4:
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for range n {
			randomHistogramPoint(r, h.DataPoints().AppendEmpty())
		}
	case 5:
		if r.Intn(2) == 0 {
			s := m.SetEmptySummary()
			for range n {
				p := s.DataPoints().AppendEmpty()
				p.SetTimestamp(randomStamp(r))
				p.SetCount(3)
				p.SetSum(4)
				randomAttributes(r, p.Attributes())
				q := p.QuantileValues().AppendEmpty()
				q.SetQuantile(0.5)
				q.SetValue(2)
			}
			return
		}
		e := m.SetEmptyExponentialHistogram()
		e.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for range n {
			p := e.DataPoints().AppendEmpty()
			p.SetTimestamp(randomStamp(r))
			p.SetStartTimestamp(randomStamp(r))
			p.SetScale(int32(r.Intn(12)))
			p.SetCount(6)
			p.SetSum(1.5)
			p.Positive().SetOffset(int32(r.Intn(5)))
			p.Positive().BucketCounts().FromRaw([]uint64{1, 2, 3})
			randomAttributes(r, p.Attributes())
			randomExemplars(r, p.Exemplars())
		}
	}
}

func randomNumber(r *rand.Rand, p pmetric.NumberDataPoint) {
	p.SetTimestamp(randomStamp(r))
	if r.Intn(2) == 0 {
		p.SetStartTimestamp(randomStamp(r))
	}
	switch r.Intn(3) {
	case 0:
		p.SetIntValue(r.Int63() - r.Int63())
	case 1:
		p.SetDoubleValue(r.NormFloat64())
	}
	if r.Intn(8) == 0 {
		p.SetFlags(p.Flags().WithNoRecordedValue(true))
	}
	randomAttributes(r, p.Attributes())
	randomExemplars(r, p.Exemplars())
}

func randomHistogramPoint(r *rand.Rand, p pmetric.HistogramDataPoint) {
	p.SetTimestamp(randomStamp(r))
	p.SetStartTimestamp(randomStamp(r))
	p.SetCount(uint64(r.Intn(100)))
	if r.Intn(2) == 0 {
		p.SetSum(r.Float64())
	}
	if n := r.Intn(5); n > 0 {
		for i := range n {
			p.ExplicitBounds().Append(float64(i) * 1.5)
			p.BucketCounts().Append(uint64(r.Intn(10)))
		}
		if r.Intn(4) == 0 {
			p.ExplicitBounds().Append(math.Inf(1))
			p.BucketCounts().Append(1)
		}
		p.BucketCounts().Append(2)
	}
	if r.Intn(8) == 0 {
		p.SetFlags(p.Flags().WithNoRecordedValue(true))
	}
	randomAttributes(r, p.Attributes())
	randomExemplars(r, p.Exemplars())
}

func randomExemplars(r *rand.Rand, es pmetric.ExemplarSlice) {
	if r.Intn(3) > 0 {
		return
	}
	for range 1 + r.Intn(3) {
		e := es.AppendEmpty()
		e.SetTimestamp(randomStamp(r))
		e.SetDoubleValue(r.Float64() * 6)
		e.SetTraceID([16]byte{1, byte(r.Intn(256))})
		if r.Intn(2) == 0 {
			e.FilteredAttributes().PutStr("user", "x")
		}
	}
}

func randomOptions(r *rand.Rand) OTLP {
	o := DefaultOTLP()
	o.TranslationStrategy = []string{"UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation"}[r.Intn(4)]
	switch r.Intn(4) {
	case 0:
		o.PromoteAllResourceAttributes, o.IgnoreResourceAttributes = true, []string{"host.name"}
	case 1:
		o.PromoteResourceAttributes = []string{"host.name", "k8s.pod", "service.name"}
	}
	for _, b := range []*bool{&o.KeepIdentifyingResourceAttributes, &o.ConvertHistogramsToNHCB, &o.PromoteScopeMetadata, &o.LabelNameUnderscoreSanitization,
		&o.LabelNamePreserveMultipleUnderscores, &o.TypeAndUnitLabels, &o.TargetInfo} {
		*b = r.Intn(2) == 0
	}
	o.Namespace = []string{"", "", "firm"}[r.Intn(3)]
	if r.Intn(3) == 0 {
		o.ExternalLabels = map[string]string{"region": "eu", "host.name": "outside"}
	}
	return o
}

// twinOTLP is Prometheus' receiver: unmarshal all, translate all.
func twinOTLP(p []byte, o OTLP) (string, error) {
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(p); err != nil {
		return "", err
	}
	settings := o.settings()
	settings.DisableTargetInfo, settings.LookbackDelta = !o.TargetInfo, time.Duration(o.LookbackDelta)
	l := &library{}
	_, err := prometheusremotewrite.NewPrometheusConverter(l).FromMetrics(context.Background(), req.Metrics(), settings)
	b := &batch.Batch{}
	var out []string
	for _, a := range l.got {
		if a.histogram.H != nil {
			out = append(out, printSeries(a.labels, nil, []batch.Histogram{a.histogram}, a.exemplars))
		} else {
			out = append(out, printSeries(a.labels, []batch.Float{a.float}, nil, a.exemplars))
		}
		b.Families = append(b.Families, a.family)
	}
	families, _ := printBatch(b)
	return sortedLines(out, families), err
}

func sortedLines(out []string, families string) string {
	slices.Sort(out)
	return strings.Join(append(out, families), "\n")
}

// printPoints prints a Batch as the twin does: a line a sample.
func printPoints(b *batch.Batch) (string, error) {
	var out []string
	for i, s := range b.Series {
		ls, err := b.Labels(i)
		if err != nil {
			return "", err
		}
		exemplars := b.Exemplars[s.Exemplars.From:s.Exemplars.To]
		for _, f := range b.Floats[s.Floats.From:s.Floats.To] {
			out = append(out, printSeries(ls, []batch.Float{f}, nil, exemplars))
		}
		for _, h := range b.Histograms[s.Histograms.From:s.Histograms.To] {
			out = append(out, printSeries(ls, nil, []batch.Histogram{h}, exemplars))
		}
	}
	families, _ := printBatch(&batch.Batch{Families: b.Families})
	return sortedLines(out, families), nil
}

func decodePoints(d *Decoder, f Format, p []byte, from Sender) (string, *batch.Batch, error) {
	body, err := d.Wrap(p)
	if err != nil {
		return "", nil, err
	}
	b := &batch.Batch{}
	if err := d.Decode(f, body, b, from); err != nil {
		return "", b, err
	}
	out, err := printPoints(b)
	return out, b, err
}

// What is read in place and what is remembered equals what Prometheus' receiver makes of the same request.
func TestOTLPEqualsTwin(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(400) {
		r := rand.New(rand.NewSource(seed))
		o := randomOptions(r)
		require.NoError(t, o.Validate())
		req := pmetricotlp.NewExportRequestFromMetrics(randomOTLP(r))
		p, err := req.MarshalProto()
		require.NoError(t, err)
		want, err := twinOTLP(p, o)
		require.NoError(t, err, "seed %d", seed)
		got, b, err := decodePoints(d, OTLPProto, p, Sender{OTLP: &o})
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, want, got, "seed %d", seed)
		require.NoError(t, b.Refused.Err())

		j, err := req.MarshalJSON()
		require.NoError(t, err)
		got, _, err = decodePoints(d, OTLPJSON, j, Sender{OTLP: &o})
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, want, got, "seed %d, JSON", seed)
	}
}

// A Key never stands for two series, whatever the options; most series have one Key only.
func TestOTLPKeys(t *testing.T) {
	d := New(defaults(), time.Now)
	byKey, byLabels := map[batch.Key]string{}, map[string]bool{}
	options := []OTLP{DefaultOTLP(), DefaultOTLP(), DefaultOTLP()}
	options[1].PromoteScopeMetadata = true
	options[2].TypeAndUnitLabels, options[2].TranslationStrategy = true, "NoTranslation"
	for seed := range int64(600) {
		md := randomOTLP(rand.New(rand.NewSource(seed)))
		for _, rm := range md.ResourceMetrics().All() { // so that series meet again
			rm.Resource().Attributes().Clear()
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					if m.Type() == pmetric.MetricTypeGauge {
						for _, p := range m.Gauge().DataPoints().All() {
							p.Attributes().Clear()
						}
					}
				}
			}
		}
		p, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
		require.NoError(t, err)
		for n := range options {
			_, b, err := decodePoints(d, OTLPProto, p, Sender{OTLP: &options[n]})
			require.NoError(t, err)
			for i, s := range b.Series {
				ls, err := b.Labels(i)
				require.NoError(t, err)
				if have, ok := byKey[s.Key]; ok {
					require.Equal(t, have, ls.String(), "one Key for two series")
				}
				byKey[s.Key] = ls.String()
				byLabels[ls.String()] = true
			}
		}
	}
	require.Greater(t, len(byLabels), 1000)
}

// Metrics without a scope have their own resource's labels.
func TestOTLPWithoutScope(t *testing.T) {
	var p []byte
	for _, name := range []string{"one", "two", "three"} {
		value := oneField([]byte(name))
		attribute := field(field(nil, 1, []byte("service.name")), 2, value)
		metric := field(field(nil, 1, []byte("m")), gaugeData, oneField([]byte{3<<3 | wireFixed64, 0, 0, 0, 0, 0, 0, 0, 1}))
		p = append(p, oneField(field(oneField(oneField(attribute)), 2, field(nil, 2, metric)))...)
	}
	o := DefaultOTLP()
	want, err := twinOTLP(p, o)
	require.NoError(t, err)
	require.Contains(t, want, `job="three"`)
	got, _, err := decodePoints(New(defaults(), time.Now), OTLPProto, p, Sender{OTLP: &o})
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func gauge(f func(pmetric.Metrics, pmetric.NumberDataPoint)) []byte {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "s")
	rm.Resource().Attributes().PutStr("host.name", "h")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("m")
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(otlpNow * 1e9)
	p.SetIntValue(1)
	f(md, p)
	out, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		panic(err)
	}
	return out
}

// What the library can't translate is left out and counted; the rest is taken.
func TestOTLPPartly(t *testing.T) {
	d := New(defaults(), time.Now)
	p := gauge(func(md pmetric.Metrics, _ pmetric.NumberDataPoint) {
		ms := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
		sum := ms.AppendEmpty()
		sum.SetName("delta")
		s := sum.SetEmptySum()
		s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		s.DataPoints().AppendEmpty()
		s.DataPoints().AppendEmpty()
		nameless := ms.AppendEmpty().SetEmptyGauge().DataPoints()
		nameless.AppendEmpty()
	})
	out, b, err := decodePoints(d, OTLPProto, p, Sender{})
	require.NoError(t, err)
	require.Contains(t, out, `{__name__="m", job="s"}`)
	require.Equal(t, 3, b.Refused.Samples())
	require.ErrorContains(t, b.Refused.Err(), `invalid temporality and type combination for metric "delta"`)
	require.Equal(t, refuse.BadRequest, refuse.ReasonOf(b.Refused.Err()))
}

// RELIABILITY P12, section 5 Bombs.
func TestOTLPRefusals(t *testing.T) {
	cfg := defaults()
	cfg.MaxItems = 2000
	d := New(cfg, time.Now)
	nested := func(depth int, json bool) []byte {
		p := gauge(func(_ pmetric.Metrics, p pmetric.NumberDataPoint) {
			v := p.Attributes().PutEmpty("deep")
			for range depth {
				v = v.SetEmptySlice().AppendEmpty()
			}
		})
		if json {
			req := pmetricotlp.NewExportRequest()
			if err := req.UnmarshalProto(p); err != nil {
				panic(err)
			}
			p, _ = req.MarshalJSON()
		}
		return p
	}
	points := gauge(func(md pmetric.Metrics, _ pmetric.NumberDataPoint) {
		for range 2000 {
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().AppendEmpty()
		}
	})
	attributes := gauge(func(_ pmetric.Metrics, p pmetric.NumberDataPoint) {
		for i := range 20_000 {
			p.Attributes().PutEmpty(fmt.Sprint(i))
		}
	})
	for _, c := range []struct {
		name   string
		format Format
		body   []byte
		want   string
		reason refuse.Reason
	}{
		{"cut off", OTLPProto, []byte{0x0a, 0x05, 0x0a}, "malformed OTLP protobuf at byte 1: a field of 5 bytes where 1 are left", refuse.BadRequest},
		{"nested", OTLPProto, nested(5000, false), "more than 64 messages within each other", refuse.BadRequest},
		{"nested", OTLPJSON, nested(5000, true), "malformed OTLP JSON at byte", refuse.BadRequest},
		{"points", OTLPProto, points, "max-items", refuse.RequestTooLarge},
		{"attributes", OTLPProto, attributes, "max-items", refuse.RequestTooLarge},
		{"long value", OTLPProto, gauge(func(_ pmetric.Metrics, p pmetric.NumberDataPoint) {
			p.Attributes().PutStr("a", strings.Repeat("x", 17<<20))
		}),
			"resource, scope or data point of 178", refuse.RequestTooLarge},
		{"long schema", OTLPProto, gauge(func(md pmetric.Metrics, _ pmetric.NumberDataPoint) {
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).SetSchemaUrl(strings.Repeat("x", 17<<20))
		}), "a field of 178", refuse.RequestTooLarge},
		{"objects", OTLPJSON, bytes.Repeat([]byte("{},"), 20_000), "max-items", refuse.RequestTooLarge},
		{"no JSON", OTLPJSON, []byte(`{"resourceMetrics": 1}`), "malformed OTLP JSON near byte 21: ReadArray: expect", refuse.BadRequest},
		{"cut JSON", OTLPJSON, []byte(`{"resourceMetrics": [{`), "malformed OTLP JSON near byte 22: ReadObject: expect", refuse.BadRequest},
		{"no number", OTLPJSON, []byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"abcdefgh","gauge":{"dataPoints":[{"asDouble":"x"}]}}]}]}]}`), "malformed OTLP JSON near byte 106: ReadUint64: ", refuse.BadRequest},
		{"empty JSON", OTLPJSON, nil, "malformed OTLP JSON near byte 0: ReadObject: expect", refuse.BadRequest},
	} {
		t.Run(c.name+" "+c.format.String(), func(t *testing.T) {
			_, _, err := decodePoints(d, c.format, c.body, Sender{})
			require.ErrorContains(t, err, c.want)
			require.Equal(t, c.reason, refuse.ReasonOf(err))
		})
	}
}

// A metric whose name is longer than a label can be is left out, as one that can't be translated.
func TestOTLPLongName(t *testing.T) {
	p := gauge(func(md pmetric.Metrics, _ pmetric.NumberDataPoint) {
		md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().AppendEmpty().SetName(strings.Repeat("x", 17<<20))
		md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(1).SetEmptyGauge().DataPoints().AppendEmpty()
	})
	out, b, err := decodePoints(New(defaults(), time.Now), OTLPProto, p, Sender{})
	require.NoError(t, err)
	require.Contains(t, out, `{__name__="m", job="s"}`)
	require.Equal(t, refuse.RequestTooLarge, refuse.ReasonOf(b.Refused.Err()))
}

// A data point without a time stands in 1970: target_info is not written for every 150 s since then.
func TestTargetInfoIsBounded(t *testing.T) {
	d := New(defaults(), time.Now)
	for _, stamp := range []uint64{0, 1, math.MaxInt64, math.MaxUint64} {
		p := gauge(func(md pmetric.Metrics, _ pmetric.NumberDataPoint) {
			md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().AppendEmpty().SetTimestamp(pcommon.Timestamp(stamp))
		})
		_, b, err := decodePoints(d, OTLPProto, p, Sender{})
		require.NoError(t, err)
		require.Len(t, b.Series, 3)
		require.LessOrEqual(t, b.Series[2].Floats.Len(), maxTargetSamples+2)
	}
}

// Fields that protobuf allows to stand in pieces, and old names, are read as the library reads them.
func TestOTLPUnusual(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(300) {
		r := rand.New(rand.NewSource(seed))
		p, err := pmetricotlp.NewExportRequestFromMetrics(randomOTLP(r)).MarshalProto()
		require.NoError(t, err)
		p = scatterOTLP(r, p)
		o := randomOptions(r)
		want, err := twinOTLP(p, o)
		require.NoError(t, err, "seed %d", seed)
		got, _, err := decodePoints(d, OTLPProto, p, Sender{OTLP: &o})
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, want, got, "seed %d", seed)
	}
}

// scatterOTLP cuts resources in two, and renames scope metrics to their deprecated number.
func scatterOTLP(r *rand.Rand, p []byte) (out []byte) {
	rename := r.Intn(2) == 0
	s := scanner{b: p, end: len(p)}
	for s.more() {
		s.tag()
		m := scanner{b: s.bytes()}
		m.end = len(m.b)
		var head, tail []byte
		for m.more() {
			at := m.i
			num, wire := m.tag()
			m.skip(wire)
			switch {
			case num == 2 && rename:
				tail = append(appendTag(tail, 1000, wireBytes), m.b[at+1:m.i]...)
			case num == 2:
				tail = append(tail, m.b[at:m.i]...)
			default:
				head = append(head, m.b[at:m.i]...)
			}
		}
		second := []byte{0x0a, 0x0a, 0x0a, 0x08, 0x0a, 0x01, 'z', 0x12, 0x03, 0x0a, 0x01, 'y'} // resource {z: y}
		parts := [][]byte{head, tail, second}
		r.Shuffle(3, func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		inner := bytes.Join(parts, nil)
		out = append(appendUvarint(appendTag(out, 1, wireBytes), uint64(len(inner))), inner...)
	}
	return out
}

func TestDeltaToCumulative(t *testing.T) {
	now := time.Unix(otlpNow, 0)
	cfg := defaults()
	cfg.DeltaMaxStreams = 2
	d := New(cfg, func() time.Time { return now })
	defer d.Close()
	o := DefaultOTLP()
	o.DeltaToCumulative, o.TargetInfo = true, false
	send := func(id tenant.ID, second int, v int64, stream string) (string, *batch.Batch) {
		p := gauge(func(md pmetric.Metrics, p pmetric.NumberDataPoint) {
			s := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).SetEmptySum()
			s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			s.SetIsMonotonic(true)
			q := s.DataPoints().AppendEmpty()
			q.SetStartTimestamp(pcommon.Timestamp(int64(otlpNow+second-1) * 1e9))
			q.SetTimestamp(pcommon.Timestamp(int64(otlpNow+second) * 1e9))
			q.SetIntValue(v)
			q.Attributes().PutStr("stream", stream)
		})
		out, b, err := decodePoints(d, OTLPProto, p, Sender{Tenant: id, OTLP: &o})
		require.NoError(t, err)
		return out, b
	}
	value := func(b *batch.Batch) float64 {
		require.Len(t, b.Floats, 1)
		return b.Floats[0].V
	}
	out, b := send("a", 1, 5, "x")
	require.Contains(t, out, `{__name__="m_total", job="s", stream="x"}`)
	require.Equal(t, 5.0, value(b))
	_, b = send("a", 2, 3, "x")
	require.Equal(t, 8.0, value(b))
	_, b = send("b", 2, 3, "x") // another tenant's
	require.Equal(t, 3.0, value(b))
	_, b = send("a", 2, 3, "x") // sent again: it is in the sum already
	require.Empty(t, b.Floats)
	require.Equal(t, 1, b.Refused.Samples())
	_, b = send("a", 3, 1, "y")
	require.Equal(t, 1.0, value(b))
	_, b = send("a", 3, 1, "z")
	require.ErrorContains(t, b.Refused.Err(), "delta_max_streams")
	now = now.Add(time.Hour) // the tenant is silent for long: its streams begin anew
	_, b = send("a", 3600, 1, "z")
	require.Equal(t, 1.0, value(b))
}

func TestOTLPOptions(t *testing.T) {
	for _, change := range []func(*OTLP){
		func(o *OTLP) { o.TranslationStrategy = "" },
		func(o *OTLP) { o.IgnoreResourceAttributes = []string{"a"} },
		func(o *OTLP) { o.PromoteResourceAttributes = []string{"a", "a"} },
		func(o *OTLP) { o.PromoteAllResourceAttributes, o.PromoteResourceAttributes = true, []string{"a"} },
		func(o *OTLP) { o.NativeDelta, o.DeltaToCumulative = true, true },
		func(o *OTLP) { o.LookbackDelta = 0 },
		func(o *OTLP) { o.Namespace = "a b" },
		func(o *OTLP) { o.ExternalLabels = map[string]string{"": "a"} },
		func(o *OTLP) { o.ExternalLabels = map[string]string{"__name__": "a"} },
		func(o *OTLP) { o.ExternalLabels = map[string]string{"a": ""} },
	} {
		o := DefaultOTLP()
		require.NoError(t, o.Validate())
		change(&o)
		require.Error(t, o.Validate())
	}
}

// fuzzOTLP checks that a body that may be anything is decoded or refused, in
// proportion, and not otherwise than by the twin if that one has no complaint.
func fuzzOTLP(t *testing.T, d *Decoder, f Format, p []byte) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	o := DefaultOTLP()
	got, b, err := decodePoints(d, f, p, Sender{OTLP: &o})
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2000*len(p)+1<<20))
	if err != nil {
		require.Equal(t, 4, refuse.ReasonOf(err).Status()/100, err)
		return
	}
	if f != OTLPProto || b.Refused.Err() != nil {
		return
	}
	for _, x := range b.Floats {
		if x.T < (otlpNow-7e4)*1000 || x.T > (otlpNow+7e4)*1000 {
			return // target_info is bounded, the twin's isn't
		}
	}
	if want, err := twinOTLP(p, o); err == nil {
		require.Equal(t, want, got)
	}
}

func TestOTLPDamaged(t *testing.T) {
	d := New(defaults(), time.Now)
	for seed := range int64(50) {
		r := rand.New(rand.NewSource(seed))
		req := pmetricotlp.NewExportRequestFromMetrics(randomOTLP(r))
		p, _ := req.MarshalProto()
		j, _ := req.MarshalJSON()
		for range 20 {
			fuzzOTLP(t, d, OTLPProto, damage(r, p))
			fuzzOTLP(t, d, OTLPJSON, damage(r, j))
		}
	}
}

func FuzzOTLPProto(f *testing.F) {
	d := New(defaults(), time.Now)
	for seed := range int64(8) {
		p, _ := pmetricotlp.NewExportRequestFromMetrics(randomOTLP(rand.New(rand.NewSource(seed)))).MarshalProto()
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) { fuzzOTLP(t, d, OTLPProto, p) })
}

func FuzzOTLPJSON(f *testing.F) {
	d := New(defaults(), time.Now)
	for seed := range int64(8) {
		p, _ := pmetricotlp.NewExportRequestFromMetrics(randomOTLP(rand.New(rand.NewSource(seed)))).MarshalJSON()
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) { fuzzOTLP(t, d, OTLPJSON, p) })
}

// loadOTLP is what an agent sends for many instances: ten metrics of each, one point a metric.
func loadOTLP(series int) []byte {
	md := pmetric.NewMetrics()
	var sm pmetric.ScopeMetrics
	for i := range series {
		if i%10 == 0 {
			rm := md.ResourceMetrics().AppendEmpty()
			rm.Resource().Attributes().PutStr("service.name", "load")
			rm.Resource().Attributes().PutStr("service.namespace", fmt.Sprintf("namespace-%02d", i/10%30))
			rm.Resource().Attributes().PutStr("service.instance.id", fmt.Sprintf("load-generator-7c9f6d5b4-%06d", i/10))
			rm.Resource().Attributes().PutStr("host.name", fmt.Sprintf("host-%d", i/100))
			sm = rm.ScopeMetrics().AppendEmpty()
			sm.Scope().SetName("load")
		}
		m := sm.Metrics().AppendEmpty()
		m.SetName(fmt.Sprintf("bench.load.requests.%02d", i%10))
		s := m.SetEmptySum()
		s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		s.SetIsMonotonic(true)
		p := s.DataPoints().AppendEmpty()
		p.SetTimestamp(otlpNow * 1e9)
		p.SetStartTimestamp((otlpNow - 100) * 1e9)
		p.SetDoubleValue(float64(i) + 0.5)
		for _, l := range loadLabels(i)[5:] {
			p.Attributes().PutStr(l[0], l[1])
		}
	}
	p, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		panic(err)
	}
	return p
}

// loadHistograms is one histogram of 15 buckets with many attribute sets: 18 series each.
func loadHistograms(pointsOf int) []byte {
	return gauge(func(md pmetric.Metrics, _ pmetric.NumberDataPoint) {
		h := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for i := range pointsOf {
			p := h.DataPoints().AppendEmpty()
			p.SetTimestamp(otlpNow * 1e9)
			p.SetSum(3)
			p.SetCount(100)
			p.Attributes().PutStr("route", fmt.Sprintf("/api/v1/resource/%d", i))
			p.Attributes().PutStr("method", "GET")
			for j := range 15 {
				p.ExplicitBounds().Append(float64(j))
				p.BucketCounts().Append(uint64(j))
			}
			p.BucketCounts().Append(1)
		}
	})
}

func BenchmarkOTLP(b *testing.B) {
	for _, c := range []struct {
		name    string
		body    []byte
		samples int
	}{{"sums", loadOTLP(2000), 2000}, {"histograms", loadHistograms(100), 1800}} {
		d := New(defaults(), time.Now)
		o := DefaultOTLP()
		var pool batch.Pool
		b.Run(fmt.Sprintf("%s/samples=%d/ours", c.name, c.samples), func(b *testing.B) {
			b.ReportAllocs()
			defer perSample(b, c.samples)()
			for b.Loop() {
				body, _ := d.Wrap(c.body)
				into := pool.Get()
				if err := d.Decode(OTLPProto, body, into, Sender{OTLP: &o}); err != nil {
					b.Fatal(err)
				}
				pool.Put(into)
			}
		})
		b.Run(fmt.Sprintf("%s/samples=%d/ours, labels of all", c.name, c.samples), func(b *testing.B) {
			b.ReportAllocs()
			defer perSample(b, c.samples)()
			for b.Loop() {
				body, _ := d.Wrap(c.body)
				into := pool.Get()
				if err := d.Decode(OTLPProto, body, into, Sender{OTLP: &o}); err != nil {
					b.Fatal(err)
				}
				for i := range into.Series {
					if _, err := into.Labels(i); err != nil {
						b.Fatal(err)
					}
				}
				pool.Put(into)
			}
		})
		b.Run(fmt.Sprintf("%s/samples=%d/library", c.name, c.samples), func(b *testing.B) {
			b.ReportAllocs()
			defer perSample(b, c.samples)()
			settings := o.settings()
			settings.DisableTargetInfo, settings.LookbackDelta = false, time.Duration(model.Duration(5*time.Minute))
			for b.Loop() {
				req := pmetricotlp.NewExportRequest()
				if err := req.UnmarshalProto(c.body); err != nil {
					b.Fatal(err)
				}
				l := &library{}
				if _, err := prometheusremotewrite.NewPrometheusConverter(l).FromMetrics(context.Background(), req.Metrics(), settings); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
