package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/firnline/firnline/pkg/query/internal/querier"
)

// selection is what requests for labels and series have in common.
type selection struct {
	limit      int // 0: none
	start, end time.Time
	sets       [][]*labels.Matcher
}

func (a *API) selectionParams(r *http.Request) (selection, error) {
	var (
		sel selection
		err error
	)
	if sel.limit, err = limitParam(r); err != nil {
		return sel, err
	}
	first, last := minTime, maxTime
	if d := time.Duration(a.cfg.MetadataRange); d > 0 {
		last = a.now()
		first = last.Add(-d)
	}
	if sel.start, err = optionalTime(r, "start", first); err != nil {
		return sel, err
	}
	sel.end, err = optionalTime(r, "end", last)
	return sel, err
}

// querier opens the data of a selection. Labels need no samples.
func (a *API) querier(sel selection, opts querier.Options) (storage.Querier, error) {
	opts.SkipChunks = true
	return a.parts.Data.Queryable(opts).Querier(timestamp.FromTime(sel.start), timestamp.FromTime(sel.end))
}

// labelNames lists the names of labels.
func (a *API) labelNames(r *http.Request) (answer, error) {
	return a.lookup(r, func(ctx context.Context, q storage.Querier, hints *storage.LabelHints, set []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, hints, set...)
	})
}

// labelValues lists the values of one label. Its name may be escaped as U__….
func (a *API) labelValues(r *http.Request) (answer, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return answer{}, bad("invalid label name: %q", name)
	}
	return a.lookup(r, func(ctx context.Context, q storage.Querier, hints *storage.LabelHints, set []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, hints, set...)
	})
}

// lookupFunc lists the names or values of the series that one set of matchers selects.
type lookupFunc func(ctx context.Context, q storage.Querier, hints *storage.LabelHints, set []*labels.Matcher) ([]string, annotations.Annotations, error)

// lookup unites what a lookup finds for each match[], sorted. Replica labels are
// labels like others here, since selectors may name them: a dashboard whose
// variable lists the replicas finds them.
func (a *API) lookup(r *http.Request, find lookupFunc) (answer, error) {
	sel, err := a.selectionParams(r)
	if err != nil {
		return answer{}, err
	}
	if sel.sets, err = a.matchParam(r); err != nil {
		return answer{}, bad("%w", err)
	}
	opts, err := a.dataOptions(r, 0)
	if err != nil {
		return answer{}, err
	}
	opts.Dedup = false
	q, err := a.querier(sel, opts)
	if err != nil {
		return answer{}, err
	}
	ans := answer{close: func() { q.Close() }} // names and values may be memory of the querier

	if len(sel.sets) == 0 {
		sel.sets = [][]*labels.Matcher{nil}
	}
	var (
		found = map[string]struct{}{}
		notes annotations.Annotations
		hints = &storage.LabelHints{Limit: oneMore(sel.limit)}
	)
	for _, set := range sel.sets {
		texts, warnings, err := find(r.Context(), q, hints, set)
		if err != nil {
			return ans, err
		}
		notes.Merge(warnings)
		for _, s := range texts {
			found[s] = struct{}{}
		}
	}
	texts := slices.Sorted(maps.Keys(found))
	if sel.limit > 0 && len(texts) > sel.limit {
		texts = texts[:sel.limit]
		truncated(&notes)
	}
	ans.encode = func(s *stream) error { return s.texts(texts) }
	ans.notes = notes
	return ans, nil
}
