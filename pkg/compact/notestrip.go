package compact

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
)

// stripNotes takes the exemplars that a delete request names out of notes, as
// its samples were out of blocks. Done again it finds nothing more to do.
func (c *Compactor) stripNotes(ctx context.Context, v block.View, request ulid.ULID, all []*block.DeleteRequest) error {
	at := slices.IndexFunc(all, func(r *block.DeleteRequest) bool { return r.ID == request })
	if at < 0 {
		return nil
	}
	hider, err := block.NewHider(all[at])
	if err != nil {
		return err
	}
	listed := map[ulid.ULID]bool{}
	if err := notes.List(ctx, c.bkt, func(e notes.Entry) { listed[e.Block] = true }); err != nil {
		return err
	}
	for _, metas := range []map[ulid.ULID]*block.Meta{v.Metas, v.LeftOut} {
		for m := range maps.Values(metas) {
			here := hider.For(m.MinTime, m.MaxTime-1, m.Labels())
			if here == nil {
				continue
			}
			sources, err := m.Origins()
			if err != nil {
				return err
			}
			for _, id := range sources {
				if !listed[id] {
					continue
				}
				if err := c.stripNote(ctx, id, here); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// stripNote rewrites one note, if there is anything to take out of it. One that
// can't be read shows nothing to anybody either.
func (c *Compactor) stripNote(ctx context.Context, id ulid.ULID, hider *block.Hider) error {
	n, err := notes.Read(ctx, c.bkt, id)
	switch {
	case errors.Is(err, notes.ErrNone), errors.Is(err, block.ErrCorrupt):
		return nil
	case err != nil:
		return fmt.Errorf("take exemplars out: %w", err)
	}
	before := n.Exemplars()
	for i := range n.Series {
		cuts := hider.Intervals(n.Series[i].Labels)
		n.Series[i].Exemplars = slices.DeleteFunc(n.Series[i].Exemplars, func(e exemplar.Exemplar) bool {
			for _, cut := range cuts {
				if cut.InBounds(e.Ts) {
					return true
				}
			}
			return false
		})
	}
	if n.Exemplars() == before {
		return nil
	}
	n.Series = slices.DeleteFunc(n.Series, func(s notes.Series) bool { return len(s.Exemplars) == 0 })
	if n.Empty() {
		return notes.Remove(ctx, c.bkt, id)
	}
	return notes.Upload(ctx, c.bkt, id, n)
}
