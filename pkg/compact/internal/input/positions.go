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
	list, err := b.openRefs(ctx)
	if err != nil {
		return nil, b.fail(err)
	}
	return &Positions{b, list}, nil
}

// Count is how many series there are.
func (p *Positions) Count() int64 { return p.list.Count }

// At reads the i-th series, counted from 0. It is valid until the next call.
func (p *Positions) At(ctx context.Context, i int64) (*Series, error) {
	var s Series
	at, err := p.list.Entry(ctx, i, p.list.Count, &s)
	if err != nil {
		return nil, p.b.fail(err)
	}
	if err := p.b.series.check(&s); err != nil {
		return nil, p.b.fail(p.b.remote.Index.Corrupt(at, fmt.Errorf("series entry: %w", err)))
	}
	return &s, nil
}
