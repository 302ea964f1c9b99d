package heads

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/tenant"
)

// What a tenant's head holds, counted, in the shape of Mimir's JSON API. Blocks are left out: these
// are the series that cost memory. A tenant that is not open holds nothing.

// LabelNames is what /api/v1/cardinality/label_names answers.
type LabelNames struct {
	LabelValuesCountTotal uint64       `json:"label_values_count_total"`
	LabelNamesCount       uint64       `json:"label_names_count"`
	Cardinality           []NameValues `json:"cardinality"` // the most first
}

// NameValues is a label name and how many values it has.
type NameValues struct {
	LabelName        string `json:"label_name"`
	LabelValuesCount uint64 `json:"label_values_count"`
}

// LabelValues is what /api/v1/cardinality/label_values answers.
type LabelValues struct {
	SeriesCountTotal uint64           `json:"series_count_total"` // of the head, whatever was selected
	Labels           []LabelValueInfo `json:"labels"`
}

// LabelValueInfo is one label's part of it.
type LabelValueInfo struct {
	LabelName        string        `json:"label_name"`
	LabelValuesCount uint64        `json:"label_values_count"`
	SeriesCount      uint64        `json:"series_count"` // that have the label
	Cardinality      []ValueSeries `json:"cardinality"`  // the most first
}

// ValueSeries is a label value and how many series have it.
type ValueSeries struct {
	LabelValue  string `json:"label_value"`
	SeriesCount uint64 `json:"series_count"`
}

// ActiveSeries is what /api/v1/cardinality/active_series answers.
type ActiveSeries struct {
	Data []labels.Labels `json:"data"`
}

// CardinalityLabelNames counts the values of each label of the series that match, at most
// limit labels, those with the most values first.
func (hs *Heads) CardinalityLabelNames(ctx context.Context, id tenant.ID, matchers []*labels.Matcher, limit int) (LabelNames, error) {
	out := LabelNames{Cardinality: []NameValues{}}
	err := hs.inspect(ctx, id, func(ix tsdb.IndexReader, _ *head) error {
		names, err := ix.LabelNames(ctx, matchers...)
		if err != nil {
			return err
		}
		for _, n := range names {
			values, err := ix.LabelValues(ctx, n, nil, matchers...)
			if err != nil {
				return err
			}
			out.Cardinality = append(out.Cardinality, NameValues{LabelName: strings.Clone(n), LabelValuesCount: uint64(len(values))})
			out.LabelValuesCountTotal += uint64(len(values))
		}
		return nil
	})
	out.LabelNamesCount = uint64(len(out.Cardinality))
	slices.SortFunc(out.Cardinality, func(a, b NameValues) int {
		return cmp.Or(cmp.Compare(b.LabelValuesCount, a.LabelValuesCount), cmp.Compare(a.LabelName, b.LabelName))
	})
	out.Cardinality = firstOf(out.Cardinality, limit)
	return out, err
}

// CardinalityLabelValues counts the series of each value of some labels, among
// the series that match; at most limit values a label, those with the most series first.
func (hs *Heads) CardinalityLabelValues(ctx context.Context, id tenant.ID, names []string, matchers []*labels.Matcher, limit int) (LabelValues, error) {
	out := LabelValues{Labels: []LabelValueInfo{}}
	err := hs.inspect(ctx, id, func(ix tsdb.IndexReader, h *head) error {
		out.SeriesCountTotal = h.db.Head().NumSeries()
		for _, n := range names {
			info, err := valuesOf(ctx, ix, n, matchers)
			if err != nil {
				return err
			}
			info.Cardinality = firstOf(info.Cardinality, limit)
			out.Labels = append(out.Labels, info)
		}
		return nil
	})
	return out, err
}

// valuesOf counts by the postings of each value, so that no series is looked at.
func valuesOf(ctx context.Context, ix tsdb.IndexReader, name string, matchers []*labels.Matcher) (LabelValueInfo, error) {
	info := LabelValueInfo{LabelName: name, Cardinality: []ValueSeries{}}
	values, err := ix.LabelValues(ctx, name, nil, matchers...)
	if err != nil {
		return info, err
	}
	var chosen []storage.SeriesRef
	if len(matchers) > 0 {
		p, err := tsdb.PostingsForMatchers(ctx, ix, matchers...)
		if err != nil {
			return info, err
		}
		if chosen, err = index.ExpandPostings(p); err != nil {
			return info, err
		}
	}
	for _, v := range values {
		p, err := ix.Postings(ctx, name, v)
		if err != nil {
			return info, err
		}
		if len(matchers) > 0 {
			p = index.Intersect(p, index.NewListPostings(chosen))
		}
		n, err := count(ctx, p)
		if err != nil {
			return info, err
		}
		info.Cardinality = append(info.Cardinality, ValueSeries{LabelValue: strings.Clone(v), SeriesCount: n})
		info.SeriesCount += n
	}
	info.LabelValuesCount = uint64(len(values))
	slices.SortFunc(info.Cardinality, func(a, b ValueSeries) int {
		return cmp.Or(cmp.Compare(b.SeriesCount, a.SeriesCount), cmp.Compare(a.LabelValue, b.LabelValue))
	})
	return info, nil
}

