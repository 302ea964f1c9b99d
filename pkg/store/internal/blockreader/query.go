package blockreader

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Query is what is wanted of a block.
type Query struct {
	Mint, Maxt int64             // closed interval, ms
	Matchers   []*labels.Matcher // without those that external labels satisfy

	External   labels.Labels // of the block
	Without    []string      // replica labels, removed
	Shard      *storeapi.Shard
	SkipChunks bool
	Aggregates []storeapi.Aggregate

	// Hidden tells which samples of a series, by its labels without external
	// ones, must not be shown; nil: all are.
	Hidden     storeapi.Hidden
	Resolution int64 // of the block, ms

	BatchSeries int   // series entries read at once
	BatchBytes  int64 // of the index held for them
	WindowBytes int64 // of chunks read at once
}

// clashes tells whether series of the block may have a label that is set or
// removed by q, so that their order can change at will.
func (b *Block) clashes(ctx context.Context, q *Query) (clash bool, err error) {
	names := slices.Clone(q.Without)
	q.External.Range(func(l labels.Label) { names = append(names, l.Name) })
	for _, n := range names {
		if clash, err = b.header.HasName(ctx, n); clash || err != nil {
			return clash, err
		}
	}
	return false, nil
}

// scan reads the entries of all series that match and have chunks in time, by
// batches in the order of the index, and hands each batch to f.
func (b *Block) scan(ctx context.Context, q *Query, w *Work, f func([]entry) error) error {
	refs, err := b.selectRefs(ctx, q.Matchers, w)
	if err != nil {
		return err
	}
	for len(refs) > 0 {
		n := b.batch(refs, q)
		entries, err := b.loadEntries(ctx, refs[:n], q.BatchBytes, w)
		if err != nil {
			return err
		}
		entries = slices.DeleteFunc(entries, func(e entry) bool { return !e.within(q.Mint, q.Maxt) })
		if err := f(entries); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		refs = refs[n:]
	}
	return nil
}

// batch is how many of refs, at least one, are read at once: few where they lie
// so far apart that much beside them would be read.
func (b *Block) batch(refs []storage.SeriesRef, q *Query) int {
	reach := b.parts.Fetcher.Reach(q.BatchBytes)
	n := 0
	for n < min(len(refs), q.BatchSeries) && reach.Bytes < q.BatchBytes {
		at := int64(refs[n]) * refUnit
		reach.Add(fetch.Span{Start: at, End: at + b.files.MaxSeriesLen})
		n++
	}
	return max(n, 1)
}
