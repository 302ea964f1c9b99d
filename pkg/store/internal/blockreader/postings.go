package blockreader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/indexcache"
)

// checkEvery is after how many postings the context is looked at.
const checkEvery = 4096

// list is a postings list to be had, from the cache or the bucket.
type list struct {
	key     indexcache.Key
	span    fetch.Span
	content []byte // count and references, when it is there
}

// selectRefs returns the references of the series that match, in the order of
// the index, which is that of their labels.
func (b *Block) selectRefs(ctx context.Context, ms []*labels.Matcher, w *Work) ([]storage.SeriesRef, error) {
	p, err := planMatchers(ctx, ms, b.header)
	if err != nil || p.none {
		return nil, err
	}
	lists, at := p.unique(b)
	held, err := b.loadLists(ctx, lists, w)
	defer w.Limits.Held.Give(held)
	if err != nil {
		return nil, fmt.Errorf("postings: %w", err)
	}
	it, err := p.evaluate(ctx, func(span fetch.Span) (index.Postings, error) {
		l := lists[at[span]]
		_, it, err := index.DecodePostingsRaw(encoding.Decbuf{B: l.content})
		if err != nil {
			return nil, corrupt(b.files.Index.Name, l.span.Start, "postings: %v", err)
		}
		return it, nil
	})
	if err != nil {
		return nil, err
	}
	return b.expand(ctx, it, w.Limits.Touched)
}

// unique lists each list of a plan once, sorted by place, and where to find each.
func (p plan) unique(b *Block) ([]list, map[fetch.Span]int) {
	var lists []list
	at := map[fetch.Span]int{}
	for _, g := range slices.Concat(p.add, p.sub) {
		for _, l := range g.lists {
			if _, ok := at[l.Span]; !ok {
				at[l.Span] = 0
				key := indexcache.Key{Kind: indexcache.Postings, Block: b.id, Name: g.name, Value: l.Value}
				lists = append(lists, list{key: key, span: l.Span})
			}
		}
	}
	slices.SortFunc(lists, func(a, b list) int { return int(a.span.Start - b.span.Start) })
	for i, l := range lists {
		at[l.span] = i
	}
	return lists, at
}

// loadLists fills in the contents of lists, which are sorted, by one batch of
// reads. It returns how many bytes it holds for them, with an error too.
func (b *Block) loadLists(ctx context.Context, lists []list, w *Work) (held int64, err error) {
	var missing []int
	for i := range lists {
		l := &lists[i]
		w.Stats.PostingsTouched++
		w.Stats.PostingsTouchedBytes += l.span.Len()
		if v, ok := b.parts.Cache.Get(l.key); ok {
			if content, _, err := fetch.Postings.Content(v); err == nil && content != nil {
				l.content = content
				continue
			}
			b.parts.Cache.Drop(l.key)
		}
		missing = append(missing, i)
	}
	if len(missing) == 0 {
		return 0, nil
	}
	spans := make([]fetch.Span, len(missing))
	for i, m := range missing {
		spans[i] = lists[m].span
	}
	records, cost, err := b.parts.Fetcher.Records(ctx, w.Limits.terms(0), fetch.Postings, b.files.Index, spans)
	w.Stats.PostingsFetched += int64(len(missing))
	w.Stats.PostingsFetches += cost.Reads
	w.Stats.PostingsFetchedBytes += cost.Bytes
	w.spent(cost)
	if err != nil {
		return cost.Bytes, err
	}
	for i, m := range missing {
		l := &lists[m]
		l.content = fetch.Postings.Strip(records[i])
		b.parts.Cache.Put(l.key, records[i])
	}
	return cost.Bytes, nil
}

// evaluate combines the lists of a plan; open returns the one at a span.
func (p plan) evaluate(ctx context.Context, open func(fetch.Span) (index.Postings, error)) (index.Postings, error) {
	union := func(g group) (index.Postings, error) {
		its := make([]index.Postings, len(g.lists))
		for i, l := range g.lists {
			var err error
			if its[i], err = open(l.Span); err != nil {
				return nil, err
			}
		}
		return index.Merge(ctx, its...), nil
	}
	add := make([]index.Postings, len(p.add))
	for i, g := range p.add {
		var err error
		if add[i], err = union(g); err != nil {
			return nil, err
		}
	}
	it := index.Intersect(add...)
	for _, g := range p.sub {
		drop, err := union(g)
		if err != nil {
			return nil, err
		}
		it = index.Without(it, drop)
	}
	return it, nil
}

// expand reads it to its end and counts against touched.
func (b *Block) expand(ctx context.Context, it index.Postings, touched *fetch.Budget) ([]storage.SeriesRef, error) {
	var refs []storage.SeriesRef
	counted := 0
	count := func() error {
		err := errors.Join(ctx.Err(), touched.Take(int64(len(refs)-counted)))
		counted = len(refs)
		return err
	}
	for it.Next() {
		if n := len(refs); n > 0 && it.At() <= refs[n-1] {
			return nil, corrupt(b.files.Index.Name, int64(it.At()), "postings out of order")
		}
		refs = append(refs, it.At())
		if len(refs)%checkEvery == 0 {
			if err := count(); err != nil {
				return nil, err
			}
		}
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	return refs, count()
}
