package storeapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// The services an endpoint may answer beside Store. Each is small, so that a
// component takes only those it needs; their values have the JSON shape of the
// Prometheus HTTP API, from which they come and to which they go. The string
// slice of each answer are warnings, as in Report; where partial is false what
// would be a warning is an error.

// RulesSource lists rules and alerts.
type RulesSource interface {
	Rules(ctx context.Context, req RulesRequest, partial bool) ([]RuleGroup, []string, error)
}

// TargetsSource lists scrape targets.
type TargetsSource interface {
	Targets(ctx context.Context, state TargetState, partial bool) (Targets, []string, error)
}

// MetadataSource lists the metadata of metrics: all of them or, when metric is
// not empty, that one's; at most limit metrics when limit is 0 or more (below: no limit).
type MetadataSource interface {
	Metadata(ctx context.Context, metric string, limit int, partial bool) (map[string][]Metadata, []string, error)
}

// ExemplarsSource lists exemplars of the series that the selectors in a PromQL
// expression choose, with timestamps in [start, end], ms.
type ExemplarsSource interface {
	Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]ExemplarSeries, []string, error)
}

// StatusSource tells the cardinality statistics of heads, by tenant; the empty
// tenant stands for a TSDB without one. At most limit entries a list.
type StatusSource interface {
	TSDBStats(ctx context.Context, limit int, partial bool) (map[string]TSDBStats, []string, error)
}

// QuerySource evaluates PromQL remotely (thanos.Query).
type QuerySource interface {
	Query(ctx context.Context, req QueryRequest) (QueryResult, error)
}

// QueryRequest is an instant (Step 0) or range query for a QuerySource. On the
// wire its times are whole seconds.
type QueryRequest struct {
	Expr            string
	Start, End      time.Time // an instant query's time is Start
	Step            time.Duration
	Timeout         time.Duration // 0: the server's
	Lookback        time.Duration // 0: the server's
	MaxResolution   time.Duration
	ReplicaLabels   []string
	StoreMatchers   [][]*labels.Matcher
	Dedup           bool
	PartialResponse bool
	SkipChunks      bool
	Shard           *Shard
	Engine          string // "", "prometheus" or "thanos"
}

// QueryResult is the answer of a QuerySource: what the engine returns, for a
// scalar or string as a vector or matrix of one series without labels.
type QueryResult struct {
	Value        parser.Value // promql.Vector or promql.Matrix
	Warnings     []string
	SamplesTotal int64
	PeakSamples  int64
}

var _ parser.Value = promql.Matrix{}

// RulesRequest restricts an answer of Rules.
type RulesRequest struct {
	Type                 RuleType
	Matchers             [][]*labels.Matcher // a rule must match all of one set, where there are sets
	Names, Groups, Files []string            // empty: all
}

// RuleType is one of the numbers of thanos.RulesRequest.Type.
type RuleType uint8

// Which rules are asked for.
const (
	RulesAll RuleType = iota
	RulesAlerting
	RulesRecording
)

// RuleGroup is a group of rules as /api/v1/rules shows it.
type RuleGroup struct {
	Name                    string    `json:"name"`
	File                    string    `json:"file"`
	Rules                   []Rule    `json:"rules"`
	Interval                float64   `json:"interval"` // seconds
	Limit                   int64     `json:"limit"`
	EvaluationTime          float64   `json:"evaluationTime"` // seconds
	LastEvaluation          time.Time `json:"lastEvaluation"`
	PartialResponseStrategy string    `json:"partialResponseStrategy,omitempty"` // "WARN" or "ABORT"
}

// Rule is an alerting rule or a recording rule; Type tells which.
type Rule struct {
	Type           string        `json:"type"` // "alerting" or "recording"
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"` // seconds
	LastEvaluation time.Time     `json:"lastEvaluation"`

	// Of alerting rules only.
	State         string        `json:"state"`         // "inactive", "pending" or "firing"
	Duration      float64       `json:"duration"`      // seconds
	KeepFiringFor float64       `json:"keepFiringFor"` // seconds
	Annotations   labels.Labels `json:"annotations"`
	Alerts        []Alert       `json:"alerts"`
}

