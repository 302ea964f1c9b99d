package sidecar

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/storeapi"
)

// extras answers the services beside Store from Prometheus' HTTP API. Where
// answers carry labels it sets the external ones, as for series; replica labels
// stay, for the querier to remove.
type extras struct {
	prom  *promapi.Client
	state func() (state, error)
}

// warned returns warnings that name Prometheus, or an error when partial is not allowed.
func (e *extras) warned(warnings []string, partial bool) ([]string, error) {
	for i, w := range warnings {
		warnings[i] = fmt.Sprintf("prometheus %s: %s", e.prom.URL(), w)
	}
	if len(warnings) > 0 && !partial {
		return nil, fmt.Errorf("%w: %s", storeapi.ErrPartial, strings.Join(warnings, "; "))
	}
	return warnings, nil
}

// Rules returns the rules of Prometheus. Matchers see the external labels. The
// instances of alerts keep the labels they have, as with Thanos.
func (e *extras) Rules(ctx context.Context, req storeapi.RulesRequest, partial bool) ([]storeapi.RuleGroup, []string, error) {
	st, err := e.state()
	if err != nil {
		return nil, nil, err
	}
	groups, warnings, err := e.prom.Rules(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	ext := storeapi.NewExtender(st.labels, nil)
	for i := range groups {
		for j := range groups[i].Rules {
			r := &groups[i].Rules[j]
			r.Labels = ext.Extend(r.Labels)
		}
	}
	warnings, err = e.warned(warnings, partial)
	return filterRules(groups, req), warnings, err
}

// filterRules keeps the rules that a request wants, and the groups that have
// some. It changes the groups it is given.
func filterRules(groups []storeapi.RuleGroup, req storeapi.RulesRequest) []storeapi.RuleGroup {
	wanted := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	out := groups[:0]
	for _, g := range groups {
		if !wanted(req.Groups, g.Name) || !wanted(req.Files, g.File) {
			continue
		}
		g.Rules = slices.DeleteFunc(g.Rules, func(r storeapi.Rule) bool {
			return !wanted(req.Names, r.Name) || !hasType(r, req.Type) || !matchesAny(r.Labels, req.Matchers)
		})
		if len(g.Rules) > 0 {
			out = append(out, g)
		}
	}
	return out
}

func hasType(r storeapi.Rule, t storeapi.RuleType) bool {
	switch t {
	case storeapi.RulesAlerting:
		return r.Type == "alerting"
	case storeapi.RulesRecording:
		return r.Type == "recording"
	default:
		return true
	}
}

// matchesAny tells whether labels match all matchers of one set; no set matches everything.
func matchesAny(lset labels.Labels, sets [][]*labels.Matcher) bool {
	return len(sets) == 0 || slices.ContainsFunc(sets, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
	})
}

// Targets returns the scrape targets of Prometheus.
func (e *extras) Targets(ctx context.Context, which storeapi.TargetState, partial bool) (storeapi.Targets, []string, error) {
	st, err := e.state()
	if err != nil {
		return storeapi.Targets{}, nil, err
	}
	targets, warnings, err := e.prom.Targets(ctx, which)
	if err != nil {
		return storeapi.Targets{}, nil, err
	}
	ext := storeapi.NewExtender(st.labels, nil)
	for i := range targets.Active {
		t := &targets.Active[i]
		t.Labels, t.DiscoveredLabels = ext.Extend(t.Labels), ext.Extend(t.DiscoveredLabels)
	}
	for i := range targets.Dropped {
		targets.Dropped[i].DiscoveredLabels = ext.Extend(targets.Dropped[i].DiscoveredLabels)
	}
	warnings, err = e.warned(warnings, partial)
	return targets, warnings, err
}

// Metadata returns the metadata of metrics, which have no labels.
func (e *extras) Metadata(ctx context.Context, metric string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	out, warnings, err := e.prom.Metadata(ctx, metric, limit)
	if err != nil {
		return nil, nil, err
	}
	warnings, err = e.warned(warnings, partial)
	return out, warnings, err
}

// Exemplars returns the exemplars of the series that the selectors in query
// choose. Its matchers of external labels are evaluated here, since Prometheus
// doesn't know those.
func (e *extras) Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	st, err := e.state()
	if err != nil {
		return nil, nil, err
	}
	query, err = innerQuery(query, st.labels)
	if err != nil || query == "" {
		return nil, nil, err
	}
	out, warnings, err := e.prom.Exemplars(ctx, query, start, end)
	if err != nil {
		return nil, nil, err
	}
	ext := storeapi.NewExtender(st.labels, nil)
	for i := range out {
		out[i].SeriesLabels = ext.Extend(out[i].SeriesLabels)
	}
	warnings, err = e.warned(warnings, partial)
	return out, warnings, err
}

// innerQuery returns an expression with the selectors of query that external
// labels match, less the matchers of those; empty when there are none.
func innerQuery(query string, ext labels.Labels) (string, error) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return "", fmt.Errorf("%w: query: %w", storeapi.ErrBadRequest, err)
	}
	var parts []string
	for _, matchers := range parser.ExtractSelectors(expr) {
		rest, ok := block.MatchExternal(ext, matchers)
		if !ok {
			continue
		}
		if len(rest) == 0 {
			return "", fmt.Errorf("%w: no matchers specified (excluding external labels)", storeapi.ErrBadRequest)
		}
		parts = append(parts, promapi.Selector(rest))
	}
	return strings.Join(parts, " + "), nil
}

// TSDBStats returns the statistics of Prometheus' head, under the empty tenant.
func (e *extras) TSDBStats(ctx context.Context, limit int, partial bool) (map[string]storeapi.TSDBStats, []string, error) {
	stats, warnings, err := e.prom.TSDBStats(ctx, limit)
	if err != nil {
		return nil, nil, err
	}
	warnings, err = e.warned(warnings, partial)
	return map[string]storeapi.TSDBStats{"": stats}, warnings, err
}
