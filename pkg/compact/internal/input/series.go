package input

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/layout"
)

// seriesReader goes through the series entries of an index.
type seriesReader struct {
	b       *Block
	span    layout.Span // of the entries, from the first on
	symbols int64       // of the index; -1: not known yet

	s      *stream // nil: not begun
	pos    int64   // offset of the next entry
	read   int64   // entries before pos
	series Series
	held   bool // series is the next one, not the one before
}

func (r *seriesReader) init(b *Block) {
	*r = seriesReader{b: b, symbols: -1}
	r.span = layout.Span{Start: layout.AlignSeries(b.toc.Series.Start), End: b.toc.Series.End}
	r.pos = r.span.Start
}

func (r *seriesReader) close() {
	if r.s != nil {
		r.s.release()
		r.s = nil
	}
}

// Next reads the next series, in the order in which the index has them; that it
// ascends is for the caller to check. At the end it is io.EOF.
func (b *Block) Next(ctx context.Context) (*Series, error) {
	s, err := b.series.next(ctx)
	if err != nil && err != io.EOF { //nolint:errorlint // ours, unwrapped
		return nil, b.fail(err)
	}
	return s, err
}

func (r *seriesReader) next(ctx context.Context) (*Series, error) {
	if r.held {
		r.held = false
		return &r.series, nil
	}
	r.begin()
	if r.pos >= r.span.End {
		return nil, io.EOF
	}
	content, size, err := r.entry(ctx)
	if err != nil {
		return nil, err
	}
	if err = r.series.Decode(content); err == nil {
		err = r.check(&r.series)
	}
	if err != nil {
		return nil, r.b.remote.Index.Corrupt(r.pos, fmt.Errorf("series entry: %w", err))
	}
	r.pos = layout.AlignSeries(r.pos + size)
	r.read++
	return &r.series, nil
}

func (r *seriesReader) begin() {
	if r.s == nil {
		r.b.endSymbols()
		r.s = newStream(&r.b.remote.Index, r.pos, r.span.End, r.b.window)
	}
}

// entry returns the content of the entry at pos and the length of the whole. What
// can't be right is read a second time.
func (r *seriesReader) entry(ctx context.Context) ([]byte, int64, error) {
	content, size, bad, err := r.s.record(ctx, r.pos, layout.SeriesRecord)
	if err != nil || bad == nil {
		return content, size, err
	}
	for range 2 {
		padding, err := r.padding(ctx)
		if err != nil {
			return nil, 0, err
		}
		if padding {
			r.pos = r.span.End
			return nil, 0, io.EOF
		}
		r.s.jump(r.pos, firstRead)
		if content, size, bad, err = r.s.record(ctx, r.pos, layout.SeriesRecord); err != nil || bad == nil {
			return content, size, err
		}
	}
	return nil, 0, r.b.remote.Index.Corrupt(r.pos, fmt.Errorf("series entry: %w", bad))
}

// padding tells whether there are only zeroes from pos on, where all series of
// the block have been read: zeroes alone could also be what a disk has lost.
func (r *seriesReader) padding(ctx context.Context) (bool, error) {
	if n := r.b.meta.Stats.NumSeries; n == 0 || uint64(r.read) != n {
		return false, nil
	}
	for at := r.pos; at < r.span.End; {
		b, err := r.s.peek(ctx, at, 1)
		if err != nil {
			return false, err
		}
		if len(bytes.Trim(b, "\x00")) > 0 {
			return false, nil
		}
		at += int64(len(b))
	}
	return true, nil
}

// check compares a series with the symbols, once these have been read.
func (r *seriesReader) check(s *Series) error {
	if n, ok := r.unknown(s); ok {
		return fmt.Errorf("it has symbol %d, there are %d", n, r.symbols)
	}
	return nil
}

// unknown finds a symbol that the index is known not to have.
func (r *seriesReader) unknown(s *Series) (symbol int64, ok bool) {
	if r.symbols < 0 {
		return 0, false
	}
	for _, l := range s.Labels {
		if n := int64(max(l.Name, l.Value)); n >= r.symbols {
			return n, true
		}
	}
	return 0, false
}

// Seek makes the next series the first one that before is false for; before must
// be true for all series up to some place and false from there on. The block's
// postings only tell where to look, and need not be right: a stretch of the
// index is read through before Seek believes to be there.
func (b *Block) Seek(ctx context.Context, before func(*Series) (bool, error)) error {
	b.endSymbols()
	if err := b.series.seek(ctx, before); err != nil {
		return b.fail(err)
	}
	return nil
}

// scanBytes is how much of the series is read rather than searched.
const scanBytes = 256 << 10

func (r *seriesReader) seek(ctx context.Context, before func(*Series) (bool, error)) error {
	from, err := r.search(ctx, before)
	if err != nil {
		return err
	}
	r.close()
	r.pos, r.read, r.held = from.at, from.number, false
	for {
		s, err := r.next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if is, err := before(s); err != nil || !is {
			r.held = err == nil
			return err
		}
	}
}

// place is that of a series entry.
type place struct{ number, at int64 }

// search finds a series from which on to read: the first one, or one that before
// is true for, with little between it and the first that isn't.
func (r *seriesReader) search(ctx context.Context, before func(*Series) (bool, error)) (place, error) {
	low := place{0, r.span.Start}
	if r.span.Len() <= scanBytes {
		return low, nil
	}
	list, err := r.b.openRefs(ctx)
	if err != nil {
		return low, ignoreCorrupt(err)
	}
	var s Series
	high := place{list.Count, r.span.End}
	for high.number-low.number > 1 && high.at-low.at > scanBytes {
		mid := place{number: low.number + (high.number-low.number)/2}
		if mid.at, err = list.Entry(ctx, mid.number, high.number-low.number, &s); err != nil {
			return low, ignoreCorrupt(err)
		}
		if _, wrong := r.unknown(&s); wrong || mid.at <= low.at || mid.at >= high.at {
			return low, nil // the list is damaged
		}
		is, err := before(&s)
		if err != nil {
			return low, err
		}
		if is {
			low = mid
		} else {
			high = mid
		}
	}
	return low, nil
}

// ignoreCorrupt lets a search end early: what matters is read again by who
// comes after it.
func ignoreCorrupt(err error) error {
	if errors.Is(err, block.ErrCorrupt) {
		return nil
	}
	return err
}

func (b *Block) openRefs(ctx context.Context) (*block.SeriesRefs, error) {
	return block.OpenSeriesRefs(ctx, &b.remote.Index, b.toc, b.meta.Thanos.IndexStats.SeriesMaxSize)
}
