package compact

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Details of our deletion marks begin with these.
const (
	replacedBy  = "firnline: replaced by " // ULIDs follow
	nothingLeft = "firnline: nothing of it is to be kept"
	retired     = "firnline: retention: "
)

// mark marks what others cover and what retention removes. A block whose
// replacement can't be read back stays, and holds up no other.
func (c *Compactor) mark(ctx context.Context) error {
	p, err := c.plan()
	if p == nil || !p.snap.sound() || len(p.Garbage)+len(p.Expired) == 0 {
		return err
	}
	if err := c.clock.check(ctx); err != nil {
		return err
	}
	if p, err = c.plan(); err != nil || !p.snap.sound() { // anew, should it have been made while a clock was wrong
		return err
	}
	maps.DeleteFunc(c.verified, func(id ulid.ULID, _ struct{}) bool { return p.snap.Metas[id] == nil })
	var errs []error
	var changes []block.Change
	var by []ulid.ULID
	for _, m := range p.Garbage {
		changed, err := c.markCovered(ctx, p, m)
		if changes, errs = append(changes, changed...), append(errs, err); err == nil {
			by = append(append(by, m.CoveredBy), m.Shards...)
		}
	}
	for _, m := range p.Expired {
		changed, err := c.markOne(ctx, p, m, markReason{point: pointExpired, details: retired + m.Why, metric: "retention"})
		changes, errs = append(changes, changed...), append(errs, err)
	}
	c.announceMarks(ctx, by, changes)
	return block.FirstError(errs)
}

// announceMarks announces marks in one with the blocks that replace what is
// marked. These were announced before, unless that failed, or whoever made them
// died; then a reader that goes by the manifest would leave marked blocks alone
// and know nothing in their place until the next listing.
func (c *Compactor) announceMarks(ctx context.Context, by []ulid.ULID, marks []block.Change) {
	if len(marks) == 0 {
		return
	}
	slices.SortFunc(by, ulid.ULID.Compare)
	var changes []block.Change
	for _, id := range slices.Compact(by) {
		if m := c.view.get().Metas[id]; m != nil {
			changes = append(changes, block.Change{Block: id, Meta: m})
		}
	}
	c.announce(ctx, append(changes, marks...)...)
}

// markCovered marks a block that others hold all of, after reading those back.
func (c *Compactor) markCovered(ctx context.Context, p *planned, m plan.Mark) ([]block.Change, error) {
	by := append([]ulid.ULID{m.CoveredBy}, m.Shards...)
	for _, id := range by {
		if err := c.standsIn(ctx, p, id); err != nil {
			return nil, fmt.Errorf("block %s is not marked: what is to replace it: %w", m.Block, err)
		}
	}
	return c.markOne(ctx, p, m, markReason{point: pointGarbage, details: replacedBy + join(by), metric: "garbage"})
}

// standsIn tells why a block can't replace others: it is not there, is to go
// itself, or does not stand up to being read back, which is tried once.
func (c *Compactor) standsIn(ctx context.Context, p *planned, id ulid.ULID) error {
	live, err := c.live(ctx, id)
	if err != nil {
		return err
	}
	if !live {
		return fmt.Errorf("block %s is gone or marked: %w", id, errStale)
	}
	if _, done := c.verified[id]; done {
		return nil
	}
	m := p.snap.Metas[id]
	if m == nil {
		return fmt.Errorf("block %s: %w", id, errStale)
	}
	if err := block.VerifyRemote(ctx, c.bkt, m); err != nil {
		return err
	}
	c.verified[id] = struct{}{}
	return nil
}

// markReason is why a block is marked.
type markReason struct {
	point, details, metric string
}

// markOne marks a block for deletion, unless it is already.
func (c *Compactor) markOne(ctx context.Context, p *planned, m plan.Mark, why markReason) ([]block.Change, error) {
	if err := c.point(ctx, why.point, m.Block.String()); err != nil {
		return nil, err
	}
	change, err := c.writeMark(ctx, p.snap, m.Block, why.details)
	if err != nil {
		return nil, err
	}
	c.metrics.marked.WithLabelValues(why.metric).Inc()
	c.log.Info("block is marked for deletion", "block", m.Block, "why", m.Why)
	return []block.Change{change}, nil
}

// writeMark writes a deletion mark that counts from now, by the bucket's clock.
func (c *Compactor) writeMark(ctx context.Context, snap *snapshot, id ulid.ULID, details string) (block.Change, error) {
	mark := block.DeletionMark{ID: id, Version: 1, Details: details, DeletionTime: c.clock.now().Unix()}
	if err := block.WriteDeletionMark(ctx, c.bkt, mark); err != nil {
		return block.Change{}, err
	}
	return snap.marked(id, &mark), nil
}

// markInputs marks a job's inputs, after another look at what replaces them.
func (a *attempt) markInputs(ctx context.Context, results []ulid.ULID) error {
	a.progress.at(stageMark)
	if err := a.point(ctx, pointBeforeMark, a.job.Key); err != nil {
		return err
	}
	if err := errors.Join(a.clock.check(ctx), a.claim.check(ctx)); err != nil {
		return err
	}
	details := nothingLeft
	if len(results) > 0 {
		details = replacedBy + join(results)
	}
	for _, id := range results {
		live, err := a.live(ctx, id)
		if err != nil {
			return err
		}
		if !live {
			return fmt.Errorf("result %s is gone or marked: %w", id, errStale)
		}
	}
	changes, err := a.writeMarks(ctx, details)
	a.announceMarks(ctx, slices.Clone(results), changes) // what is marked is marked, even if the rest isn't
	return err
}

// marksAtOnce is how many marks a job writes side by side: a bucket takes its
// time for each, and does not mind several.
const marksAtOnce = 8

// writeMarks marks the inputs, and tells which it has marked.
func (a *attempt) writeMarks(ctx context.Context, details string) ([]block.Change, error) {
	var (
		mu      sync.Mutex
		changes []block.Change
	)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(marksAtOnce)
	for _, m := range a.job.Inputs {
		g.Go(func() error {
			change, err := a.writeMark(ctx, a.known.snap, m.ULID, details)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, change)
			a.metrics.marked.WithLabelValues("compacted").Inc()
			return a.point(ctx, pointMarked, m.ULID.String())
		})
	}
	err := g.Wait()
	return changes, err
}

func join(ids []ulid.ULID) string {
	var out []string
	for _, id := range ids {
		out = append(out, id.String())
	}
	return strings.Join(out, " ")
}
