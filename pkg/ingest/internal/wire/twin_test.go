package wire

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// The slow, obvious twins: what Prometheus' generated code and its conversions
// make of a body, printed as one text.

func defaults() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	return c
}

// decode runs a Decoder over plain bytes and prints the Batch.
func decode(t testing.TB, d *Decoder, f Format, p []byte, from Sender) (string, error) {
	body, err := d.Wrap(p)
	require.NoError(t, err)
	var pool batch.Pool
	b := pool.Get()
	defer pool.Put(b)
	if err := d.Decode(f, body, b, from); err != nil {
		return "", err
	}
	return printBatch(b)
}

func printBatch(b *batch.Batch) (string, error) {
	var out []string
	for i, s := range b.Series {
		ls, err := b.Labels(i)
		if err != nil {
			return "", err
		}
		out = append(out, printSeries(ls, b.Floats[s.Floats.From:s.Floats.To], b.Histograms[s.Histograms.From:s.Histograms.To],
			b.Exemplars[s.Exemplars.From:s.Exemplars.To]))
	}
	var families []string
	for _, f := range b.Families {
		families = append(families, fmt.Sprintf("family %q %s %q %q", f.Name, f.Type, f.Help, f.Unit))
	}
	slices.Sort(families)
	return strings.Join(append(out, slices.Compact(families)...), "\n"), nil
}

func printSeries(ls labels.Labels, floats []batch.Float, histograms []batch.Histogram, exemplars []exemplar.Exemplar) string {
	var w strings.Builder
	w.WriteString(ls.String())
	for _, f := range floats {
		fmt.Fprintf(&w, " %d/%d=%x", f.ST, f.T, math.Float64bits(f.V))
	}
	for _, h := range histograms {
		if h.FH != nil {
			fmt.Fprintf(&w, " %d/%d=float%+v", h.ST, h.T, *h.FH)
		} else {
			fmt.Fprintf(&w, " %d/%d=int%+v", h.ST, h.T, *h.H)
		}
	}
	for _, e := range exemplars {
		fmt.Fprintf(&w, " # %s %x %d %t", e.Labels, math.Float64bits(e.Value), e.Ts, e.HasTs)
	}
	return w.String()
}

func twin1(p []byte) (string, error) {
	var req prompb.WriteRequest
	if err := req.Unmarshal(p); err != nil {
		return "", err
	}
	var out []string
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		var floats []batch.Float
		var histograms []batch.Histogram
		var exemplars []exemplar.Exemplar
		for _, s := range ts.Samples {
			floats = append(floats, batch.Float{T: s.Timestamp, V: s.Value})
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				histograms = append(histograms, batch.Histogram{T: h.Timestamp, FH: h.ToFloatHistogram()})
			} else {
				histograms = append(histograms, batch.Histogram{T: h.Timestamp, H: h.ToIntHistogram()})
			}
		}
		for _, e := range ts.Exemplars {
			exemplars = append(exemplars, e.ToExemplar(&b, nil))
		}
		out = append(out, printSeries(ts.ToLabels(&b, nil), floats, histograms, exemplars))
	}
	var families []string
	for _, m := range req.Metadata {
		if m.MetricFamilyName != "" {
			families = append(families, fmt.Sprintf("family %q %s %q %q", m.MetricFamilyName, metricType(uint32(m.Type)), m.Help, m.Unit))
		}
	}
	slices.Sort(families)
	return strings.Join(append(out, slices.Compact(families)...), "\n"), nil
}

