package storeapi_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storepb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/labelpb"
	"github.com/firnline/firnline/pkg/storeapi/storepb/prompb"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// canned answers every service with what it holds, and keeps what it was asked.
type canned struct {
	groups    []storeapi.RuleGroup
	targets   storeapi.Targets
	metadata  map[string][]storeapi.Metadata
	exemplars []storeapi.ExemplarSeries
	stats     map[string]storeapi.TSDBStats
	result    storeapi.QueryResult
	warnings  []string
	err       error

	asked []any
}

func (c *canned) ask(what ...any) { c.asked = what }

func (c *canned) Rules(_ context.Context, req storeapi.RulesRequest, partial bool) ([]storeapi.RuleGroup, []string, error) {
	c.ask(req, partial)
	return c.groups, c.warnings, c.err
}

func (c *canned) Targets(_ context.Context, state storeapi.TargetState, partial bool) (storeapi.Targets, []string, error) {
	c.ask(state, partial)
	return c.targets, c.warnings, c.err
}

func (c *canned) Metadata(_ context.Context, metric string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	c.ask(metric, limit, partial)
	return c.metadata, c.warnings, c.err
}

func (c *canned) Exemplars(_ context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	c.ask(query, start, end, partial)
	return c.exemplars, c.warnings, c.err
}

func (c *canned) TSDBStats(_ context.Context, limit int, partial bool) (map[string]storeapi.TSDBStats, []string, error) {
	c.ask(limit, partial)
	return c.stats, c.warnings, c.err
}

func (c *canned) Query(_ context.Context, req storeapi.QueryRequest) (storeapi.QueryResult, error) {
	c.ask(req)
	return c.result, c.err
}

func dialCanned(t *testing.T, c *canned) *storeapi.Client {
	return remote(t, storeapi.Services{
		Store: storetest.NewFake(nil, storeapi.Info{}), Rules: c, Targets: c, Metadata: c, Exemplars: c, Status: c, Query: c,
	})
}

func TestInfoOfServices(t *testing.T) {
	info, err := dialCanned(t, &canned{}).Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, storeapi.ServiceSet{
		Store: true, Rules: true, Targets: true, Metadata: true, Exemplars: true, Query: true, Status: true,
		ExemplarsMint: -1 << 63, ExemplarsMaxt: 1<<63 - 1,
	}, info.Services)
}

func TestRulesOverTheWire(t *testing.T) {
	at := time.Unix(1700000000, 5).UTC()
	c := &canned{warnings: []string{"half"}, groups: []storeapi.RuleGroup{{
		Name: "g", File: "f", Interval: 1.5, Limit: 3, EvaluationTime: 2.5, LastEvaluation: at, PartialResponseStrategy: "ABORT",
		Rules: []storeapi.Rule{
			{
				Type: "recording", Name: "r", Query: "up", Labels: labels.FromStrings("a", "1"), Health: "ok", LastError: "e",
				EvaluationTime: 1, LastEvaluation: at,
			},
			{
				Type: "alerting", Name: "al", Query: "up == 0", Labels: labels.FromStrings("a", "1"), Health: "err", EvaluationTime: 1, LastEvaluation: at,
				State: "firing", Duration: 60, KeepFiringFor: 30, Annotations: labels.FromStrings("s", "x"),
				Alerts: []storeapi.Alert{
					{Labels: labels.FromStrings("b", "2"), Annotations: labels.FromStrings("s", "x"), State: "pending", ActiveAt: &at, Value: "1e+00", PartialResponseStrategy: "WARN"},
					{State: "inactive", PartialResponseStrategy: "WARN"},
				},
			},
			{Type: "alerting", State: "unknown", Alerts: []storeapi.Alert{}},
		},
	}}}
	client := dialCanned(t, c)
	req := storeapi.RulesRequest{
		Type: storeapi.RulesAlerting, Names: []string{"n"}, Groups: []string{"g"}, Files: []string{"f"},
		Matchers: [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, "a", `x"\d`), labels.MustNewMatcher(labels.MatchNotEqual, "näme", "1")}},
	}
	got, warnings, err := client.Rules(t.Context(), req, true)
	require.NoError(t, err)
	require.Equal(t, []string{"peer-1: half"}, warnings)
	require.Equal(t, c.groups, got)
	asked := c.asked[0].(storeapi.RulesRequest)
	require.Equal(t, true, c.asked[1])
	require.Len(t, asked.Matchers, 1)
	for i, m := range asked.Matchers[0] {
		require.Equal(t, req.Matchers[0][i].String(), m.String())
	}
	asked.Matchers, req.Matchers = nil, nil
	require.Equal(t, req, asked)

	_, _, err = client.Rules(t.Context(), req, false)
	require.ErrorIs(t, err, storeapi.ErrPartial)
}

