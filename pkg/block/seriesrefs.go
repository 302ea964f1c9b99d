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

	index  *RangeReader
	series layout.Span
	guess  int64 // bytes of an entry
	from   int64 // number of the first reference in some
	some   []byte
}

// SeriesRefsAtOnce is how many references are read together, where so many are near.
const SeriesRefsAtOnce = 16 << 10

// OpenSeriesRefs finds the list through the postings offset table. longest is
// how many bytes an entry has at most; 0: not known.
func OpenSeriesRefs(ctx context.Context, index *RangeReader, toc layout.TOC, longest int64) (*SeriesRefs, error) {
	const least, most = 1 << 10, 64 << 10
	refs := &SeriesRefs{index: index, series: toc.Series, guess: min(max(longest, least), most)}
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

// Entry reads the i-th series entry into s and returns where it begins. The
// caller is looking for something among around entries, i in their middle. What
// can't be right is read a second time: the entry, and what led to it.
func (r *SeriesRefs) Entry(ctx context.Context, i, around int64, s *layout.Series) (at int64, err error) {
	for range 2 {
		if at, err = r.entry(ctx, i, around, s); !errors.Is(err, ErrCorrupt) {
			return at, err
		}
		r.some = nil
	}
	return at, err
}

func (r *SeriesRefs) entry(ctx context.Context, i, around int64, s *layout.Series) (int64, error) {
	at, err := r.offset(ctx, i, around)
	if err != nil {
		return 0, err
	}
	if at < r.series.Start || at >= r.series.End {
		return 0, r.index.Corrupt(r.Place.Start, fmt.Errorf("postings: series %d is said to be at offset %d", i, at))
	}
	content, err := r.index.Record(ctx, layout.Span{Start: at, End: r.series.End}, layout.SeriesRecord, r.guess)
	if err != nil {
		return 0, fmt.Errorf("series entry: %w", err)
	}
	if err := s.Decode(content); err != nil {
		return 0, r.index.Corrupt(at, fmt.Errorf("series entry: %w", err))
	}
	return at, nil
}

// offset is where the i-th entry begins.
func (r *SeriesRefs) offset(ctx context.Context, i, around int64) (int64, error) {
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
