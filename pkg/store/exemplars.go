package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Exemplars implements storeapi.ExemplarsSource, from the notes on the blocks of
// level 1 that the blocks in [start, end] were made of.
func (s *Store) Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: query: %w", storeapi.ErrBadRequest, err)
	}
	sel := storeapi.Selection{Mint: start, Maxt: end}
	v := s.view.Load()
	if v == nil {
		return nil, nil, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, s.Ready())
	}
	if !s.clamp(&sel) {
		return nil, nil, nil
	}
	if err := s.gate.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.gate.leave()
	r := &noteRequest{Store: s, partial: partial, bytes: s.limits().Bytes, mint: sel.Mint, maxt: sel.Maxt}
	f := exemplarFinder{noteRequest: r, budget: fetch.NewBudget(s.cfg.RequestExemplars, "exemplars", flagRequestExemplars)}
	for _, g := range v.groups {
		if err := f.group(ctx, g, parser.ExtractSelectors(expr)); err != nil {
			return nil, nil, err
		}
	}
	var out []storeapi.ExemplarSeries
	for _, one := range notes.MergeSeries(f.found) {
		out = append(out, storeapi.ExemplarSeries{SeriesLabels: one.Labels, Exemplars: one.Exemplars})
	}
	return out, r.warnings, nil
}

// exemplarFinder gathers the exemplars of a request.
type exemplarFinder struct {
	*noteRequest
	budget *fetch.Budget
	found  []notes.Series
}

// group gathers those of the series that a selector chooses among the blocks of
// the same external labels.
func (f *exemplarFinder) group(ctx context.Context, g group, selectors [][]*labels.Matcher) error {
	var inner [][]*labels.Matcher
	for _, ms := range selectors {
		if rest, ok := block.MatchExternal(g.labels, ms); ok {
			inner = append(inner, rest)
		}
	}
	if len(inner) == 0 {
		return nil
	}
	ids, err := f.sources(ctx, g)
	if err != nil || len(ids) == 0 {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id ulid.ULID) bool { return f.notes.Outside(id, f.mint, f.maxt) })
	hider := f.deletes.Hider().For(f.mint, f.maxt, g.labels)
	extend := storeapi.NewExtender(g.labels, nil)
	return f.notes.Each(ctx, ids, f.bytes, func(_ ulid.ULID, n *notes.Note) error {
		for _, one := range n.Series {
			if !chosen(one.Labels, inner) {
				continue
			}
			lset := extend.Extend(one.Labels)
			if list := f.visible(one.Exemplars, hider.Intervals(lset)); len(list) > 0 {
				if err := f.budget.Take(int64(len(list))); err != nil {
					return err
				}
				f.found = append(f.found, notes.Series{Labels: lset, Exemplars: list})
			}
		}
		return nil
	}, f.fail)
}

// visible returns the exemplars in the time of the request that are not deleted.
func (f *exemplarFinder) visible(list []exemplar.Exemplar, deleted tombstones.Intervals) (out []exemplar.Exemplar) {
	for _, e := range list {
		gone := slices.ContainsFunc(deleted, func(i tombstones.Interval) bool { return i.InBounds(e.Ts) })
		if e.Ts >= f.mint && e.Ts <= f.maxt && !gone {
			out = append(out, e)
		}
	}
	return out
}

// chosen tells whether all matchers of a selector match.
func chosen(lset labels.Labels, selectors [][]*labels.Matcher) bool {
	return slices.ContainsFunc(selectors, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
	})
}