func twin2(p []byte) (string, error) {
	var req writev2.Request
	if err := req.Unmarshal(p); err != nil {
		return "", err
	}
	var out, families []string
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			return "", err
		}
		m, err := ts.ToMetadata(req.Symbols)
		if err != nil {
			return "", err
		}
		var floats []batch.Float
		var histograms []batch.Histogram
		var exemplars []exemplar.Exemplar
		for _, s := range ts.Samples {
			floats = append(floats, batch.Float{ST: s.StartTimestamp, T: s.Timestamp, V: s.Value})
		}
		for _, h := range ts.Histograms {
			if h.IsFloatHistogram() {
				histograms = append(histograms, batch.Histogram{ST: h.StartTimestamp, T: h.Timestamp, FH: h.ToFloatHistogram()})
			} else {
				histograms = append(histograms, batch.Histogram{ST: h.StartTimestamp, T: h.Timestamp, H: h.ToIntHistogram()})
			}
		}
		for _, e := range ts.Exemplars {
			x, err := e.ToExemplar(&b, req.Symbols)
			if err != nil {
				return "", err
			}
			exemplars = append(exemplars, x)
		}
		out = append(out, printSeries(ls, floats, histograms, exemplars))
		if name := lastName(req.Symbols, ts.LabelsRefs); name != "" && (ts.Metadata.Type != 0 || ts.Metadata.HelpRef+ts.Metadata.UnitRef != 0) {
			families = append(families, fmt.Sprintf("family %q %s %q %q", familyName(name, m.Type), m.Type, m.Help, m.Unit))
		}
	}
	slices.Sort(families)
	return strings.Join(append(out, slices.Compact(families)...), "\n"), nil
}

func lastName(symbols []string, refs []uint32) (name string) {
	for i := 0; i < len(refs); i += 2 {
		if symbols[refs[i]] == model.MetricNameLabel {
			name = symbols[refs[i+1]]
		}
	}
	return name
}

// randomHistograms are an integer and a float one, one of them with custom buckets.
func randomHistograms(r *rand.Rand) (*histogram.Histogram, *histogram.FloatHistogram) {
	h := &histogram.Histogram{
		CounterResetHint: histogram.CounterResetHint(r.Intn(4)), Schema: int32(r.Intn(13) - 4), ZeroThreshold: 1e-128,
		ZeroCount: uint64(r.Intn(3)), Count: uint64(r.Intn(1000)), Sum: r.NormFloat64(),
		PositiveSpans:   []histogram.Span{{Offset: int32(r.Intn(9) - 4), Length: 2}, {Offset: 3, Length: 1}},
		PositiveBuckets: []int64{int64(r.Intn(9)), -1, 2},
		NegativeSpans:   []histogram.Span{{Offset: -7, Length: 1}},
		NegativeBuckets: []int64{5},
	}
	f := h.ToFloat(nil)
	if r.Intn(2) == 0 {
		h.Schema, h.CustomValues = histogram.CustomBucketsSchema, []float64{0.1, 1, 10}
	}
	return h, f
}

func randomLabels(r *rand.Rand) []prompb.Label {
	ls := []prompb.Label{{Name: model.MetricNameLabel, Value: fmt.Sprintf("metric_%d_bucket", r.Intn(5))}}
	for i := range r.Intn(6) {
		ls = append(ls, prompb.Label{Name: fmt.Sprintf("l%d", r.Intn(8)+10*i), Value: strings.Repeat("v", r.Intn(200))})
	}
	r.Shuffle(len(ls), func(i, j int) { ls[i], ls[j] = ls[j], ls[i] })
	return ls
}

func randomTime(r *rand.Rand) int64 {
	return []int64{0, -1, math.MinInt64, math.MaxInt64, 1_700_000_000_000, 1_700_000_000_000 + r.Int63n(1e12), r.Int63n(1e12), r.Int63n(1000)}[r.Intn(8)]
}

