package fetch

import (
	"context"
	"fmt"
	"slices"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Frame knows how a record of a TSDB file is laid out.
type Frame = layout.Frame

// The three kinds of records that are read by offset.
const (
	Postings = layout.PostingsRecord
	Series   = layout.SeriesRecord
	Chunk    = layout.ChunkRecord
)

// Records reads the records of one object that begin where the spans do, which
// are sorted by Start; where a span ends is a guess, but for postings. A record
// longer than its guess is read again, to the byte; one that can't be right is
// read once more, and then is ErrCorrupt. The result has the whole records, including lengths
// and checksums, in the order of spans; they share memory with one another.
func (f *Fetcher) Records(ctx context.Context, t Terms, kind Frame, obj Object, spans []Span) ([][]byte, Cost, error) {
	var (
		cost    Cost
		out     = make([][]byte, len(spans))
		pending = make([]int, len(spans))
		want    = slices.Clone(spans)
		retried = map[int]bool{}
	)
	for i := range pending {
		pending[i] = i
	}
	for len(pending) > 0 {
		ask := make([]Span, len(pending))
		for i, p := range pending {
			ask[i] = want[p]
		}
		bufs, c, err := f.read(ctx, t, obj, ask)
		cost.Add(c)
		if err != nil {
			return nil, cost, err
		}
		var again []int
		for _, p := range pending {
			b := bufs.slice(want[p])
			content, size, err := kind.Content(b)
			switch {
			case err == nil && content != nil:
				out[p] = b[:size:size]
				continue
			case err == nil && kind != Postings && size > want[p].Len() && want[p].Start+size <= obj.SizeBytes:
				want[p].End = want[p].Start + size // the guess was short
			case retried[p]:
				return nil, cost, corrupt(obj.Name, want[p].Start, err)
			default:
				f.metrics.retries.Inc()
				retried[p] = true
			}
			again = append(again, p)
		}
		pending = again
	}
	return out, cost, nil
}

func corrupt(name string, at int64, err error) error {
	if err == nil {
		err = layout.ErrLength
	}
	return fmt.Errorf("%w: object %s at offset %d: %w", storeapi.ErrCorrupt, name, at, err)
}
