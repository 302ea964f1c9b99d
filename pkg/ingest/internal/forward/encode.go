package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// A record of a queue:
//
//	┌───────────────────┬──────────────────────────┬────────┬─────────────────────────────────┐
//	│ samples <uvarint> │ length of tenant <uvarint>│ tenant │ prometheus.WriteRequest, encoded│
//	└───────────────────┴──────────────────────────┴────────┴─────────────────────────────────┘
//
// The requests of two records, one behind the other, are one request with the
// series of both: that is how repeated fields of protobuf are. Checksums are the log's.
const maxHeaderBytes = 2*binary.MaxVarintLen32 + 150

func appendHeader(b []byte, samples int, id tenant.ID) []byte {
	b = binary.AppendUvarint(b, uint64(samples))
	b = binary.AppendUvarint(b, uint64(len(id)))
	return append(b, id...)
}

var errRecord = errors.New("bad record of a queue")

func splitHeader(rec []byte) (samples int, id tenant.ID, request []byte, err error) {
	n, a := binary.Uvarint(rec)
	if a <= 0 || n > math.MaxInt32 {
		return 0, "", nil, fmt.Errorf("%w: number of samples", errRecord)
	}
	length, b := binary.Uvarint(rec[a:])
	if b <= 0 || length > uint64(len(rec)-a-b) {
		return 0, "", nil, fmt.Errorf("%w: tenant", errRecord)
	}
	rest := rec[a+b:]
	return int(n), tenant.ID(rest[:length]), rest[length:], nil
}

// Fields of prometheus.WriteRequest and what is in it (prompb/remote.proto, prompb/types.proto).
const (
	fieldTimeseries, fieldMetadata                                  = 1, 3
	fieldLabels, fieldSamples, fieldExemplars, fieldHistograms      = 1, 2, 3, 4
	fieldName, fieldValue                                           = 1, 2 // of a label
	fieldSampleValue, fieldSampleTime                               = 1, 2
	fieldExemplarLabels, fieldExemplarValue, fieldExemplarTimestamp = 1, 2, 3
)

// appendLabels encodes labels as fields of their message.
func appendLabels(b []byte, field protowire.Number, lset labels.Labels) []byte {
	lset.Range(func(l labels.Label) {
		b = protowire.AppendTag(b, field, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(protowire.SizeTag(fieldName)+protowire.SizeBytes(len(l.Name))+protowire.SizeTag(fieldValue)+protowire.SizeBytes(len(l.Value))))
		b = protowire.AppendTag(b, fieldName, protowire.BytesType)
		b = protowire.AppendString(b, l.Name)
		b = protowire.AppendTag(b, fieldValue, protowire.BytesType)
		b = protowire.AppendString(b, l.Value)
	})
	return b
}

// appendFloat encodes a sample as a field of its series.
func appendFloat(b []byte, f batch.Float) []byte {
	b = protowire.AppendTag(b, fieldSamples, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(protowire.SizeTag(fieldSampleValue)+8+protowire.SizeTag(fieldSampleTime)+protowire.SizeVarint(uint64(f.T))))
	b = protowire.AppendTag(b, fieldSampleValue, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(f.V))
	b = protowire.AppendTag(b, fieldSampleTime, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(f.T))
}

func appendExemplar(b []byte, e exemplar.Exemplar) []byte {
	in := appendLabels(nil, fieldExemplarLabels, e.Labels)
	in = protowire.AppendTag(in, fieldExemplarValue, protowire.Fixed64Type)
	in = protowire.AppendFixed64(in, math.Float64bits(e.Value))
	in = protowire.AppendTag(in, fieldExemplarTimestamp, protowire.VarintType)
	in = protowire.AppendVarint(in, uint64(e.Ts))
	b = protowire.AppendTag(b, fieldExemplars, protowire.BytesType)
	return protowire.AppendBytes(b, in)
}

func appendHistogram(b []byte, h batch.Histogram) ([]byte, error) {
	var pb prompb.Histogram
	if h.H != nil {
		pb = prompb.FromIntHistogram(h.T, h.H)
	} else {
		pb = prompb.FromFloatHistogram(h.T, h.FH)
	}
	in, err := pb.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode histogram: %w", err)
	}
	b = protowire.AppendTag(b, fieldHistograms, protowire.BytesType)
	return protowire.AppendBytes(b, in), nil
}

