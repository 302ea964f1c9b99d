package heads

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// extras answer the services beside Store. Of several tenants, all that the context may see.
type extras Heads

// Metadata lists what senders have said about metrics, each meaning once.
func (e *extras) Metadata(ctx context.Context, metric string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	r, warnings, err := (*Heads)(e).all(ctx, partial)
	if err != nil {
		return nil, nil, err
	}
	defer r.release()
	out := map[string][]storeapi.Metadata{}
	for _, h := range r.heads {
		h.families.each(metric, func(name string, list []metadata.Metadata) {
			if _, known := out[name]; !known && limit >= 0 && len(out) >= limit {
				return
			}
			for _, m := range list {
				one := storeapi.Metadata{Type: string(m.Type), Help: m.Help, Unit: m.Unit}
				if !slices.Contains(out[name], one) {
					out[name] = append(out[name], one)
				}
			}
		})
	}
	return out, warnings, nil
}

// all returns the heads of all tenants that the context may see.
func (hs *Heads) all(ctx context.Context, partial bool) (*reading, []string, error) {
	r, err := hs.readable(ctx, mayRead(ctx))
	if err != nil {
		return nil, nil, err
	}
	report, err := r.report(partial)
	if err != nil {
		r.release()
		return nil, nil, err
	}
	return r, report.Warnings, nil
}

// Exemplars lists those of the series that the selectors of a query choose.
func (e *extras) Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", storeapi.ErrBadRequest, err)
	}
	selectors := parser.ExtractSelectors(expr)
	hs := (*Heads)(e)
	r, warnings, err := hs.all(ctx, partial)
	if err != nil {
		return nil, nil, err
	}
	defer r.release()
	var out []storeapi.ExemplarSeries
	for _, h := range r.heads {
		got, err := h.exemplars(ctx, selectors, start, end)
		if err != nil {
			return nil, nil, fmt.Errorf("tenant %s: exemplars: %w", h.id, err)
		}
		out = append(out, got...)
	}
	slices.SortFunc(out, func(a, b storeapi.ExemplarSeries) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return out, warnings, nil
}

func (h *head) exemplars(ctx context.Context, selectors [][]*labels.Matcher, start, end int64) ([]storeapi.ExemplarSeries, error) {
	ext := h.heads.externalOf(h.id)
	var inner [][]*labels.Matcher
	for _, ms := range selectors {
		if rest, ok := block.MatchExternal(ext, ms); ok {
			inner = append(inner, rest)
		}
	}
	if len(inner) == 0 {
		return nil, nil
	}
	q, err := h.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	results, err := q.Select(start, end, inner...)
	if err != nil {
		return nil, err
	}
	extend := storeapi.NewExtender(ext, nil)
	out := make([]storeapi.ExemplarSeries, len(results))
	for i, r := range results {
		out[i] = storeapi.ExemplarSeries{SeriesLabels: extend.Extend(r.SeriesLabels), Exemplars: r.Exemplars}
	}
	return out, nil
}

// TSDBStats tells what is in each tenant's head.
func (e *extras) TSDBStats(ctx context.Context, limit int, partial bool) (map[string]storeapi.TSDBStats, []string, error) {
	r, warnings, err := (*Heads)(e).all(ctx, partial)
	if err != nil {
		return nil, nil, err
	}
	defer r.release()
	out := map[string]storeapi.TSDBStats{}
	for _, h := range r.heads {
		out[string(h.id)] = h.stats(limit)
	}
	return out, warnings, nil
}

func (h *head) stats(limit int) storeapi.TSDBStats {
	s := h.db.Head().Stats(model.MetricNameLabel, limit)
	p := s.IndexPostingStats
	return storeapi.TSDBStats{
		HeadStats: storeapi.HeadStats{
			NumSeries: s.NumSeries, NumLabelPairs: p.NumLabelPairs, MinTime: s.MinTime, MaxTime: s.MaxTime,
			ChunkCount: int64(h.counters.value("prometheus_tsdb_head_chunks")),
		},
		SeriesCountByMetricName:     statsOf(p.CardinalityMetricsStats),
		LabelValueCountByLabelName:  statsOf(p.CardinalityLabelStats),
		MemoryInBytesByLabelName:    statsOf(p.LabelValueStats),
		SeriesCountByLabelValuePair: statsOf(p.LabelValuePairsStats),
	}
}

func statsOf(in []index.Stat) []storeapi.Stat {
	out := make([]storeapi.Stat, len(in))
	for i, s := range in {
		out[i] = storeapi.Stat{Name: strings.Clone(s.Name), Value: s.Count}
	}
	return out
}

// widest names the label with the most values in the head, for those whose
// series are too many. The TSDB remembers the answer for half a minute.
func (h *head) widest() string {
	stats := h.db.Head().PostingsCardinalityStats(model.MetricNameLabel, 1).CardinalityLabelStats
	if len(stats) == 0 {
		return ""
	}
	return fmt.Sprintf("; the label with the most values is %s, with %d", stats[0].Name, stats[0].Count)
}
