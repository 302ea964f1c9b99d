package heads

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/tenant"
)

// Services returns what the tenants' TSDBs answer: all of them together, or one
// alone where the context carries a tenant. They fail with ErrUnavailable until
// all logs have been read.
func (hs *Heads) Services() storeapi.Services {
	return storeapi.Services{Store: (*store)(hs), Metadata: (*extras)(hs), Exemplars: (*extras)(hs), Status: (*extras)(hs)}
}

// store answers selections from heads and local blocks. A tenant's samples can
// be told by its external label, which is part of every series.
type store Heads

// externalOf are the external labels of a tenant's data. Those of a tenant's
// own come last, so that a hashring can't pass one off as another.
func (hs *Heads) externalOf(id tenant.ID) labels.Labels {
	b := labels.NewBuilder(hs.external)
	hs.ring(id).Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	b.Set(hs.cfg.TenantLabel, string(id))
	return b.Labels()
}

// reading are the heads that an answer is made of, and the tenants whose data
// should be in it and can't be had.
type reading struct {
	heads   []*head // to be released
	missing map[tenant.ID]error
}

func (r *reading) release() {
	for _, h := range r.heads {
		h.release()
	}
	r.heads = nil
}

// openingPatience is how long a read waits for a tenant whose TSDB is being
// opened. A new tenant's takes milliseconds.
const openingPatience = 2 * time.Second

// readable returns the heads of the tenants that fit, each retained.
func (hs *Heads) readable(ctx context.Context, fit func(id tenant.ID) bool) (*reading, error) {
	hs.mu.Lock()
	if hs.mu.state != serving {
		hs.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, hs.Ready())
	}
	slots := map[tenant.ID]*slot{}
	for id, s := range hs.mu.slots {
		if fit(id) {
			slots[id] = s
		}
	}
	hs.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, openingPatience, errors.New("its log is being read"))
	defer cancel()
	r := &reading{missing: map[tenant.ID]error{}}
	for id, s := range slots {
		h, err := hs.await(ctx, id, s)
		switch {
		case err != nil:
			r.missing[id] = err
		case h != nil:
			r.heads = append(r.heads, h)
		}
	}
	slices.SortFunc(r.heads, func(a, b *head) int { return compareIDs(a.id, b.id) })
	return r, nil
}