// appendSeries encodes a series with the labels already encoded.
func appendSeries(dst, scratch, encodedLabels []byte, b *batch.Batch, s *batch.Series) (out, scratchOut []byte, err error) {
	in := append(scratch[:0], encodedLabels...)
	for _, f := range b.Floats[s.Floats.From:s.Floats.To] {
		in = appendFloat(in, f)
	}
	for _, e := range b.Exemplars[s.Exemplars.From:s.Exemplars.To] {
		in = appendExemplar(in, e)
	}
	for _, h := range b.Histograms[s.Histograms.From:s.Histograms.To] {
		if in, err = appendHistogram(in, h); err != nil {
			return dst, in, err
		}
	}
	dst = protowire.AppendTag(dst, fieldTimeseries, protowire.BytesType)
	return protowire.AppendBytes(dst, in), in, nil
}

// typeOf reads a metric's type; the names are those of Prometheus in upper case.
func typeOf(t prompb.MetricMetadata_MetricType) model.MetricType {
	return model.MetricType(strings.ToLower(t.String()))
}

// appendFamily encodes metadata as a field of a WriteRequest.
func appendFamily(b []byte, f batch.Family) ([]byte, error) {
	m := prompb.MetricMetadata{Type: prompb.FromMetadataType(f.Type), MetricFamilyName: f.Name, Help: f.Help, Unit: f.Unit}
	in, err := m.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	b = protowire.AppendTag(b, fieldMetadata, protowire.BytesType)
	return protowire.AppendBytes(b, in), nil
}

// body makes the body of a request to an endpoint from encoded WriteRequests.
func body(kind remoteapi.WriteMessageType, requests []byte) ([]byte, error) {
	if kind == remoteapi.WriteV2MessageType {
		var err error
		if requests, err = asV2(requests); err != nil {
			return nil, err
		}
	}
	return snappy.Encode(nil, requests), nil
}

// asV2 translates a WriteRequest of remote write 1.0.
func asV2(requests []byte) ([]byte, error) {
	var v1 prompb.WriteRequest
	if err := v1.Unmarshal(requests); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	families := map[string]metadata.Metadata{}
	for _, m := range v1.Metadata {
		families[m.MetricFamilyName] = metadata.Metadata{Type: typeOf(m.Type), Help: m.Help, Unit: m.Unit}
	}
	symbols := writev2.NewSymbolTable()
	v2 := writev2.Request{Timeseries: make([]writev2.TimeSeries, 0, len(v1.Timeseries))}
	b := labels.NewScratchBuilder(0)
	for i := range v1.Timeseries {
		v2.Timeseries = append(v2.Timeseries, seriesV2(&v1.Timeseries[i], &b, &symbols, families))
	}
	v2.Symbols = symbols.Symbols()
	out, err := v2.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return out, nil
}

func seriesV2(ts *prompb.TimeSeries, b *labels.ScratchBuilder, symbols *writev2.SymbolsTable, families map[string]metadata.Metadata) writev2.TimeSeries {
	lset := ts.ToLabels(b, nil)
	out := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(lset, nil)}
	if f, ok := families[lset.Get(model.MetricNameLabel)]; ok {
		out.Metadata = writev2.Metadata{Type: writev2.FromMetadataType(f.Type), HelpRef: symbols.Symbolize(f.Help), UnitRef: symbols.Symbolize(f.Unit)}
	}
	for _, s := range ts.Samples {
		out.Samples = append(out.Samples, writev2.Sample{Value: s.Value, Timestamp: s.Timestamp})
	}
	for _, h := range ts.Histograms {
		if h.IsFloatHistogram() {
			out.Histograms = append(out.Histograms, writev2.FromFloatHistogram(0, h.Timestamp, h.ToFloatHistogram()))
			continue
		}
		out.Histograms = append(out.Histograms, writev2.FromIntHistogram(0, h.Timestamp, h.ToIntHistogram()))
	}
	for _, e := range ts.Exemplars {
		ex := e.ToExemplar(b, nil)
		out.Exemplars = append(out.Exemplars, writev2.Exemplar{LabelsRefs: symbols.SymbolizeLabels(ex.Labels, nil), Value: ex.Value, Timestamp: ex.Ts})
	}
	return out
}
