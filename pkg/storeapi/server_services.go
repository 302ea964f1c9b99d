package storeapi

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/prompb"
)

// missing is the answer of a service that the endpoint does not have.
func missing(what string) error { return toStatus(fmt.Errorf("%w: %s", ErrUnimplemented, what)) }

// sendAll sends frames, and then warnings as frames made by warn.
func sendAll[T any](stream grpc.ServerStreamingServer[T], frames []*T, warnings []string, warn func(string) *T) error {
	for _, f := range frames {
		if err := stream.Send(f); err != nil {
			return err
		}
	}
	for _, w := range warnings {
		if err := stream.Send(warn(w)); err != nil {
			return err
		}
	}
	return nil
}

type rulesServer struct {
	storepb.UnimplementedRulesServer
	handler
}

func (s *rulesServer) Rules(req *storepb.RulesRequest, stream grpc.ServerStreamingServer[storepb.RulesResponse]) error {
	if s.svc.Rules == nil {
		return missing("rules")
	}
	r, err := toRulesRequest(req)
	if err != nil {
		return toStatus(err)
	}
	groups, warnings, err := s.svc.Rules.Rules(stream.Context(), r, isPartial(false, req.PartialResponseStrategy))
	if err != nil {
		return s.fail(stream.Context(), "Rules", err)
	}
	var frames []*storepb.RulesResponse
	for _, g := range groups {
		frames = append(frames, &storepb.RulesResponse{Result: &storepb.RulesResponse_Group{Group: fromRuleGroup(g)}})
	}
	return sendAll(stream, frames, warnings, func(w string) *storepb.RulesResponse {
		return &storepb.RulesResponse{Result: &storepb.RulesResponse_Warning{Warning: w}}
	})
}

type targetsServer struct {
	storepb.UnimplementedTargetsServer
	handler
}

func (s *targetsServer) Targets(req *storepb.TargetsRequest, stream grpc.ServerStreamingServer[storepb.TargetsResponse]) error {
	if s.svc.Targets == nil {
		return missing("targets")
	}
	if req.State < storepb.TargetsRequest_ANY || req.State > storepb.TargetsRequest_DROPPED {
		return toStatus(fmt.Errorf("%w: target state %d is unknown", ErrBadRequest, req.State))
	}
	targets, warnings, err := s.svc.Targets.Targets(stream.Context(), TargetState(req.State), isPartial(false, req.PartialResponseStrategy))
	if err != nil {
		return s.fail(stream.Context(), "Targets", err)
	}
	frame := &storepb.TargetsResponse{Result: &storepb.TargetsResponse_Targets{Targets: fromTargets(targets)}}
	return sendAll(stream, []*storepb.TargetsResponse{frame}, warnings, func(w string) *storepb.TargetsResponse {
		return &storepb.TargetsResponse{Result: &storepb.TargetsResponse_Warning{Warning: w}}
	})
}

type metadataServer struct {
	storepb.UnimplementedMetadataServer
	handler
}

func (s *metadataServer) MetricMetadata(req *storepb.MetricMetadataRequest, stream grpc.ServerStreamingServer[storepb.MetricMetadataResponse]) error {
	if s.svc.Metadata == nil {
		return missing("metric metadata")
	}
	metadata, warnings, err := s.svc.Metadata.Metadata(stream.Context(), req.Metric, int(req.Limit), isPartial(false, req.PartialResponseStrategy))
	if err != nil {
		return s.fail(stream.Context(), "MetricMetadata", err)
	}
	frame := &storepb.MetricMetadataResponse{Result: &storepb.MetricMetadataResponse_Metadata{Metadata: fromMetadata(metadata)}}
	return sendAll(stream, []*storepb.MetricMetadataResponse{frame}, warnings, func(w string) *storepb.MetricMetadataResponse {
		return &storepb.MetricMetadataResponse{Result: &storepb.MetricMetadataResponse_Warning{Warning: w}}
	})
}

type exemplarsServer struct {
	storepb.UnimplementedExemplarsServer
	handler
}

func (s *exemplarsServer) Exemplars(req *storepb.ExemplarsRequest, stream grpc.ServerStreamingServer[storepb.ExemplarsResponse]) error {
	if s.svc.Exemplars == nil {
		return missing("exemplars")
	}
	series, warnings, err := s.svc.Exemplars.Exemplars(stream.Context(), req.Query, req.Start, req.End, isPartial(false, req.PartialResponseStrategy))
	if err != nil {
		return s.fail(stream.Context(), "Exemplars", err)
	}
	var frames []*storepb.ExemplarsResponse
	for _, e := range series {
		frames = append(frames, &storepb.ExemplarsResponse{Result: &storepb.ExemplarsResponse_Data{Data: fromExemplars(e)}})
	}
	return sendAll(stream, frames, warnings, func(w string) *storepb.ExemplarsResponse {
		return &storepb.ExemplarsResponse{Result: &storepb.ExemplarsResponse_Warning{Warning: w}}
	})
}