func compareIDs(a, b tenant.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// await returns a slot's head, retained. nil without an error: the tenant is gone.
func (hs *Heads) await(ctx context.Context, id tenant.ID, s *slot) (*head, error) {
	for {
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if s.head != nil && s.head.retain() {
			return s.head, nil
		}
		// Closed meanwhile, or never opened: another slot may have taken its place.
		hs.mu.Lock()
		next := hs.mu.slots[id]
		hs.mu.Unlock()
		switch {
		case next == nil:
			return nil, nil
		case next == s && s.err == nil: // at the end of Run
			return nil, errStopping
		case next == s:
			return nil, s.err
		}
		s = next
	}
}

// report says what is missing, as a warning or an error.
func (r *reading) report(partial bool) (storeapi.Report, error) {
	var report storeapi.Report
	for id, err := range r.missing {
		if !partial {
			return storeapi.Report{}, fmt.Errorf("%w: tenant %s: %w", storeapi.ErrUnavailable, id, err)
		}
		report.Warnings = append(report.Warnings, fmt.Sprintf("tenant %s can't be read here: %s", id, err))
	}
	slices.Sort(report.Warnings)
	return report, nil
}

// mayRead tells whose data the context may see.
func mayRead(ctx context.Context) func(tenant.ID) bool {
	if only, ok := tenant.FromContext(ctx); ok {
		return func(id tenant.ID) bool { return id == only }
	}
	return func(tenant.ID) bool { return true }
}

// Info lists each tenant as a data set of its own.
func (st *store) Info(ctx context.Context) (storeapi.Info, error) {
	hs := (*Heads)(st)
	r, err := hs.readable(ctx, mayRead(ctx))
	if err != nil {
		return storeapi.Info{}, err
	}
	defer r.release()
	info := storeapi.Info{
		Component: "receive", Mint: storeapi.MaxTime, Maxt: storeapi.MaxTime,
		SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{Store: true, Metadata: true, Exemplars: true, Status: true, ExemplarsMaxt: storeapi.MaxTime},
	}
	add := func(ext labels.Labels, mint int64) {
		info.LabelSets = append(info.LabelSets, ext)
		info.TSDBs = append(info.TSDBs, storeapi.TSDBInfo{Labels: ext, Mint: mint, Maxt: storeapi.MaxTime})
		info.Mint = min(info.Mint, mint)
	}
	for _, h := range r.heads {
		mint, _, ok := h.bounds()
		if !ok {
			mint = hs.now().UnixMilli()
		}
		add(hs.externalOf(h.id), mint)
	}
	for id := range r.missing { // what it holds is not known, so all is asked of us, and answered with a warning
		add(hs.externalOf(id), math.MinInt64)
	}
	if _, one := tenant.FromContext(ctx); !one {
		// A tenant that sends for the first time is to be asked for at once, not
		// when this is heard the next time.
		add(hs.external, hs.now().Add(-time.Duration(hs.cfg.Retention)).UnixMilli())
	}
	info.Services.ExemplarsMint = info.Mint
	return info, nil
}

// part is a selection as one tenant's TSDB can answer it.
type part struct {
	head *head
	ext  labels.Labels
	rest []*labels.Matcher
}

// parts splits a selection by tenant. bare tells that a tenant matches by its external labels alone.
func (hs *Heads) parts(ctx context.Context, sel storeapi.Selection) (r *reading, parts []part, bare bool, err error) {
	may := mayRead(ctx)
	r, err = hs.readable(ctx, func(id tenant.ID) bool {
		rest, ok := block.MatchExternal(hs.externalOf(id), sel.Matchers)
		bare = bare || ok && len(rest) == 0 && may(id)
		return ok && may(id)
	})
	if err != nil {
		return nil, nil, false, err
	}
	for _, h := range r.heads {
		ext := hs.externalOf(h.id)
		rest, _ := block.MatchExternal(ext, sel.Matchers)
		parts = append(parts, part{head: h, ext: ext, rest: rest})
	}
	return r, parts, bare, nil
}

// Series streams the series that match, of all tenants in the order of labels.
func (st *store) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	hs := (*Heads)(st)
	r, parts, bare, err := hs.parts(ctx, sel)
	if err != nil {
		return nil, err
	}
	if bare {
		r.release()
		return nil, fmt.Errorf("%w: no matchers specified (excluding external labels)", storeapi.ErrBadRequest)
	}
	report, err := r.report(sel.PartialResponse)
	if err != nil {
		r.release()
		return nil, err
	}
	hs.metrics.reads.Inc()
	use := &usage{series: hs.cfg.RequestSeries, samples: hs.cfg.RequestSamples}
	sets := []storeapi.SeriesSet{storeapi.EmptySet(report)}
	for _, p := range parts {
		set, err := p.series(ctx, sel, use)
		if err != nil {
			for _, s := range sets {
				s.Close()
			}
			r.release()
			hs.ended(err, storeapi.Report{})
			return nil, err
		}
		sets = append(sets, set)
	}
	whole := &endingSet{SeriesSet: storeapi.Merge(sets...), end: func(err error, rep storeapi.Report) {
		r.release()
		hs.ended(err, rep)
	}}
	return storeapi.Limit(storeapi.Sharded(whole, sel.Shard), sel.Limit), nil
}

// ended takes note of how an answer ended.
func (hs *Heads) ended(err error, r storeapi.Report) {
	hs.metrics.reads.Dec()
	hs.metrics.series.Add(float64(r.Stats.SeriesFetched))
	hs.metrics.chunks.Add(float64(r.Stats.ChunksFetched))
	hs.metrics.bytes.Add(float64(r.Stats.ChunksFetchedBytes))
	result := "ok"
	switch {
	case errors.Is(err, context.Canceled):
		result = "canceled"
	case errors.Is(err, storeapi.ErrLimit):
		result = "limit"
	case err != nil:
		result = "error"
	}
	hs.metrics.results.WithLabelValues(result).Inc()
}