func TestTargetsOverTheWire(t *testing.T) {
	at := time.Unix(1700000000, 5).UTC()
	c := &canned{targets: storeapi.Targets{
		Active: []storeapi.ActiveTarget{
			{DiscoveredLabels: labels.FromStrings("d", "1"), Labels: labels.FromStrings("a", "1"), ScrapePool: "p", ScrapeURL: "u", GlobalURL: "g", LastError: "e", LastScrape: at, LastScrapeDuration: 0.5, Health: "up"},
			{Health: "down"}, {Health: "unknown"},
		},
		Dropped: []storeapi.DroppedTarget{{DiscoveredLabels: labels.FromStrings("d", "2")}},
	}}
	got, _, err := dialCanned(t, c).Targets(t.Context(), storeapi.TargetsDropped, false)
	require.NoError(t, err)
	require.Equal(t, c.targets, got)
	require.Equal(t, []any{storeapi.TargetsDropped, false}, c.asked)
}

func TestMetadataOverTheWire(t *testing.T) {
	c := &canned{metadata: map[string][]storeapi.Metadata{"up": {{Type: "gauge", Help: "h", Unit: "u"}, {Type: "counter"}}}}
	client := dialCanned(t, c)
	got, _, err := client.Metadata(t.Context(), "up", -1, true)
	require.NoError(t, err)
	require.Equal(t, c.metadata, got)
	require.Equal(t, []any{"up", -1, true}, c.asked)
	_, _, err = client.Metadata(t.Context(), "", 0, true)
	require.NoError(t, err)
	require.Equal(t, []any{"", 0, true}, c.asked)
}

func TestExemplarsOverTheWire(t *testing.T) {
	c := &canned{exemplars: []storeapi.ExemplarSeries{
		{SeriesLabels: labels.FromStrings("a", "1"), Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 1.5, Ts: 7, HasTs: true}}},
		{SeriesLabels: labels.FromStrings("a", "2")},
	}}
	got, _, err := dialCanned(t, c).Exemplars(t.Context(), "up", -1, 5, true)
	require.NoError(t, err)
	require.Equal(t, c.exemplars, got)
	require.Equal(t, []any{"up", int64(-1), int64(5), true}, c.asked)
}

func TestStatusOverTheWire(t *testing.T) {
	one := storeapi.TSDBStats{
		HeadStats:               storeapi.HeadStats{NumSeries: 1, NumLabelPairs: 2, ChunkCount: 3, MinTime: -4, MaxTime: 5},
		SeriesCountByMetricName: []storeapi.Stat{{Name: "up", Value: 1}}, LabelValueCountByLabelName: []storeapi.Stat{{Name: "a", Value: 2}},
		MemoryInBytesByLabelName: []storeapi.Stat{{Name: "b", Value: 3}}, SeriesCountByLabelValuePair: []storeapi.Stat{},
	}
	c := &canned{stats: map[string]storeapi.TSDBStats{"": one, "team-a": one}}
	got, _, err := dialCanned(t, c).TSDBStats(t.Context(), 10, true)
	require.NoError(t, err)
	require.Equal(t, c.stats, got)
	require.Equal(t, []any{10, true}, c.asked)
}

