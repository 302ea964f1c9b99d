package compact

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

const (
	claimKept  = 24 * time.Hour // how long the record of a claim that lapsed stays in the bucket
	sweepEvery = time.Hour      // between looks for what takes listings to be found
)

// clean removes what was marked for longer than the delete delay, partial blocks
// that were left alone and, now and then, small objects that nobody needs. Where
// there is nothing to remove it asks nothing of the bucket. It decides by the bucket's clock and by what it reads at that moment, not
// by the plan alone. One block that can't be removed holds up no other.
func (c *Compactor) clean(ctx context.Context) error {
	p, err := c.plan()
	if p == nil {
		return err
	}
	if !p.snap.sound() {
		c.log.Warn("nothing is removed until the bucket can be looked at without a fault", "err", p.snap.fault)
		return nil
	}
	sweep := !c.now().Before(c.nextSweep)
	if len(p.Remove)+len(p.Partial) == 0 && !sweep {
		return nil
	}
	if err := c.clock.check(ctx); err != nil {
		return err
	}
	r, err := c.remover(p)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range p.Remove {
		errs = append(errs, r.removeMarked(ctx, id))
	}
	for _, id := range p.Partial {
		errs = append(errs, c.removePartial(ctx, id))
	}
	if sweep && ctx.Err() == nil {
		errs = append(errs, c.sweep(ctx, p.snap))
	}
	return block.FirstError(errs)
}

// sweep removes old claims, old delete requests, and notes that nobody needs.
func (c *Compactor) sweep(ctx context.Context, snap *snapshot) error {
	now := c.clock.now()
	removed, err := block.RemoveOldLeases(ctx, c.bkt, claimPrefix, now.Add(-claimKept))
	c.metrics.claimsRemoved.Add(float64(removed))
	err = errors.Join(err, block.RemoveOldDeletes(ctx, c.bkt, snap.deletes, now), c.cleanNotes(ctx, snap.View))
	if err == nil {
		c.nextSweep = c.now().Add(sweepEvery)
	}
	return err
}

// CleanUp looks at the bucket and makes one round of removing what was marked
// long ago and partial blocks that were left alone. It may run beside others.
func (c *Compactor) CleanUp(ctx context.Context) error {
	if err := c.look(ctx); err != nil {
		return err
	}
	return c.clean(ctx)
}

// remover removes what a plan says, unless what has happened since the marks
// speaks against it.
type remover struct {
	*Compactor
	snap    *snapshot
	holders holders
	wanted  map[ulid.ULID]bool // marked by retention, which would not do so any more
}

func (c *Compactor) remover(p *planned) (*remover, error) {
	wanted, err := c.wantedAgain(p)
	return &remover{Compactor: c, snap: p.snap, holders: c.holders(p), wanted: wanted}, err
}

// wantedAgain are blocks to be removed that retention has marked and, were they
// not, would keep: the coarser data is gone or unusable now, or the policy says
// otherwise.
func (c *Compactor) wantedAgain(p *planned) (map[ulid.ULID]bool, error) {
	out := map[ulid.ULID]bool{}
	marks := maps.Clone(p.snap.Marks)
	for _, id := range p.Remove {
		if mark := marks[id].Deletion; p.snap.Metas[id] != nil && strings.HasPrefix(mark.Details, retired) {
			out[id] = true
			unmarked := marks[id]
			unmarked.Deletion = nil
			marks[id] = unmarked
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	snap := *p.snap
	snap.Marks = marks
	unmatched, _ := c.finds.unmatched()
	again, err := c.make(&planned{snap: &snap, policy: p.policy, at: p.at}, nil, unmatched)
	if err != nil {
		return nil, err
	}
	for _, m := range slices.Concat(again.Expired, again.Garbage) {
		delete(out, m.Block)
	}
	return out, nil
}

// removeMarked removes a block if its mark stands and is old enough. It looks
// after the last point at which it may have slept: somebody may have taken the
// mark off meanwhile.
func (c *remover) removeMarked(ctx context.Context, id ulid.ULID) error {
	if err := c.point(ctx, pointRemove, id.String()); err != nil {
		return err
	}
	old, mark, err := c.markAge(ctx, id)
	switch {
	case errors.Is(err, block.ErrNoMark):
		// Taken off since, or the removal was cut off just before its end.
		c.wantLook()
		return nil
	case errors.Is(err, block.ErrCorrupt), errors.Is(err, block.ErrUnknownVersion):
		return nil // nobody knows since when; the plan shows it as set aside
	case err != nil:
		return err
	case old < time.Duration(c.cfg.DeleteDelay):
		return nil
	}
	m := c.snap.Metas[id]
	if m != nil && strings.HasPrefix(mark.Details, replacedBy) && c.uncovered(c.holders, m) {
		return c.keep(ctx, id, c.snap.Marks[id], "it was marked as replaced, and nothing replaces it")
	}
	if c.wanted[id] && strings.HasPrefix(mark.Details, retired) {
		return c.keep(ctx, id, c.snap.Marks[id], "retention marked it, and would not do so any more: coarser data or the policy has changed")
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

// holders leaves out what is about to go because it is replaced itself: two that
// are said to replace each other must not both go.
func (c *Compactor) holders(p *planned) holders {
	h := holders{}
	going := map[ulid.ULID]bool{}
	for _, id := range p.Remove {
		mark := p.snap.Marks[id].Deletion
		going[id] = mark != nil && strings.HasPrefix(mark.Details, replacedBy)
	}
	for id, m := range p.snap.Metas {
		if going[id] {
			continue
		}
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

// keep takes the deletion mark, one of marks, off a block. Another worker may have
// begun to remove it, and died over it: then the rest goes, too, since who goes by
// the manifest would take a block without a mark for a whole one.
func (c *Compactor) keep(ctx context.Context, id ulid.ULID, marks block.Marks, why string) error {
	if err := block.Unmark(ctx, c.bkt, id, block.DeletionMarkFilename); err != nil {
		return err
	}
	visible, err := c.bkt.Exists(ctx, block.Name(id, block.MetaFilename))
	if err != nil {
		return fmt.Errorf("block %s: look for meta.json: %w", id, err)
	}
	if !visible {
		return c.remove(ctx, id, "marked")
	}
	c.metrics.kept.Inc()
	c.log.Error("the deletion mark is taken off a block", "block", id, "why", why)
	marks.Deletion = nil
	c.announce(ctx, block.Change{Block: id, Marks: &marks})
	return nil
}

// removePartial removes a block that never became visible, or whose removal was
// cut off, when its newest object is old enough.
func (c *Compactor) removePartial(ctx context.Context, id ulid.ULID) error {
	if err := errors.Join(c.point(ctx, pointPartial, id.String()), c.point(ctx, pointRemove, id.String())); err != nil {
		return err
	}
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
	return c.remove(ctx, id, "partial")
}

// halfRemoved tells whether a block without meta.json has a mark that is old
// enough for it to be removed at once.
func (c *Compactor) halfRemoved(ctx context.Context, id ulid.ULID) bool {
	old, _, err := c.markAge(ctx, id)
	return err == nil && old >= time.Duration(c.cfg.DeleteDelay)
}

func (c *Compactor) remove(ctx context.Context, id ulid.ULID, why string) error {
	if err := block.Delete(ctx, c.bkt, id); err != nil {
		c.metrics.removeFailures.Inc()
		return err
	}
	c.metrics.removed.WithLabelValues(why).Inc()
	c.log.Info("block is removed", "block", id, "why", why)
	c.announce(ctx, block.Change{Block: id, Removed: true})
	return c.point(ctx, pointRemoved, id.String())
}