// series opens the answer of one tenant. The TSDB's querier is a snapshot: what is
// cut into a block meanwhile it reads where it was.
func (p *part) series(ctx context.Context, sel storeapi.Selection, use *usage) (storeapi.SeriesSet, error) {
	clash, err := p.clash(ctx, sel)
	if err != nil {
		return nil, err
	}
	if clash {
		p.head.heads.metrics.sorted.Inc()
	}
	q, err := p.head.db.ChunkQuerier(sel.Mint, sel.Maxt)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: open for reading: %w", p.head.id, err)
	}
	hints := &storage.SelectHints{Start: sel.Mint, End: sel.Maxt, DisableTrimming: true}
	if sel.Limit > 0 && !clash && sel.Shard == nil {
		hints.Limit = sel.Limit
	}
	in := &chunkSet{ctx: ctx, id: p.head.id, querier: q, in: q.Select(ctx, true, hints, p.rest...), skip: sel.SkipChunks, use: use}
	return storeapi.Extended(in, p.ext, sel.WithoutReplicaLabels, clash), nil
}

// clash tells whether series may have an external or replica label of their own.
func (p *part) clash(ctx context.Context, sel storeapi.Selection) (bool, error) {
	q, err := p.head.db.Querier(sel.Mint, sel.Maxt)
	if err != nil {
		return false, fmt.Errorf("tenant %s: open for reading: %w", p.head.id, err)
	}
	defer q.Close()
	names, _, err := q.LabelNames(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("tenant %s: label names, to decide on sorting: %w", p.head.id, err)
	}
	return slices.ContainsFunc(names, func(n string) bool {
		return p.ext.Has(n) || slices.Contains(sel.WithoutReplicaLabels, n)
	}), nil
}

// LabelNames returns the label names of the series that match.
func (st *store) LabelNames(ctx context.Context, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	return (*Heads)(st).strings(ctx, sel, func(p *part, q storage.Querier) ([]string, error) {
		names, _, err := q.LabelNames(ctx, nil, p.rest...)
		if err == nil && len(names) > 0 {
			p.ext.Range(func(l labels.Label) { names = append(names, l.Name) })
		}
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(sel.WithoutReplicaLabels, n) }), err
	})
}

// LabelValues returns the values of a label of the series that match. An
// external label has one a tenant, if any of its series match.
func (st *store) LabelValues(ctx context.Context, name string, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	if name == "" {
		return nil, storeapi.Report{}, fmt.Errorf("%w: label name parameter cannot be empty", storeapi.ErrBadRequest)
	}
	if slices.Contains(sel.WithoutReplicaLabels, name) {
		return nil, storeapi.Report{}, nil
	}
	return (*Heads)(st).strings(ctx, sel, func(p *part, q storage.Querier) ([]string, error) {
		if !p.ext.Has(name) {
			values, _, err := q.LabelValues(ctx, name, nil, p.rest...)
			return values, err
		}
		names, _, err := q.LabelNames(ctx, nil, p.rest...)
		if err != nil || len(names) == 0 {
			return nil, err
		}
		return []string{p.ext.Get(name)}, nil
	})
}

// strings collects what of returns for each tenant that matches, sorted, each once.
func (hs *Heads) strings(ctx context.Context, sel storeapi.Selection, of func(*part, storage.Querier) ([]string, error)) ([]string, storeapi.Report, error) {
	r, parts, _, err := hs.parts(ctx, sel)
	if err != nil {
		return nil, storeapi.Report{}, err
	}
	defer r.release()
	report, err := r.report(sel.PartialResponse)
	if err != nil {
		return nil, storeapi.Report{}, err
	}
	var out []string
	for _, p := range parts {
		got, err := p.ask(sel, of)
		if err != nil {
			return nil, storeapi.Report{}, fmt.Errorf("tenant %s: %w", p.head.id, err)
		}
		for _, s := range got {
			out = append(out, clone(s))
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if sel.Limit > 0 && len(out) > sel.Limit {
		out = out[:sel.Limit]
	}
	return out, report, nil
}

func (p *part) ask(sel storeapi.Selection, of func(*part, storage.Querier) ([]string, error)) ([]string, error) {
	q, err := p.head.db.Querier(sel.Mint, sel.Maxt)
	if err != nil {
		return nil, err
	}
	out, err := of(p, q)
	for i, s := range out {
		out[i] = clone(s) // a block's strings are its file's, mapped
	}
	return out, errors.Join(err, q.Close())
}
