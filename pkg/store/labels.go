package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/store/internal/blockreader"
	"github.com/firnline/firnline/pkg/storeapi"
)

// LabelNames implements storeapi.Store.
func (s *Store) LabelNames(ctx context.Context, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	return s.strings(ctx, sel, func(ctx context.Context, p pick, q blockreader.Query, w *blockreader.Work) ([]string, error) {
		names, err := p.labelNames(ctx, q, w)
		if err != nil || len(names) == 0 {
			return nil, err
		}
		p.block.labels.Range(func(l labels.Label) { names = append(names, l.Name) })
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(sel.WithoutReplicaLabels, n) }), nil
	})
}

// labelNames are those of the series that match, without the external ones.
func (p pick) labelNames(ctx context.Context, q blockreader.Query, w *blockreader.Work) ([]string, error) {
	if len(q.Matchers) == 0 {
		return p.block.header.Names(ctx)
	}
	return p.block.reader.LabelNames(ctx, q, w)
}

// LabelValues implements storeapi.Store.
func (s *Store) LabelValues(ctx context.Context, name string, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	if name == "" {
		return nil, storeapi.Report{}, fmt.Errorf("%w: label name parameter cannot be empty", storeapi.ErrBadRequest)
	}
	if slices.Contains(sel.WithoutReplicaLabels, name) {
		return nil, storeapi.Report{}, nil
	}
	return s.strings(ctx, sel, func(ctx context.Context, p pick, q blockreader.Query, w *blockreader.Work) ([]string, error) {
		if p.block.labels.Has(name) {
			return p.externalValue(ctx, name, q, w)
		}
		return p.labelValues(ctx, name, q, w)
	})
}

// externalValue is the value of an external label, if any series matches.
func (p pick) externalValue(ctx context.Context, name string, q blockreader.Query, w *blockreader.Work) ([]string, error) {
	if len(q.Matchers) > 0 {
		if any, err := p.block.reader.Matches(ctx, q, w); err != nil || !any {
			return nil, err
		}
	}
	return []string{p.block.labels.Get(name)}, nil
}

// labelValues are those of a label of the series themselves. Where the matchers
// speak of that label alone the header knows them.
func (p pick) labelValues(ctx context.Context, name string, q blockreader.Query, w *blockreader.Work) ([]string, error) {
	if slices.ContainsFunc(q.Matchers, func(m *labels.Matcher) bool { return m.Name != name }) {
		return p.block.reader.LabelValues(ctx, name, q, w)
	}
	found, err := p.block.header.Match(ctx, name, "", func(v string) bool {
		return v != "" && !slices.ContainsFunc(q.Matchers, func(m *labels.Matcher) bool { return !m.Matches(v) })
	})
	if err != nil {
		return nil, err
	}
	values := make([]string, len(found))
	for i, f := range found {
		values[i] = f.Value
	}
	return values, nil
}

// labelConcurrency is how many blocks are asked at once for names and values.
const labelConcurrency = 32

// askFor asks a block for strings.
type askFor func(context.Context, pick, blockreader.Query, *blockreader.Work) ([]string, error)

// strings asks each block in time for strings and returns all of them, sorted.
// Where a block turns out to be gone it asks once more, after a look into the bucket.
func (s *Store) strings(ctx context.Context, sel storeapi.Selection, ask askFor) ([]string, storeapi.Report, error) {
	if s.view.Load() != nil && !s.clamp(&sel) {
		return nil, storeapi.Report{}, nil
	}
	if len(sel.Matchers) > 0 { // without, headers know, and nothing is read from the bucket
		if err := s.gate.enter(ctx); err != nil {
			return nil, storeapi.Report{}, err
		}
		defer s.gate.leave()
	}
	out, report, err := s.stringsOnce(ctx, sel, ask)
	if report.missed && s.awaitLook(ctx) {
		out, report, err = s.stringsOnce(ctx, sel, ask)
	}
	return out, report.Report, err
}

// stringsReport is a report that tells, too, whether a block turned out to be gone.
type stringsReport struct {
	storeapi.Report
	missed bool
}

func (s *Store) stringsOnce(ctx context.Context, sel storeapi.Selection, ask askFor) ([]string, stringsReport, error) {
	var report stringsReport
	picks, err := s.acquire(sel, true)
	if err != nil {
		return nil, report, err
	}
	defer s.release(picks)
	lim := s.limits()
	found := make([][]string, len(picks))
	reports := make([]storeapi.Report, len(picks))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(labelConcurrency)
	for i, p := range picks {
		g.Go(func() error {
			w := blockreader.Work{Limits: lim}
			err := p.block.usable(gctx, s.now())
			if err == nil {
				found[i], err = ask(gctx, p, s.query(p, sel, len(picks)), &w)
			}
			reports[i] = storeapi.Report{QueriedBlocks: []ulid.ULID{p.block.meta.ULID}, Stats: w.Stats}
			reports[i].Stats.BlocksQueried = 1
			if err == nil {
				return nil
			}
			s.noteFailure(err)
			s.noteGone(p.block, err)
			if err = blockError(p.block, err); sel.PartialResponse && canWarn(err) {
				reports[i].Warnings = []string{err.Error()}
				return nil
			}
			return err
		})
	}
	err = errors.Join(g.Wait(), ctx.Err())
	report.missed = missedAny(picks)
	if err != nil {
		return nil, report, err
	}
	for _, r := range reports {
		report.Add(r)
	}
	out := slices.Compact(slices.Sorted(slices.Values(slices.Concat(found...))))
	if sel.Limit > 0 && len(out) > sel.Limit {
		out = out[:sel.Limit]
	}
	return out, report, nil
}