func TestQueryOverTheWire(t *testing.T) {
	h := tsdbutil.GenerateTestFloatHistogram(3)
	custom := tsdbutil.GenerateTestCustomBucketsFloatHistogram(3)
	vector := promql.Vector{
		{Metric: labels.FromStrings("a", "1"), T: 5, F: 1.5},
		{Metric: labels.FromStrings("a", "2"), T: 5, H: h},
	}
	matrix := promql.Matrix{
		{Metric: labels.FromStrings("a", "1"), Floats: []promql.FPoint{{T: 1, F: 2}, {T: 2, F: 3}}, Histograms: []promql.HPoint{{T: 3, H: h}}},
		{Metric: labels.FromStrings("a", "2"), Histograms: []promql.HPoint{{T: 3, H: custom}}},
	}
	base := storeapi.QueryRequest{
		Expr: "sum(up)", Start: time.Unix(100, 0), End: time.Unix(200, 0), Timeout: 30 * time.Second, Lookback: time.Minute, MaxResolution: 5 * time.Minute,
		ReplicaLabels: []string{"r"}, Dedup: true, PartialResponse: true, SkipChunks: true, Engine: "thanos",
		Shard: &storeapi.Shard{Index: 1, Total: 2, Labels: []string{"x"}},
	}
	ranged, instant := base, base
	ranged.Step, instant.End = 15*time.Second, instant.Start
	for _, tc := range []struct {
		name  string
		req   storeapi.QueryRequest
		value any
		want  any
	}{
		{"vector", instant, vector, vector},
		{"matrix", ranged, matrix, matrix},
		{"scalar", instant, promql.Scalar{T: 1, V: 2}, promql.Vector{{T: 1, F: 2}}},
		{"nothing", instant, promql.Vector{}, promql.Vector{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &canned{result: storeapi.QueryResult{Warnings: []string{"w"}, SamplesTotal: 7, PeakSamples: 8}}
			switch v := tc.value.(type) {
			case promql.Vector:
				c.result.Value = v
			case promql.Matrix:
				c.result.Value = v
			case promql.Scalar:
				c.result.Value = v
			}
			got, err := dialCanned(t, c).Query(t.Context(), tc.req)
			require.NoError(t, err)
			require.Equal(t, []any{tc.req}, c.asked)
			require.Equal(t, tc.want, got.Value)
			require.Equal(t, []string{"peer-1: w"}, got.Warnings)
			require.Equal(t, []int64{7, 8}, []int64{got.SamplesTotal, got.PeakSamples})
		})
	}
	c := &canned{err: storeapi.ErrLimit}
	_, err := dialCanned(t, c).Query(t.Context(), ranged)
	require.ErrorIs(t, err, storeapi.ErrLimit)
}

// matrixPeer answers range queries with integer histograms, as Thanos' engine may.
type matrixPeer struct {
	storepb.UnimplementedQueryServer
}

func (matrixPeer) QueryRange(_ *storepb.QueryRangeRequest, s grpc.ServerStreamingServer[storepb.QueryRangeResponse]) error {
	return s.Send(&storepb.QueryRangeResponse{Result: &storepb.QueryRangeResponse_Timeseries{Timeseries: &prompb.TimeSeries{
		Labels: []*labelpb.Label{{Name: "a", Value: "1"}},
		Histograms: []*prompb.Histogram{{
			Timestamp: 5, Count: &prompb.Histogram_CountInt{CountInt: 9}, ZeroCount: &prompb.Histogram_ZeroCountInt{ZeroCountInt: 2}, Sum: 3,
			PositiveSpans: []*prompb.BucketSpan{{Offset: -1, Length: 2}}, PositiveDeltas: []int64{3, 1},
		}},
	}}})
}

