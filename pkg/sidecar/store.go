package sidecar

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/storeapi"
)

// liveStore answers selections from Prometheus: series by remote read, which
// streams, labels by the HTTP API.
//
// Memory: of a streamed answer the chunks of one series and a frame; where
// label sets are prefixes of one another, of those too, as adding the external
// labels may turn their order. An answer that must be sorted as a whole is held
// within --store.limits.sort-bytes.
type liveStore struct {
	prom    *promapi.Client
	state   func() (state, error) // external labels and times; an error when not ready
	suspect func()                // told when an answer suggests that the state is out of date
	names   *innerNames
	slots   chan struct{} // a place in it is the right to read from Prometheus
	limits  LimitsConfig
	idle    time.Duration
	minTime block.TimeBound
	metrics *metrics
	now     func() time.Time
}

// Info tells what Prometheus holds, without asking it.
func (s *liveStore) Info(context.Context) (storeapi.Info, error) {
	st, err := s.state()
	if err != nil {
		return storeapi.Info{}, err
	}
	mint := max(st.mint, s.minTime.Millis(s.now(), math.MinInt64))
	return storeapi.Info{
		Component: "sidecar",
		LabelSets: []labels.Labels{st.labels},
		Mint:      mint, Maxt: storeapi.MaxTime,
		TSDBs:                        []storeapi.TSDBInfo{{Labels: st.labels, Mint: mint, Maxt: storeapi.MaxTime}},
		SupportsSharding:             true,
		SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{
			Store: true, Rules: true, Targets: true, Metadata: true, Exemplars: true, Status: true,
			ExemplarsMint: mint, ExemplarsMaxt: storeapi.MaxTime,
		},
	}, nil
}

// question is a selection as Prometheus can answer it.
type question struct {
	ext labels.Labels
	sel storeapi.Selection
	promapi.Range
	clash bool // series may have external or replica labels of their own
}

// ask translates a selection. It returns false when nothing can match it.
func (s *liveStore) ask(sel storeapi.Selection) (question, bool, error) {
	st, err := s.state()
	if err != nil {
		return question{}, false, err
	}
	rest, ok := block.MatchExternal(st.labels, sel.Matchers)
	q := question{ext: st.labels, sel: sel, Range: promapi.Range{
		Mint:     max(sel.Mint, s.minTime.Millis(s.now(), math.MinInt64)),
		Maxt:     sel.Maxt,
		Matchers: rest,
	}}
	return q, ok && q.Mint <= q.Maxt, nil
}

// Series streams the series that match. Of one series all chunks are in memory at once.
func (s *liveStore) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	q, ok, err := s.ask(sel)
	if err != nil {
		return nil, err
	}
	if !ok {
		return storeapi.EmptySet(storeapi.Report{}), nil
	}
	if len(q.Matchers) == 0 {
		return nil, fmt.Errorf("%w: no matchers specified (excluding external labels)", storeapi.ErrBadRequest)
	}
	if q.clash, err = s.names.any(ctx, q.ext, sel.WithoutReplicaLabels); err != nil {
		s.ended(err, storeapi.Report{})
		return nil, err
	}
	if q.clash {
		s.metrics.sorted.Inc()
	}
	release, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	open := s.read
	if sel.SkipChunks {
		open = s.labelsOnly
	}
	set, err := open(ctx, q)
	if err != nil {
		release()
		s.ended(err, storeapi.Report{})
		return nil, err
	}
	checked := &checkedSet{SeriesSet: set, end: func(err error, r storeapi.Report) {
		release()
		s.ended(err, r)
	}}
	return storeapi.Limit(storeapi.Sharded(checked, sel.Shard), sel.Limit), nil
}

// acquire waits for the right to read from Prometheus and returns what gives it back.
func (s *liveStore) acquire(ctx context.Context) (func(), error) {
	s.metrics.waiting.Inc()
	defer s.metrics.waiting.Dec()
	select {
	case s.slots <- struct{}{}:
		s.metrics.reads.Inc()
		return func() { <-s.slots; s.metrics.reads.Dec() }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for other reads of Prometheus (--prometheus.max-concurrent-reads): %w", context.Cause(ctx))
	}
}

// ended takes note of how an answer ended.
func (s *liveStore) ended(err error, r storeapi.Report) {
	s.metrics.series.Add(float64(r.Stats.SeriesFetched))
	s.metrics.chunks.Add(float64(r.Stats.ChunksFetched))
	s.metrics.bytes.Add(float64(r.Stats.ChunksFetchedBytes))
	s.metrics.requests.WithLabelValues(result(err)).Inc()
	if isDisorder(err) {
		s.metrics.disorder.Inc()
	}
	s.doubt(err)
}

