package storeapi

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/prompb"
)

// seconds rounds a duration up, so that a short one does not become none.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// duration makes a duration of a request's seconds, at most the longest there is.
func duration(sec int64) time.Duration {
	return time.Duration(min(max(sec, 0), int64(math.MaxInt64/time.Second))) * time.Second
}

func toEngine(e storepb.EngineType) (string, error) {
	switch e {
	case storepb.EngineType_ENGINE_DEFAULT:
		return "", nil
	case storepb.EngineType_ENGINE_PROMETHEUS:
		return "prometheus", nil
	case storepb.EngineType_ENGINE_THANOS:
		return "thanos", nil
	}
	return "", fmt.Errorf("%w: engine %d is unknown", ErrBadRequest, e)
}

func fromEngine(s string) storepb.EngineType {
	switch s {
	case "prometheus":
		return storepb.EngineType_ENGINE_PROMETHEUS
	case "thanos":
		return storepb.EngineType_ENGINE_THANOS
	}
	return storepb.EngineType_ENGINE_DEFAULT
}

func fromStoreMatchers(in [][]*labels.Matcher) (out []*storepb.StoreMatchers) {
	for _, set := range in {
		out = append(out, &storepb.StoreMatchers{LabelMatchers: fromMatchers(set)})
	}
	return out
}

func toStoreMatchers(in []*storepb.StoreMatchers) (out [][]*labels.Matcher, err error) {
	for _, set := range in {
		ms, err := toMatchers(set.GetLabelMatchers())
		if err != nil {
			return nil, err
		}
		out = append(out, ms)
	}
	return out, nil
}

func fromInstantQuery(q QueryRequest) *storepb.QueryRequest {
	return &storepb.QueryRequest{
		Query: q.Expr, TimeSeconds: q.Start.Unix(), TimeoutSeconds: seconds(q.Timeout), MaxResolutionSeconds: seconds(q.MaxResolution),
		ReplicaLabels: q.ReplicaLabels, StoreMatchers: fromStoreMatchers(q.StoreMatchers),
		EnableDedup: q.Dedup, EnablePartialResponse: q.PartialResponse, SkipChunks: q.SkipChunks,
		ShardInfo: fromShard(q.Shard), LookbackDeltaSeconds: seconds(q.Lookback), Engine: fromEngine(q.Engine), ResponseBatchSize: batchSize,
	}
}

func fromRangeQuery(q QueryRequest) *storepb.QueryRangeRequest {
	return &storepb.QueryRangeRequest{
		Query: q.Expr, StartTimeSeconds: q.Start.Unix(), EndTimeSeconds: q.End.Unix(), IntervalSeconds: seconds(q.Step),
		TimeoutSeconds: seconds(q.Timeout), MaxResolutionSeconds: seconds(q.MaxResolution),
		ReplicaLabels: q.ReplicaLabels, StoreMatchers: fromStoreMatchers(q.StoreMatchers),
		EnableDedup: q.Dedup, EnablePartialResponse: q.PartialResponse, SkipChunks: q.SkipChunks,
		ShardInfo: fromShard(q.Shard), LookbackDeltaSeconds: seconds(q.Lookback), Engine: fromEngine(q.Engine), ResponseBatchSize: batchSize,
	}
}

// queryMessage is what both requests have in common.
type queryMessage interface {
	GetQuery() string
	GetTimeoutSeconds() int64
	GetMaxResolutionSeconds() int64
	GetReplicaLabels() []string
	GetStoreMatchers() []*storepb.StoreMatchers
	GetEnableDedup() bool
	GetEnablePartialResponse() bool
	GetSkipChunks() bool
	GetShardInfo() *storepb.ShardInfo
	GetLookbackDeltaSeconds() int64
	GetEngine() storepb.EngineType
}

// toQuery decodes all but the times of a request.
func toQuery(m queryMessage) (q QueryRequest, err error) {
	q = QueryRequest{
		Expr: m.GetQuery(), Timeout: duration(m.GetTimeoutSeconds()), Lookback: duration(m.GetLookbackDeltaSeconds()),
		MaxResolution: duration(m.GetMaxResolutionSeconds()), ReplicaLabels: m.GetReplicaLabels(),
		Dedup: m.GetEnableDedup(), PartialResponse: m.GetEnablePartialResponse(), SkipChunks: m.GetSkipChunks(),
	}
	if q.StoreMatchers, err = toStoreMatchers(m.GetStoreMatchers()); err != nil {
		return q, err
	}
	if q.Shard, err = toShard(m.GetShardInfo()); err != nil {
		return q, err
	}
	q.Engine, err = toEngine(m.GetEngine())
	return q, err
}

func toInstantQuery(m *storepb.QueryRequest) (QueryRequest, error) {
	q, err := toQuery(m)
	q.Start = time.Unix(m.TimeSeconds, 0)
	q.End = q.Start
	return q, err
}

func toRangeQuery(m *storepb.QueryRangeRequest) (QueryRequest, error) {
	q, err := toQuery(m)
	q.Start, q.End, q.Step = time.Unix(m.StartTimeSeconds, 0), time.Unix(m.EndTimeSeconds, 0), duration(m.IntervalSeconds)
	if err == nil && q.Step <= 0 {
		err = fmt.Errorf("%w: interval_seconds must be above 0", ErrBadRequest)
	}
	return q, err
}