func TestIntegerHistogramsOfQueries(t *testing.T) {
	conn := listen(t, false, func(s *grpc.Server) { storepb.RegisterQueryServer(s, matrixPeer{}) })
	got, err := storeapi.NewClient(conn, "peer-1").Query(t.Context(), storeapi.QueryRequest{Step: time.Second})
	require.NoError(t, err)
	require.Equal(t, promql.Matrix{{Metric: labels.FromStrings("a", "1"), Histograms: []promql.HPoint{{T: 5, H: &histogram.FloatHistogram{
		Count: 9, ZeroCount: 2, Sum: 3, PositiveSpans: []histogram.Span{{Offset: -1, Length: 2}}, PositiveBuckets: []float64{3, 4},
	}}}}}, got.Value)
}

// A service that is not there is ErrUnimplemented, and so is one that the peer never heard of.
func TestMissingServices(t *testing.T) {
	bare := listen(t, false, func(*grpc.Server) {})
	for name, c := range map[string]*storeapi.Client{
		"nil service": remote(t, storeapi.Services{Store: storetest.NewFake(nil, storeapi.Info{})}),
		"unknown":     storeapi.NewClient(bare, "peer-1"),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			_, _, rules := c.Rules(ctx, storeapi.RulesRequest{}, true)
			_, _, targets := c.Targets(ctx, storeapi.TargetsAny, true)
			_, _, metadata := c.Metadata(ctx, "", -1, true)
			_, _, exemplars := c.Exemplars(ctx, "up", 0, 1, true)
			_, _, stats := c.TSDBStats(ctx, 1, true)
			_, instant := c.Query(ctx, storeapi.QueryRequest{})
			_, ranged := c.Query(ctx, storeapi.QueryRequest{Step: time.Second})
			for _, err := range []error{rules, targets, metadata, exemplars, stats, instant, ranged} {
				require.ErrorIs(t, err, storeapi.ErrUnimplemented)
				require.ErrorContains(t, err, "peer-1: ")
			}
		})
	}
}

func TestServiceErrors(t *testing.T) {
	c := &canned{err: errors.Join(storeapi.ErrUnavailable, errors.New("Prometheus is starting"))}
	client := dialCanned(t, c)
	_, _, err := client.Rules(t.Context(), storeapi.RulesRequest{}, true)
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	_, _, err = client.Targets(t.Context(), storeapi.TargetState(7), true)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
	_, _, err = client.Rules(t.Context(), storeapi.RulesRequest{Type: 9}, true)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
}

// What no selection can be made of is refused before the Store is asked.
func TestBadRequestsOverTheWire(t *testing.T) {
	fake := storetest.NewFake(nil, storeapi.Info{})
	conn := listen(t, false, func(s *grpc.Server) { storeapi.Register(s, storeapi.Services{Store: fake}, nil) })
	bad := []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "a", Value: "("}}
	for name, req := range map[string]*storepb.SeriesRequest{
		"regex":        {Matchers: bad},
		"matcher type": {Matchers: []*storepb.LabelMatcher{{Type: 7}}},
		"shard":        {ShardInfo: &storepb.ShardInfo{ShardIndex: 3, TotalShards: 3}},
		"aggregate":    {Aggregates: []storepb.Aggr{9}},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := storepb.NewStoreClient(conn).Series(t.Context(), req)
			require.NoError(t, err)
			_, err = stream.Recv()
			require.ErrorContains(t, err, "InvalidArgument")
		})
	}
	_, err := storepb.NewStoreClient(conn).LabelNames(t.Context(), &storepb.LabelNamesRequest{Matchers: bad})
	require.ErrorContains(t, err, "InvalidArgument")
	_, err = storepb.NewStoreClient(conn).LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: "a", Matchers: bad})
	require.ErrorContains(t, err, "InvalidArgument")
	require.Empty(t, fake.Selections())
}
