package input

import (
	"context"
	"fmt"

	"github.com/firnline/firnline/pkg/block"
)

// Positions finds the series of a block by their number, through the list of all
// series. It is for one goroutine, beside the streams of the Block, not among
// the users of Next and Seek.
type Positions struct {
	b    *Block
	list *block.SeriesRefs
}

// Positions reads the head of the list.
func (b *Block) Positions(ctx context.Context) (*Positions, error) {
	list, err := block.OpenSeriesRefs(ctx, &b.remote.Index, b.toc)
	if err != nil {
		return nil, b.fail(err)
	}
	return &Positions{b, list}, nil
}

// Count is how many series there are.
func (p *Positions) Count() int64 { return p.list.Count }

// At reads the i-th series, counted from 0. It is valid until the next call.
func (p *Positions) At(ctx context.Context, i int64) (*Series, error) {
	at, err := p.list.Offset(ctx, i, p.list.Count)
	if err != nil {
		return nil, p.b.fail(err)
	}
	if span := p.b.toc.Series; at < span.Start || at >= span.End {
		return nil, p.b.fail(p.b.remote.Index.Corrupt(p.list.Place.Start, fmt.Errorf("postings: series %d is at %d, which is outside the series", i, at)))
	}
	var s Series
	if err := p.b.series.probe(ctx, at, &s); err != nil {
		return nil, p.b.fail(err)
	}
	return &s, nil
}
