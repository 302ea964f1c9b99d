package block

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnline/firnline/pkg/block/layout"
)

// SeriesRefs is the postings list of all series of an index: where each of
// their entries begins, in order. Its checksum is not compared, since it is not
// read whole; who uses it must see by the entries whether it is right.
type SeriesRefs struct {
	Count int64
	// Place is the whole list, as a layout.PostingsRecord.
	Place layout.Span

	index *RangeReader
	from  int64 // number of the first reference in some
	some  []byte
}

// SeriesRefsAtOnce is how many references are read together, where so many are near.
const SeriesRefsAtOnce = 16 << 10

// OpenSeriesRefs finds the list through the postings offset table.
func OpenSeriesRefs(ctx context.Context, index *RangeReader, toc layout.TOC) (*SeriesRefs, error) {
	refs := &SeriesRefs{index: index}
	found, err := refs.find(ctx, toc)
	if err != nil || !found {
		return refs, err
	}
	err = index.Checked(ctx, refs.Place.Start, layout.PostingsHeadLen, func(b []byte) (err error) {
		refs.Count, err = layout.PostingsCount(b)
		refs.Place.End = refs.Place.Start + layout.PostingsLen(refs.Count)
		if err == nil && refs.Place.End > toc.Postings.End {
			err = layout.ErrLength
		}
		return err
	})
	return refs, err
}

func (r *SeriesRefs) find(ctx context.Context, toc layout.TOC) (found bool, err error) {
	table := toc.PostingsTable
	err = r.index.Checked(ctx, table.Start, min(layout.AllPostingsBytes, table.Len()), func(b []byte) (err error) {
		r.Place.Start, found, err = layout.AllPostings(b)
		if err == nil && found && (r.Place.Start < toc.Postings.Start || r.Place.Start > toc.Postings.End-layout.PostingsHeadLen) {
			err = errors.New("the list of all series is outside the postings")
		}
		if err != nil {
			return fmt.Errorf("postings offset table: %w", err)
		}
		return nil
	})
	return found, err
}

// Offset is where the i-th entry begins. The caller is looking for something
// among around entries, i in their middle.
func (r *SeriesRefs) Offset(ctx context.Context, i, around int64) (int64, error) {
	if i < r.from || i >= r.from+int64(len(r.some))/layout.RefLen {
		n := int64(1)
		r.from = i
		if around <= SeriesRefsAtOnce {
			r.from = max(i-around/2, 0)
			n = min(around+1, r.Count-r.from)
		}
		r.some = make([]byte, n*layout.RefLen)
		at := r.Place.Start + layout.PostingsHeadLen + r.from*layout.RefLen
		if err := r.index.Read(ctx, at, r.some); err != nil {
			r.some = nil
			return 0, err
		}
	}
	return layout.SeriesOffset(r.some[(i-r.from)*layout.RefLen:]), nil
}
