package input

import (
	"context"
	"errors"
	"fmt"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/layout"
)

// allPostings is the postings list of all series: where each of their entries
// begins, in order. Its checksum is not compared, since it is never read whole;
// who uses it must not depend on its being right.
type allPostings struct {
	index *object
	refs  layout.Span // in the index
	count int64

	from int64 // number of the first reference in some
	some []byte
}

// refsAtOnce is how many references are read once a search has come so close.
const refsAtOnce = 16 << 10

func openAllPostings(ctx context.Context, b *Block) (*allPostings, error) {
	p := &allPostings{index: &b.files.index}
	table := b.toc.PostingsTable
	head := make([]byte, min(layout.AllPostingsBytes, table.Len()))
	if err := p.index.read(ctx, table.Start, head); err != nil {
		return nil, err
	}
	at, ok, err := layout.AllPostings(head)
	if err != nil || ok && (at < b.toc.Postings.Start || at > b.toc.Postings.End-layout.PostingsHeadLen) {
		return nil, p.index.corrupt(table.Start, fmt.Errorf("postings offset table: list at %d: %w", at, errors.Join(layout.ErrLength, err)))
	}
	if !ok {
		return p, nil
	}
	if err := p.index.read(ctx, at, head[:layout.PostingsHeadLen]); err != nil {
		return nil, err
	}
	p.count, err = layout.PostingsCount(head[:layout.PostingsHeadLen])
	p.refs.Start = at + layout.PostingsHeadLen
	p.refs.End = p.refs.Start + p.count*layout.RefLen
	if err != nil || p.refs.End > b.toc.Postings.End {
		return nil, p.index.corrupt(at, fmt.Errorf("postings of all series: %w", layout.ErrLength))
	}
	return p, nil
}

// offset is where the i-th entry begins. The caller looks for something among
// around many of them, i in their middle.
func (p *allPostings) offset(ctx context.Context, i, around int64) (int64, error) {
	if i < p.from || i >= p.from+int64(len(p.some))/layout.RefLen {
		n := int64(1)
		p.from = i
		if around <= refsAtOnce {
			p.from = max(i-around/2, 0)
			n = min(around+1, p.count-p.from)
		}
		p.some = make([]byte, n*layout.RefLen)
		if err := p.index.read(ctx, p.refs.Start+p.from*layout.RefLen, p.some); err != nil {
			return 0, err
		}
	}
	return layout.SeriesOffset(p.some[(i-p.from)*layout.RefLen:]), nil
}

// readRecord reads the one record that begins at place.Start, guess bytes long
// or more, and returns its content. What can't be right is read a second time.
func readRecord(ctx context.Context, o *object, place layout.Span, kind layout.Frame, guess int64) ([]byte, error) {
	const least, most = 1 << 10, 64 << 10
	want := min(max(guess, least), most, place.Len())
	var bad error
	for tries := 0; tries < 2; {
		b := make([]byte, want)
		if err := o.read(ctx, place.Start, b); err != nil {
			return nil, err
		}
		content, size, err := kind.Content(b)
		if content != nil {
			return content, nil
		}
		if bad = err; err == nil && size <= place.Len() && size > want {
			want = size
			continue
		}
		if bad == nil {
			bad = layout.ErrLength
		}
		tries++
	}
	return nil, o.corrupt(place.Start, bad)
}

func isCorrupt(err error) bool { return errors.Is(err, block.ErrCorrupt) }