// MarshalJSON leaves the fields of alerting rules out of recording rules, and
// writes empty lists and label sets as Prometheus does.
func (r Rule) MarshalJSON() ([]byte, error) {
	if r.Type == "recording" {
		return json.Marshal(struct {
			Name           string        `json:"name"`
			Query          string        `json:"query"`
			Labels         labels.Labels `json:"labels,omitzero"`
			Health         string        `json:"health"`
			LastError      string        `json:"lastError,omitempty"`
			EvaluationTime float64       `json:"evaluationTime"`
			LastEvaluation time.Time     `json:"lastEvaluation"`
			Type           string        `json:"type"`
		}{r.Name, r.Query, r.Labels, r.Health, r.LastError, r.EvaluationTime, r.LastEvaluation, r.Type})
	}
	type plain Rule
	if r.Alerts == nil {
		r.Alerts = []Alert{}
	}
	return json.Marshal(plain(r))
}

// Alert is one instance of an alerting rule.
type Alert struct {
	Labels                  labels.Labels `json:"labels"`
	Annotations             labels.Labels `json:"annotations"`
	State                   string        `json:"state"`
	ActiveAt                *time.Time    `json:"activeAt,omitempty"`
	Value                   string        `json:"value"`
	PartialResponseStrategy string        `json:"partialResponseStrategy,omitempty"`
}

// TargetState restricts an answer of Targets; the numbers are those of thanos.TargetsRequest.State.
type TargetState uint8

// Which targets are asked for.
const (
	TargetsAny TargetState = iota
	TargetsActive
	TargetsDropped
)

// Targets are scrape targets as /api/v1/targets shows them.
type Targets struct {
	Active  []ActiveTarget  `json:"activeTargets"`
	Dropped []DroppedTarget `json:"droppedTargets"`
}

// ActiveTarget is a target that is scraped.
type ActiveTarget struct {
	DiscoveredLabels   labels.Labels `json:"discoveredLabels"`
	Labels             labels.Labels `json:"labels"`
	ScrapePool         string        `json:"scrapePool"`
	ScrapeURL          string        `json:"scrapeUrl"`
	GlobalURL          string        `json:"globalUrl"`
	LastError          string        `json:"lastError"`
	LastScrape         time.Time     `json:"lastScrape"`
	LastScrapeDuration float64       `json:"lastScrapeDuration"` // seconds
	Health             string        `json:"health"`             // "up", "down" or "unknown"
}

// DroppedTarget is a target that relabelling has dropped.
type DroppedTarget struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
}

// Metadata is what a target says of a metric.
type Metadata struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// ExemplarSeries are the exemplars of one series.
type ExemplarSeries struct {
	SeriesLabels labels.Labels       `json:"seriesLabels"`
	Exemplars    []exemplar.Exemplar `json:"exemplars"`
}

// TSDBStats are cardinality statistics as /api/v1/status/tsdb shows them.
type TSDBStats struct {
	HeadStats                   HeadStats `json:"headStats"`
	SeriesCountByMetricName     []Stat    `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []Stat    `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []Stat    `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []Stat    `json:"seriesCountByLabelValuePair"`
}

// HeadStats count what a head holds; times are ms.
type HeadStats struct {
	NumSeries     uint64 `json:"numSeries"`
	NumLabelPairs int    `json:"numLabelPairs"`
	ChunkCount    int64  `json:"chunkCount"`
	MinTime       int64  `json:"minTime"`
	MaxTime       int64  `json:"maxTime"`
}

// Stat is a name and a count.
type Stat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// Services are what an endpoint serves. Nil ones answer ErrUnimplemented.
type Services struct {
	Store     Store
	Rules     RulesSource
	Targets   TargetsSource
	Metadata  MetadataSource
	Exemplars ExemplarsSource
	Status    StatusSource
	Query     QuerySource
}