// fromValue makes the series of a result. Scalars are one series without labels.
func fromValue(r QueryResult) ([]*prompb.TimeSeries, error) {
	var out []*prompb.TimeSeries
	switch v := r.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			ts := &prompb.TimeSeries{Labels: fromLabels(s.Metric)}
			addPoint(ts, s.T, s.F, s.H)
			out = append(out, ts)
		}
	case promql.Matrix:
		for _, s := range v {
			ts := &prompb.TimeSeries{Labels: fromLabels(s.Metric)}
			for _, p := range s.Floats {
				addPoint(ts, p.T, p.F, nil)
			}
			for _, p := range s.Histograms {
				addPoint(ts, p.T, 0, p.H)
			}
			out = append(out, ts)
		}
	case promql.Scalar:
		ts := &prompb.TimeSeries{}
		addPoint(ts, v.T, v.V, nil)
		out = append(out, ts)
	case nil:
	default:
		return nil, fmt.Errorf("%w: a result of type %s can't be sent", ErrBadRequest, v.Type())
	}
	return out, nil
}

func addPoint(ts *prompb.TimeSeries, t int64, f float64, h *histogram.FloatHistogram) {
	if h != nil {
		ts.Histograms = append(ts.Histograms, fromHistogram(t, h))
		return
	}
	ts.Samples = append(ts.Samples, &prompb.Sample{Timestamp: t, Value: f})
}

// addSample appends the last point of a series to a vector.
func addSample(out promql.Vector, ts *prompb.TimeSeries) promql.Vector {
	s := promql.Sample{Metric: toLabels(ts.Labels)}
	switch {
	case len(ts.Histograms) > 0:
		s.T, s.H = toHistogram(ts.Histograms[len(ts.Histograms)-1])
	case len(ts.Samples) > 0:
		last := ts.Samples[len(ts.Samples)-1]
		s.T, s.F = last.Timestamp, last.Value
	default:
		return out
	}
	return append(out, s)
}

func addSeries(out promql.Matrix, ts *prompb.TimeSeries) promql.Matrix {
	s := promql.Series{Metric: toLabels(ts.Labels)}
	for _, p := range ts.Samples {
		s.Floats = append(s.Floats, promql.FPoint{T: p.Timestamp, F: p.Value})
	}
	for _, p := range ts.Histograms {
		t, h := toHistogram(p)
		s.Histograms = append(s.Histograms, promql.HPoint{T: t, H: h})
	}
	return append(out, s)
}

func fromHistogram(t int64, h *histogram.FloatHistogram) *prompb.Histogram {
	return &prompb.Histogram{
		Count: &prompb.Histogram_CountFloat{CountFloat: h.Count}, Sum: h.Sum, Schema: h.Schema,
		ZeroThreshold: h.ZeroThreshold, ZeroCount: &prompb.Histogram_ZeroCountFloat{ZeroCountFloat: h.ZeroCount},
		NegativeSpans: fromSpans(h.NegativeSpans), NegativeCounts: h.NegativeBuckets,
		PositiveSpans: fromSpans(h.PositiveSpans), PositiveCounts: h.PositiveBuckets,
		ResetHint: prompb.Histogram_ResetHint(h.CounterResetHint), Timestamp: t, CustomValues: h.CustomValues,
	}
}

// toHistogram takes integer histograms too.
func toHistogram(in *prompb.Histogram) (int64, *histogram.FloatHistogram) {
	h := &histogram.FloatHistogram{
		CounterResetHint: histogram.CounterResetHint(in.ResetHint), Schema: in.Schema, Sum: in.Sum, ZeroThreshold: in.ZeroThreshold,
		PositiveSpans: toSpans(in.PositiveSpans), NegativeSpans: toSpans(in.NegativeSpans), CustomValues: in.CustomValues,
	}
	if _, ok := in.Count.(*prompb.Histogram_CountInt); ok {
		h.Count, h.ZeroCount = float64(in.GetCountInt()), float64(in.GetZeroCountInt())
		h.PositiveBuckets, h.NegativeBuckets = sums(in.PositiveDeltas), sums(in.NegativeDeltas)
		return in.Timestamp, h
	}
	h.Count, h.ZeroCount = in.GetCountFloat(), in.GetZeroCountFloat()
	h.PositiveBuckets, h.NegativeBuckets = in.PositiveCounts, in.NegativeCounts
	return in.Timestamp, h
}

func sums(deltas []int64) (out []float64) {
	sum := int64(0)
	for _, d := range deltas {
		sum += d
		out = append(out, float64(sum))
	}
	return out
}

func fromSpans(in []histogram.Span) (out []*prompb.BucketSpan) {
	for _, s := range in {
		out = append(out, &prompb.BucketSpan{Offset: s.Offset, Length: s.Length})
	}
	return out
}

func toSpans(in []*prompb.BucketSpan) (out []histogram.Span) {
	for _, s := range in {
		out = append(out, histogram.Span{Offset: s.Offset, Length: s.Length})
	}
	return out
}