func randomRW1(r *rand.Rand) *prompb.WriteRequest {
	req := &prompb.WriteRequest{}
	for range r.Intn(6) {
		ts := prompb.TimeSeries{Labels: randomLabels(r)}
		for range r.Intn(4) {
			ts.Samples = append(ts.Samples, prompb.Sample{Value: r.NormFloat64(), Timestamp: randomTime(r)})
		}
		for range r.Intn(2) {
			h, f := randomHistograms(r)
			ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(randomTime(r), h), prompb.FromFloatHistogram(randomTime(r), f))
		}
		for range r.Intn(3) {
			ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: randomLabels(r), Value: r.Float64(), Timestamp: randomTime(r)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	for range r.Intn(3) {
		req.Metadata = append(req.Metadata, prompb.MetricMetadata{
			Type: prompb.MetricMetadata_MetricType(r.Intn(9)), MetricFamilyName: fmt.Sprintf("m%d", r.Intn(4)), Help: "help", Unit: "bytes"})
	}
	return req
}

func randomRW2(r *rand.Rand) *writev2.Request {
	table := writev2.NewSymbolTable()
	refs := func() (out []uint32) {
		for _, l := range randomLabels(r) {
			out = append(out, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		return out
	}
	req := &writev2.Request{}
	for range r.Intn(6) {
		ts := writev2.TimeSeries{LabelsRefs: refs()}
		for range r.Intn(4) {
			ts.Samples = append(ts.Samples, writev2.Sample{Value: r.NormFloat64(), Timestamp: randomTime(r), StartTimestamp: randomTime(r)})
		}
		for range r.Intn(2) {
			h, f := randomHistograms(r)
			ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(randomTime(r), randomTime(r), h), writev2.FromFloatHistogram(0, randomTime(r), f))
		}
		for range r.Intn(3) {
			ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: refs(), Value: r.Float64(), Timestamp: randomTime(r)})
		}
		if r.Intn(3) > 0 {
			ts.Metadata = writev2.Metadata{Type: writev2.Metadata_MetricType(r.Intn(9)), HelpRef: table.Symbolize("help"), UnitRef: table.Symbolize("")}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = table.Symbols()
	return req
}

// shuffleFields puts the fields of a message into another order, at random,
// and strews unknown ones among them: legal, if unusual.
func shuffleFields(r *rand.Rand, p []byte, nested map[int32]bool) []byte {
	var fields [][]byte
	s := scanner{b: p, end: len(p)}
	for s.more() {
		at := s.i
		num, wire := s.tag()
		if nested[num] {
			inner := shuffleFields(r, s.bytes(), nil)
			field := appendTag(nil, num, wireBytes)
			fields = append(fields, append(appendUvarint(field, uint64(len(inner))), inner...))
			continue
		}
		s.skip(wire)
		fields = append(fields, p[at:s.i])
	}
	for range r.Intn(3) {
		fields = append(fields, [][]byte{
			append(appendTag(nil, 100, wireBytes), 2, 'a', 'b'),
			append(appendTag(nil, 4000, wireVarint), 0xff, 1),
			append(append(appendTag(nil, 77, wireGroup), appendTag([]byte{8, 1}, 5, wireFixed32)...), 1, 2, 3, 4, 77<<3&0x7f|wireEnd|0x80, 77>>4),
		}[r.Intn(3)])
	}
	r.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	return bytes.Join(fields, nil)
}

func appendTag(b []byte, num int32, wire int) []byte {
	return appendUvarint(b, uint64(num)<<3|uint64(wire))
}

func appendUvarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// sameAsTwin checks a body that may be anything: no panic, an answer of class
// 4xx, memory in proportion, and what the twin makes of it.
func sameAsTwin(t testing.TB, d *Decoder, f Format, p []byte, twin func([]byte) (string, error)) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	body, err := d.Wrap(p)
	require.NoError(t, err)
	b := &batch.Batch{}
	err = d.Decode(f, body, b, Sender{})
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(300*len(p)+256<<10), "memory")
	got := ""
	if err == nil {
		got, err = printBatch(b)
	}
	b.Free()
	want, twinErr := twin(p)
	if err != nil {
		status := refuse.ReasonOf(err).Status()
		require.Equal(t, 4, status/100, "status %d: %v", status, err)
		if twinErr == nil && !stricter(err) {
			t.Fatalf("refused: %v\n% x", err, p)
		}
		return
	}
	require.NoError(t, twinErr, "% x", p)
	require.Equal(t, want, got, "% x", p)
}

// stricter tells errors that the twins don't know: what the specification of
// version 2 forbids, and packed numbers that run over the end of their field.
func stricter(err error) bool {
	for _, s := range []string{"the first symbol", "one of version 1", "are left", "ends within a varint"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}
