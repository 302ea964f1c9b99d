package storeapi

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/prometheus/prometheus/promql"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/prompb"
)

// receiveAll hands each message of a stream to take, until its end or the first error.
func receiveAll[T any](c *Client, stream grpc.ServerStreamingClient[T], err error, take func(*T) error) error {
	if err != nil {
		return FromStatus(c.name, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return FromStatus(c.name, err)
		}
		if err := take(m); err != nil {
			return err
		}
	}
}

// wireLimit is a limit as those messages have it that know values below 0, for none.
func wireLimit(n int) int32 { return int32(min(max(n, -1), math.MaxInt32)) }

// Rules implements RulesSource.
func (c *Client) Rules(ctx context.Context, req RulesRequest, partial bool) (groups []RuleGroup, warnings []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := storepb.NewRulesClient(c.conn).Rules(ctx, fromRulesRequest(req, partial), c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.RulesResponse) error {
		switch r := m.Result.(type) {
		case *storepb.RulesResponse_Group:
			groups = append(groups, toRuleGroup(r.Group))
		case *storepb.RulesResponse_Warning:
			return c.warn(&warnings, r.Warning, partial)
		}
		return nil
	})
	return groups, warnings, err
}

// Targets implements TargetsSource.
func (c *Client) Targets(ctx context.Context, state TargetState, partial bool) (targets Targets, warnings []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := &storepb.TargetsRequest{State: storepb.TargetsRequest_State(state), PartialResponseStrategy: strategy(partial)}
	stream, err := storepb.NewTargetsClient(c.conn).Targets(ctx, req, c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.TargetsResponse) error {
		switch r := m.Result.(type) {
		case *storepb.TargetsResponse_Targets:
			addTargets(&targets, r.Targets)
		case *storepb.TargetsResponse_Warning:
			return c.warn(&warnings, r.Warning, partial)
		}
		return nil
	})
	return targets, warnings, err
}

// Metadata implements MetadataSource.
func (c *Client) Metadata(ctx context.Context, metric string, limit int, partial bool) (metadata map[string][]Metadata, warnings []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	metadata = map[string][]Metadata{}
	req := &storepb.MetricMetadataRequest{Metric: metric, Limit: wireLimit(limit), PartialResponseStrategy: strategy(partial)}
	stream, err := storepb.NewMetadataClient(c.conn).MetricMetadata(ctx, req, c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.MetricMetadataResponse) error {
		switch r := m.Result.(type) {
		case *storepb.MetricMetadataResponse_Metadata:
			addMetadata(metadata, r.Metadata)
		case *storepb.MetricMetadataResponse_Warning:
			return c.warn(&warnings, r.Warning, partial)
		}
		return nil
	})
	return metadata, warnings, err
}

// Exemplars implements ExemplarsSource.
func (c *Client) Exemplars(ctx context.Context, query string, start, end int64, partial bool) (series []ExemplarSeries, warnings []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := &storepb.ExemplarsRequest{Query: query, Start: start, End: end, PartialResponseStrategy: strategy(partial)}
	stream, err := storepb.NewExemplarsClient(c.conn).Exemplars(ctx, req, c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.ExemplarsResponse) error {
		switch r := m.Result.(type) {
		case *storepb.ExemplarsResponse_Data:
			series = append(series, toExemplars(r.Data))
		case *storepb.ExemplarsResponse_Warning:
			return c.warn(&warnings, r.Warning, partial)
		}
		return nil
	})
	return series, warnings, err
}

// TSDBStats implements StatusSource.
func (c *Client) TSDBStats(ctx context.Context, limit int, partial bool) (stats map[string]TSDBStats, warnings []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stats = map[string]TSDBStats{}
	req := &storepb.TSDBStatisticsRequest{Limit: wireLimit(limit), PartialResponseStrategy: strategy(partial)}
	stream, err := storepb.NewStatusClient(c.conn).TSDBStatistics(ctx, req, c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.TSDBStatisticsResponse) error {
		switch r := m.Result.(type) {
		case *storepb.TSDBStatisticsResponse_Statistics:
			addTSDBStats(stats, r.Statistics)
		case *storepb.TSDBStatisticsResponse_Warning:
			return c.warn(&warnings, r.Warning, partial)
		}
		return nil
	})
	return stats, warnings, err
}

// Query implements QuerySource: an instant query where req.Step is 0, else a range query.
func (c *Client) Query(ctx context.Context, req QueryRequest) (QueryResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if req.Step == 0 {
		return c.queryInstant(ctx, req)
	}
	return c.queryRange(ctx, req)
}

func (c *Client) queryInstant(ctx context.Context, req QueryRequest) (out QueryResult, err error) {
	vector := promql.Vector{}
	stream, err := storepb.NewQueryClient(c.conn).Query(ctx, fromInstantQuery(req), c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.QueryResponse) error {
		c.takePart(&out, queryPart(m), func(ts *prompb.TimeSeries) { vector = addSample(vector, ts) })
		return nil
	})
	out.Value = vector
	return out, err
}

func (c *Client) queryRange(ctx context.Context, req QueryRequest) (out QueryResult, err error) {
	matrix := promql.Matrix{}
	stream, err := storepb.NewQueryClient(c.conn).QueryRange(ctx, fromRangeQuery(req), c.call...)
	err = receiveAll(c, stream, err, func(m *storepb.QueryRangeResponse) error {
		c.takePart(&out, queryPart(m), func(ts *prompb.TimeSeries) { matrix = addSeries(matrix, ts) })
		return nil
	})
	out.Value = matrix
	return out, err
}

// queryFrame is what the frames of both methods have in common.
type queryFrame interface {
	GetWarnings() string
	GetTimeseries() *prompb.TimeSeries
	GetTimeseriesBatch() *storepb.TimeSeriesBatch
	GetStats() *storepb.QueryStats
}

func queryPart(m queryFrame) part {
	p := part{warning: m.GetWarnings(), stats: m.GetStats(), series: m.GetTimeseriesBatch().GetSeries()}
	if ts := m.GetTimeseries(); ts != nil {
		p.series = []*prompb.TimeSeries{ts}
	}
	return p
}

func (c *Client) takePart(out *QueryResult, p part, add func(*prompb.TimeSeries)) {
	for _, ts := range p.series {
		add(ts)
	}
	if p.stats != nil {
		out.SamplesTotal += p.stats.SamplesTotal
		out.PeakSamples = max(out.PeakSamples, p.stats.PeakSamples)
	}
	if p.warning != "" { // annotations of PromQL travel so too, hence it is never a reason to fail
		out.Warnings = append(out.Warnings, c.name+": "+plainText(p.warning))
	}
}
