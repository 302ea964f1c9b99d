package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// claimKept is how long the record of a claim that lapsed stays in the bucket.
const claimKept = 24 * time.Hour

// clean removes what was marked for longer than the delete delay, partial blocks
// that were left alone, old claims and old delete requests. It decides by the
// bucket's clock and by what it reads at that moment, not by the plan alone. One
// block that can't be removed holds up no other.
func (c *Compactor) clean(ctx context.Context) error {
	p := c.plan()
	if p == nil {
		return nil
	}
	if !p.snap.sound() {
		c.log.Warn("nothing is removed until the bucket can be looked at without a fault", "err", p.snap.fault)
		return nil
	}
	if err := c.clock.check(ctx); err != nil {
		return err
	}
	var errs []error
	h := c.holders(p.snap.Metas)
	for _, id := range p.Remove {
		errs = append(errs, c.removeMarked(ctx, h, id, p.snap.Metas[id]))
	}
	for _, id := range p.Partial {
		errs = append(errs, c.removePartial(ctx, id))
	}
	if ctx.Err() == nil {
		removed, err := block.RemoveOldLeases(ctx, c.bkt, claimPrefix, c.clock.now().Add(-claimKept))
		c.metrics.claimsRemoved.Add(float64(removed))
		_, oldErr := block.RemoveOldDeletes(ctx, c.bkt, c.clock.now())
		errs = append(errs, err, oldErr)
	}
	return summary(errs)
}

// removeMarked removes a block if its mark stands and is old enough.
func (c *Compactor) removeMarked(ctx context.Context, h holders, id ulid.ULID, m *block.Meta) error {
	old, mark, err := c.markAge(ctx, id)
	switch {
	case errors.Is(err, block.ErrNoMark):
		// Taken off since, or the removal was cut off just before its end.
		c.wantLook()
		return nil
	case err != nil:
		return err
	case old < time.Duration(c.cfg.DeleteDelay):
		return nil
	}
	if m != nil && strings.HasPrefix(mark.Details, replacedBy) && c.uncovered(h, m) {
		return c.keep(ctx, id)
	}
	return c.remove(ctx, id, "marked")
}

// markAge reads a deletion mark and tells how old it is: by its own date and by
// that of the object, whichever is less.
func (c *Compactor) markAge(ctx context.Context, id ulid.ULID) (time.Duration, *block.DeletionMark, error) {
	mark, err := block.ReadDeletionMark(ctx, c.bkt, id)
	if err != nil {
		return 0, nil, err
	}
	attrs, err := c.bkt.Attributes(ctx, block.Name(id, block.DeletionMarkFilename))
	if err != nil {
		return 0, nil, fmt.Errorf("block %s: age of its deletion mark: %w", id, err)
	}
	now := c.clock.now()
	return min(now.Sub(time.Unix(mark.DeletionTime, 0)), now.Sub(attrs.LastModified)), mark, nil
}

// holders are the blocks that may hold what another does: by resolution and
// labels without those of replicas.
type holders map[string][]*block.Meta

func (c *Compactor) holders(metas map[ulid.ULID]*block.Meta) holders {
	h := holders{}
	for _, m := range metas {
		key := c.holderKey(m)
		h[key] = append(h[key], m)
	}
	return h
}

func (c *Compactor) holderKey(m *block.Meta) string {
	b := labels.NewBuilder(m.Labels())
	b.Del(c.cfg.ReplicaLabels...)
	return fmt.Sprintf("%d %s", m.Resolution(), b.Labels())
}

// uncovered tells that a block which we marked as replaced has no replacement
// any more: no block has all its sources. That can only be when a worker slept
// between looking and marking, or somebody removed the replacement by hand.
func (c *Compactor) uncovered(h holders, m *block.Meta) bool {
	sources := m.Sources()
	return !slices.ContainsFunc(h[c.holderKey(m)], func(other *block.Meta) bool {
		if other.ULID == m.ULID {
			return false
		}
		if containsAll(other.Sources(), sources) {
			return true
		}
		ext, ok, err := other.Extension()
		return err == nil && ok && ext.Shard != nil && containsAll(ext.Shard.Sources, sources)
	})
}

func containsAll(have, want []ulid.ULID) bool {
	set := make(map[ulid.ULID]bool, len(have))
	for _, id := range have {
		set[id] = true
	}
	for _, id := range want {
		if !set[id] {
			return false
		}
	}
	return true
}

// keep takes the mark off a block that nothing replaces.
func (c *Compactor) keep(ctx context.Context, id ulid.ULID) error {
	if err := block.Unmark(ctx, c.bkt, id, block.DeletionMarkFilename); err != nil {
		return err
	}
	c.metrics.kept.Inc()
	c.log.Error("block was marked as replaced and nothing replaces it: the mark is taken off, and it is compacted anew", "block", id)
	c.announce(ctx, block.Change{Block: id, Marks: &block.Marks{}})
	return nil
}

// removePartial removes a block that never became visible, or whose removal was
// cut off, when its newest object is old enough.
func (c *Compactor) removePartial(ctx context.Context, id ulid.ULID) error {
	newest, err := block.NewestObject(ctx, c.bkt, id)
	if errors.Is(err, block.ErrEmpty) {
		c.announce(ctx, block.Change{Block: id, Removed: true})
		return nil
	}
	if err != nil {
		return err
	}
	visible, err := c.bkt.Exists(ctx, block.Name(id, block.MetaFilename))
	if err != nil {
		return fmt.Errorf("block %s: look for meta.json: %w", id, err)
	}
	if visible || c.clock.now().Sub(newest) < partialDelay && !c.halfRemoved(ctx, id) {
		return nil
	}
	if err := c.point(ctx, pointPartial, id.String()); err != nil {
		return err
	}
	return c.remove(ctx, id, "partial")
}

// halfRemoved tells whether a block without meta.json has a mark that is old
// enough for it to be removed at once.
func (c *Compactor) halfRemoved(ctx context.Context, id ulid.ULID) bool {
	old, _, err := c.markAge(ctx, id)
	return err == nil && old >= time.Duration(c.cfg.DeleteDelay)
}

func (c *Compactor) remove(ctx context.Context, id ulid.ULID, why string) error {
	if err := c.point(ctx, pointRemove, id.String()); err != nil {
		return err
	}
	if err := block.Delete(ctx, c.bkt, id); err != nil {
		c.metrics.removeFailures.Inc()
		return err
	}
	c.metrics.removed.WithLabelValues(why).Inc()
	c.log.Info("block is removed", "block", id, "why", why)
	c.announce(ctx, block.Change{Block: id, Removed: true})
	return c.point(ctx, pointRemoved, id.String())
}