// doubt has everything asked anew after an error which may mean that Prometheus
// is gone, or that its labels are others than we think.
func (s *liveStore) doubt(err error) {
	if isUnavailable(err) {
		s.names.forget()
		s.suspect()
	}
}

// read answers by remote read.
func (s *liveStore) read(ctx context.Context, q question) (storeapi.SeriesSet, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	idle := newIdleTimer(s.idle, cancel)
	read, err := s.prom.Read(ctx, q.Range)
	idle.stop()
	if err != nil {
		cancel(nil)
		return nil, err
	}
	use := &usage{limits: s.limits}
	in := &readSet{ctx: ctx, cancel: cancel, body: read, idle: idle, ext: q.ext, use: use}
	if read.Frames != nil {
		in.next = read.Frames.Next
	} else {
		in.next = newSampleParts(read.Samples, q.ext).next
	}
	var set storeapi.SeriesSet = in
	if q.clash {
		set = &heldSet{SeriesSet: in, use: use}
	}
	return storeapi.Extended(set, q.ext, q.sel.WithoutReplicaLabels, q.clash), nil
}

// labelsOnly answers by the list of series, which it has to sort.
func (s *liveStore) labelsOnly(ctx context.Context, q question) (storeapi.SeriesSet, error) {
	use := &usage{limits: s.limits}
	ext := storeapi.NewExtender(q.ext, q.sel.WithoutReplicaLabels)
	if !q.clash && q.sel.Shard == nil {
		q.Limit = q.sel.Limit // each series that Prometheus counts is one of the answer
	}
	var lsets []labels.Labels
	err := s.prom.Series(ctx, q.Range, func(lset labels.Labels) error {
		lset = ext.Extend(lset)
		lsets = append(lsets, lset)
		if err := use.addSeries(); err != nil {
			return err
		}
		return use.hold(labelBytes(lset))
	})
	if err != nil {
		return nil, err
	}
	report := storeapi.Report{Stats: storeapi.Stats{SeriesFetched: int64(len(lsets))}}
	return labelSet(lsets, report), nil
}

// LabelNames returns the label names of the series that match.
func (s *liveStore) LabelNames(ctx context.Context, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	q, ok, err := s.ask(sel)
	if err != nil || !ok {
		return nil, storeapi.Report{}, err
	}
	names, warnings, err := s.prom.LabelNames(ctx, q.Range)
	if err != nil {
		s.doubt(err)
		return nil, storeapi.Report{}, err
	}
	if len(names) > 0 {
		q.ext.Range(func(l labels.Label) { names = append(names, l.Name) })
	}
	names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(sel.WithoutReplicaLabels, n) })
	report, err := s.report(warnings, sel)
	return sorted(names, sel.Limit), report, err
}

// LabelValues returns the values of a label of the series that match. An
// external label has one, if any series match.
func (s *liveStore) LabelValues(ctx context.Context, name string, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	if name == "" {
		return nil, storeapi.Report{}, fmt.Errorf("%w: label name parameter cannot be empty", storeapi.ErrBadRequest)
	}
	q, ok, err := s.ask(sel)
	if err != nil || !ok || slices.Contains(sel.WithoutReplicaLabels, name) {
		return nil, storeapi.Report{}, err
	}
	var values, warnings []string
	if q.ext.Has(name) {
		q.Limit = 1 // one label name tells that there are series
		values, warnings, err = s.prom.LabelNames(ctx, q.Range)
		if len(values) > 0 {
			values = []string{q.ext.Get(name)}
		}
	} else {
		q.Limit = sel.Limit
		values, warnings, err = s.prom.LabelValues(ctx, name, q.Range)
	}
	if err != nil {
		s.doubt(err)
		return nil, storeapi.Report{}, err
	}
	if q.Limit > 0 {
		warnings = nil // they say that there was more, as wanted
	}
	report, err := s.report(warnings, sel)
	return sorted(values, sel.Limit), report, err
}

// report passes warnings of Prometheus on, or makes an error of them where the selection wants all or nothing.
func (s *liveStore) report(warnings []string, sel storeapi.Selection) (storeapi.Report, error) {
	for i, w := range warnings {
		warnings[i] = fmt.Sprintf("prometheus %s: %s", s.prom.URL(), w)
	}
	if len(warnings) > 0 && !sel.PartialResponse {
		return storeapi.Report{}, fmt.Errorf("%w: %s", storeapi.ErrPartial, strings.Join(warnings, "; "))
	}
	return storeapi.Report{Warnings: warnings}, nil
}

// sorted returns the first limit of values, sorted, each once; 0 is no limit.
func sorted(values []string, limit int) []string {
	slices.Sort(values)
	values = slices.Compact(values)
	if limit > 0 && len(values) > limit {
		values = values[:limit]
	}
	return values
}
