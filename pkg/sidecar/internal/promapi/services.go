package promapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Rules returns the groups of rules. Names, groups and files of the request are
// passed on; a Prometheus too old for them answers with all. Matchers are left
// to the caller, since Prometheus doesn't know of external labels there.
func (c *Client) Rules(ctx context.Context, req storeapi.RulesRequest) ([]storeapi.RuleGroup, []string, error) {
	v := url.Values{"rule_name[]": req.Names, "rule_group[]": req.Groups, "file[]": req.Files}
	switch req.Type {
	case storeapi.RulesAlerting:
		v.Set("type", "alert")
	case storeapi.RulesRecording:
		v.Set("type", "record")
	}
	var data struct {
		Groups []storeapi.RuleGroup `json:"groups"`
	}
	warnings, err := c.get(ctx, call{method: http.MethodGet, path: "/api/v1/rules", params: v}, &data)
	return data.Groups, warnings, err
}

// Targets returns scrape targets.
func (c *Client) Targets(ctx context.Context, state storeapi.TargetState) (storeapi.Targets, []string, error) {
	v := url.Values{}
	switch state {
	case storeapi.TargetsActive:
		v.Set("state", "active")
	case storeapi.TargetsDropped:
		v.Set("state", "dropped")
	}
	var data storeapi.Targets
	warnings, err := c.get(ctx, call{method: http.MethodGet, path: "/api/v1/targets", params: v}, &data)
	return data, warnings, err
}

// Metadata returns the metadata of metrics: of one, or of all when metric is
// empty; of at most limit metrics when that is 0 or more.
func (c *Client) Metadata(ctx context.Context, metric string, limit int) (map[string][]storeapi.Metadata, []string, error) {
	v := url.Values{}
	if metric != "" {
		v.Set("metric", metric)
	}
	if limit >= 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	var data map[string][]storeapi.Metadata
	warnings, err := c.get(ctx, call{method: http.MethodGet, path: "/api/v1/metadata", params: v}, &data)
	return data, warnings, err
}

// Exemplars returns the exemplars in [start, end], ms, of the series that the
// selectors of a PromQL expression choose.
func (c *Client) Exemplars(ctx context.Context, query string, start, end int64) ([]storeapi.ExemplarSeries, []string, error) {
	v := Range{Mint: start, Maxt: end}.params()
	v.Set("query", query)
	q := call{method: http.MethodPost, path: "/api/v1/query_exemplars", params: v}
	var data []struct {
		SeriesLabels labels.Labels `json:"seriesLabels"`
		Exemplars    []struct {
			Labels    labels.Labels `json:"labels"`
			Value     string        `json:"value"`
			Timestamp float64       `json:"timestamp"` // seconds
		} `json:"exemplars"`
	}
	warnings, err := c.get(ctx, q, &data)
	if err != nil {
		return nil, nil, err
	}
	out := make([]storeapi.ExemplarSeries, len(data))
	for i, s := range data {
		out[i] = storeapi.ExemplarSeries{SeriesLabels: s.SeriesLabels, Exemplars: make([]exemplar.Exemplar, len(s.Exemplars))}
		for j, e := range s.Exemplars {
			val, err := strconv.ParseFloat(e.Value, 64)
			if err != nil {
				return nil, nil, c.garbled(ctx, q, fmt.Errorf("exemplar of %s: %w", s.SeriesLabels, err))
			}
			ts := int64(math.Round(e.Timestamp * 1000))
			out[i].Exemplars[j] = exemplar.Exemplar{Labels: e.Labels, Value: val, Ts: ts, HasTs: true}
		}
	}
	return out, warnings, nil
}

// TSDBStats returns the cardinality statistics of the head, at most limit
// entries a list when that is above 0.
func (c *Client) TSDBStats(ctx context.Context, limit int) (storeapi.TSDBStats, []string, error) {
	v := url.Values{}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	var data storeapi.TSDBStats
	warnings, err := c.get(ctx, call{method: http.MethodGet, path: "/api/v1/status/tsdb", params: v}, &data)
	return data, warnings, err
}