type statusServer struct {
	storepb.UnimplementedStatusServer
	handler
}

func (s *statusServer) TSDBStatistics(req *storepb.TSDBStatisticsRequest, stream grpc.ServerStreamingServer[storepb.TSDBStatisticsResponse]) error {
	if s.svc.Status == nil {
		return missing("TSDB statistics")
	}
	stats, warnings, err := s.svc.Status.TSDBStats(stream.Context(), int(req.Limit), isPartial(false, req.PartialResponseStrategy))
	if err != nil {
		return s.fail(stream.Context(), "TSDBStatistics", err)
	}
	if req.Tenant != "" {
		for tenant := range stats {
			if tenant != req.Tenant {
				delete(stats, tenant)
			}
		}
	}
	frame := &storepb.TSDBStatisticsResponse{Result: &storepb.TSDBStatisticsResponse_Statistics{Statistics: fromTSDBStats(stats)}}
	return sendAll(stream, []*storepb.TSDBStatisticsResponse{frame}, warnings, func(w string) *storepb.TSDBStatisticsResponse {
		return &storepb.TSDBStatisticsResponse{Result: &storepb.TSDBStatisticsResponse_Warning{Warning: w}}
	})
}

type queryServer struct {
	storepb.UnimplementedQueryServer
	handler
}

func (s *queryServer) Query(req *storepb.QueryRequest, stream grpc.ServerStreamingServer[storepb.QueryResponse]) error {
	if s.svc.Query == nil {
		return missing("queries")
	}
	q, err := toInstantQuery(req)
	if err != nil {
		return toStatus(err)
	}
	result, err := s.svc.Query.Query(stream.Context(), q)
	if err != nil {
		return s.fail(stream.Context(), "Query", err)
	}
	return s.send(result, req.ResponseBatchSize, func(p part) error { return stream.Send(p.instant()) })
}

func (s *queryServer) QueryRange(req *storepb.QueryRangeRequest, stream grpc.ServerStreamingServer[storepb.QueryRangeResponse]) error {
	if s.svc.Query == nil {
		return missing("queries")
	}
	q, err := toRangeQuery(req)
	if err != nil {
		return toStatus(err)
	}
	result, err := s.svc.Query.Query(stream.Context(), q)
	if err != nil {
		return s.fail(stream.Context(), "QueryRange", err)
	}
	return s.send(result, req.ResponseBatchSize, func(p part) error { return stream.Send(p.ranged()) })
}

// send sends a result: warnings, series (in batches to who asks for them), statistics.
func (s *queryServer) send(r QueryResult, batch int64, send func(part) error) error {
	series, err := fromValue(r)
	if err != nil {
		return toStatus(err)
	}
	var parts []part
	for _, w := range r.Warnings {
		parts = append(parts, part{warning: w})
	}
	for len(series) > 0 {
		n := int(min(max(batch, 1), int64(len(series))))
		parts = append(parts, part{series: series[:n], batch: batch > 1})
		series = series[n:]
	}
	parts = append(parts, part{stats: &storepb.QueryStats{SamplesTotal: r.SamplesTotal, PeakSamples: r.PeakSamples}})
	for _, p := range parts {
		if err := send(p); err != nil {
			return err
		}
	}
	return nil
}

// part is a frame of a query's answer, for either method: one of its fields.
type part struct {
	warning string
	series  []*prompb.TimeSeries
	batch   bool
	stats   *storepb.QueryStats
}

func (p part) instant() *storepb.QueryResponse {
	switch {
	case p.stats != nil:
		return &storepb.QueryResponse{Result: &storepb.QueryResponse_Stats{Stats: p.stats}}
	case p.batch:
		return &storepb.QueryResponse{Result: &storepb.QueryResponse_TimeseriesBatch{TimeseriesBatch: &storepb.TimeSeriesBatch{Series: p.series}}}
	case len(p.series) > 0:
		return &storepb.QueryResponse{Result: &storepb.QueryResponse_Timeseries{Timeseries: p.series[0]}}
	}
	return &storepb.QueryResponse{Result: &storepb.QueryResponse_Warnings{Warnings: p.warning}}
}

func (p part) ranged() *storepb.QueryRangeResponse {
	switch {
	case p.stats != nil:
		return &storepb.QueryRangeResponse{Result: &storepb.QueryRangeResponse_Stats{Stats: p.stats}}
	case p.batch:
		return &storepb.QueryRangeResponse{Result: &storepb.QueryRangeResponse_TimeseriesBatch{TimeseriesBatch: &storepb.TimeSeriesBatch{Series: p.series}}}
	case len(p.series) > 0:
		return &storepb.QueryRangeResponse{Result: &storepb.QueryRangeResponse_Timeseries{Timeseries: p.series[0]}}
	}
	return &storepb.QueryRangeResponse{Result: &storepb.QueryRangeResponse_Warnings{Warnings: p.warning}}
}