// count counts postings. One list may be long, so it looks at the context on the way.
func count(ctx context.Context, p index.Postings) (n uint64, err error) {
	for p.Next() {
		if n++; n%(1<<16) == 0 && ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
	}
	return n, p.Err()
}

// ActiveSeries lists the series of the head that match, at most limit.
func (hs *Heads) ActiveSeries(ctx context.Context, id tenant.ID, matchers []*labels.Matcher, limit int) (ActiveSeries, error) {
	out := ActiveSeries{Data: []labels.Labels{}}
	if len(matchers) == 0 {
		return out, fmt.Errorf("%w: active series need a selector", storeapi.ErrBadRequest)
	}
	err := hs.inspect(ctx, id, func(ix tsdb.IndexReader, _ *head) error {
		p, err := tsdb.PostingsForMatchers(ctx, ix, matchers...)
		if err != nil {
			return err
		}
		var b labels.ScratchBuilder
		for p.Next() && (limit <= 0 || len(out.Data) < limit) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if ix.Series(p.At(), &b, nil) == nil { // else it has gone meanwhile
				out.Data = append(out.Data, b.Labels())
			}
		}
		return p.Err()
	})
	return out, err
}

// CountSeries counts the series of the head that match.
func (hs *Heads) CountSeries(ctx context.Context, id tenant.ID, matchers []*labels.Matcher) (n uint64, err error) {
	err = hs.inspect(ctx, id, func(ix tsdb.IndexReader, h *head) error {
		if len(matchers) == 0 {
			n = h.db.Head().NumSeries()
			return nil
		}
		p, err := tsdb.PostingsForMatchers(ctx, ix, matchers...)
		if err == nil {
			n, err = count(ctx, p)
		}
		return err
	})
	return n, err
}

// TopMetrics are the metrics with the most series of a tenant's head, at most limit. It costs
// a walk over the metrics, not over the series.
func (hs *Heads) TopMetrics(ctx context.Context, id tenant.ID, limit int) ([]ValueSeries, error) {
	out := []ValueSeries{}
	err := hs.inspect(ctx, id, func(_ tsdb.IndexReader, h *head) error {
		h.census.byMetric(func(metric string, series int) {
			out = append(out, ValueSeries{LabelValue: metric, SeriesCount: uint64(series)})
		})
		return nil
	})
	slices.SortFunc(out, func(a, b ValueSeries) int {
		return cmp.Or(cmp.Compare(b.SeriesCount, a.SeriesCount), cmp.Compare(a.LabelValue, b.LabelValue))
	})
	return firstOf(out, limit), err
}

// SeriesCounts are the series in the heads, by tenant.
func (hs *Heads) SeriesCounts() map[tenant.ID]int64 {
	out := map[tenant.ID]int64{}
	for _, h := range hs.retained() {
		out[h.id] = h.census.total.Load()
		h.release()
	}
	return out
}

// inspect calls do with the index of a tenant's head.
func (hs *Heads) inspect(ctx context.Context, id tenant.ID, do func(tsdb.IndexReader, *head) error) error {
	r, err := hs.readable(ctx, func(other tenant.ID) bool { return other == id })
	if err != nil {
		return err
	}
	defer r.release()
	if _, err := r.report(false); err != nil || len(r.heads) == 0 {
		return err
	}
	h := r.heads[0]
	ix, err := h.db.Head().Index()
	if err != nil {
		return fmt.Errorf("tenant %s: cardinality: %w", id, err)
	}
	defer ix.Close()
	if err := do(ix, h); err != nil {
		return fmt.Errorf("tenant %s: cardinality: %w", id, err)
	}
	return nil
}

// firstOf returns the first n; 0 or below: all.
func firstOf[T any](in []T, n int) []T {
	if n > 0 && len(in) > n {
		return in[:n]
	}
	return in
}
