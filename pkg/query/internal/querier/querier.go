package querier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Stores returns the store of those endpoints that match all of one of the sets of matchers; no sets: of all.
type Stores func(sets [][]*labels.Matcher) storeapi.Store

// Queriers is the Factory. It is safe for concurrent use.
type Queriers struct {
	cfg     Config
	kind    dedup.Kind
	stores  Stores
	metrics *metrics
}

var _ Factory = (*Queriers)(nil)

type metrics struct {
	selects prometheus.Counter
	waiting prometheus.Gauge
	series  prometheus.Counter
	merged  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		selects: f.NewCounter(prometheus.CounterOpts{Name: "firnline_query_selects_total", Help: "Selectors fetched for queries."}),
		waiting: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_query_selects_waiting", Help: "Selectors that wait for their turn (--query.max-concurrent-select)."}),
		series:  f.NewCounter(prometheus.CounterOpts{Name: "firnline_query_selected_series_total", Help: "Series selected for queries."}),
		merged:  f.NewCounter(prometheus.CounterOpts{Name: "firnline_query_deduplicated_series_total", Help: "Series selected for queries that were made of more than one replica."}),
	}
}

// New makes a Factory. cfg has been validated.
func New(cfg Config, stores Stores, reg prometheus.Registerer) *Queriers {
	return &Queriers{cfg: cfg, kind: dedup.Kind(cfg.DedupFunc), stores: stores, metrics: newMetrics(reg)}
}

// Queryable returns what one request selects its series from.
func (q *Queriers) Queryable(opts Options) storage.Queryable {
	r := &selector{
		opts: opts, kind: q.kind, store: q.stores(opts.StoreMatchers), metrics: q.metrics,
		turns: make(chan struct{}, q.cfg.ConcurrentSelects),
	}
	if !opts.Dedup || len(opts.ReplicaLabels) == 0 {
		// No replicas are made one. What overlaps is the same series from two
		// places, a sidecar and a bucket say, and all of its samples count.
		r.opts.ReplicaLabels, r.kind = nil, dedup.Chain
	}
	return storage.QueryableFunc(func(mint, maxt int64) (storage.Querier, error) {
		return &querier{selector: r, mint: mint, maxt: maxt}, nil
	})
}

// selector is what all queriers of a request share.
type selector struct {
	opts    Options
	kind    dedup.Kind
	store   storeapi.Store
	metrics *metrics
	turns   chan struct{} // one entry for each select under way
}

// querier implements storage.Querier. Selects begin at once and are fetched in
// the background, each as a whole, since the engine holds all of it anyway and
// a store that is read to its end is free for others. Close ends and awaits them.
type querier struct {
	*selector
	mint, maxt int64

	fetches sync.WaitGroup
	mu      struct {
		sync.Mutex
		cancels []context.CancelFunc
	}
}

// Select implements storage.Querier. The set is always sorted.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	if hints == nil {
		hints = &storage.SelectHints{Start: q.mint, End: q.maxt}
	}
	sel, shape := q.selection(hints, matchers)
	ctx, cancel := context.WithCancel(ctx)
	q.mu.Lock()
	q.mu.cancels = append(q.mu.cancels, cancel)
	q.mu.Unlock()
	set := newSet()
	q.fetches.Go(func() {
		defer close(set.done)
		set.err = q.fetch(ctx, sel, shape, set)
	})
	return set
}

// selection turns the engine's wishes into a Selection. It copies what the
// engine goes on using.
func (q *querier) selection(hints *storage.SelectHints, matchers []*labels.Matcher) (storeapi.Selection, shape) {
	read := readingFor(hints.Func, hints.Range > 0)
	if read == readCount && q.opts.MaxResolution == 0 {
		read = readAverage // Of raw data alone the samples themselves can be counted.
	}
	sel := storeapi.Selection{
		Mint: hints.Start, Maxt: hints.End,
		Matchers:             slices.Clone(matchers),
		MaxResolution:        maxResolution(q.opts.MaxResolution, hints.Func, hints.Range),
		Aggregates:           read.aggregates(),
		SkipChunks:           q.opts.SkipChunks || hints.Func == "series",
		Limit:                hints.Limit,
		WithoutReplicaLabels: q.opts.ReplicaLabels,
		Shard:                q.opts.Shard,
		PartialResponse:      q.opts.PartialResponse,
		Hints: storeapi.Hints{
			Func: hints.Func, StepMillis: hints.Step, RangeMillis: hints.Range,
			By: hints.By, Grouping: slices.Clone(hints.Grouping),
		},
	}
	sh := shape{read: read, kind: q.kind, counter: isCounter(hints.Func), bounds: bounds{hints.Start, hints.End}}
	if hints.DisableTrimming {
		sh.bounds = unbounded()
	}
	return sel, sh
}

// fetch reads a selection into set, when its turn has come.
func (q *querier) fetch(ctx context.Context, sel storeapi.Selection, shape shape, set *seriesSet) error {
	q.metrics.waiting.Inc()
	select {
	case q.turns <- struct{}{}:
		q.metrics.waiting.Dec()
		defer func() { <-q.turns }()
	case <-ctx.Done():
		q.metrics.waiting.Dec()
		return context.Cause(ctx)
	}
	q.metrics.selects.Inc()
	remote, err := q.store.Series(ctx, sel)
	if err != nil {
		return err // tells who could not be asked; the engine adds that it was for series
	}
	defer remote.Close()
	for remote.Next() {
		s := newSeries(remote.At(), &shape)
		if len(s.replicas) > 0 {
			q.metrics.merged.Inc()
		}
		set.series = append(set.series, s)
	}
	q.metrics.series.Add(float64(len(set.series)))
	if err := remote.Err(); err != nil {
		return err
	}
	set.warnings = annotationsOf(remote.Report().Warnings)
	return nil
}

// LabelValues implements storage.Querier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values, report, err := q.store.LabelValues(ctx, name, q.labelSelection(hints, matchers))
	if err != nil {
		return nil, nil, fmt.Errorf("values of label %s: %w", name, err)
	}
	return values, annotationsOf(report.Warnings), nil
}

// LabelNames implements storage.Querier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, report, err := q.store.LabelNames(ctx, q.labelSelection(hints, matchers))
	if err != nil {
		return nil, nil, fmt.Errorf("label names: %w", err)
	}
	return names, annotationsOf(report.Warnings), nil
}

func (q *querier) labelSelection(hints *storage.LabelHints, matchers []*labels.Matcher) storeapi.Selection {
	sel := storeapi.Selection{
		Mint: q.mint, Maxt: q.maxt, Matchers: slices.Clone(matchers),
		WithoutReplicaLabels: q.opts.ReplicaLabels, PartialResponse: q.opts.PartialResponse,
	}
	if hints != nil {
		sel.Limit = hints.Limit
	}
	return sel
}

// Close ends what is still being fetched and waits for it.
func (q *querier) Close() error {
	q.mu.Lock()
	for _, cancel := range q.mu.cancels {
		cancel()
	}
	q.mu.cancels = nil
	q.mu.Unlock()
	q.fetches.Wait()
	return nil
}

// annotationsOf makes warnings of a report show as warnings of the answer.
func annotationsOf(warnings []string) annotations.Annotations {
	var a annotations.Annotations
	for _, w := range warnings {
		a.Add(errors.New(w))
	}
	return a
}
