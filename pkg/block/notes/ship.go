package notes

import (
	"context"

	"github.com/firnline/firnline/pkg/block"
)

// Hook returns what block.ShipperParts.Notes wants: it sends the note on a block
// as the log has it.
func (l *Log) Hook(bkt block.Bucket) func(context.Context, *block.Meta) error {
	return func(ctx context.Context, m *block.Meta) error {
		return Upload(ctx, bkt, m.ULID, l.Cut(m.MinTime, m.MaxTime))
	}
}
