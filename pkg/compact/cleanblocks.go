package compact

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// cleanEvery is how often blocks that hold nothing of a delete request are
// noted in it, so that nobody looks into them again. A request is one object, and
// to write it costs what all notes in it cost, so that they are written together.
// Until then this process knows them by its view, and others leave the blocks
// alone since the claims on them are not given up (attempt.noted). Who dies loses
// what it has found since the last write: it is found again.
const cleanEvery = time.Minute // and sooner where claims lapse sooner

// cleanBlocks tells since when some are still to be written.
type cleanBlocks struct {
	sync.Mutex           // held during a write
	since      time.Time // by our clock; zero: all are written
}

// noteClean notes that a block holds nothing of some requests.
func (c *Compactor) noteClean(id ulid.ULID, requests []ulid.ULID) {
	c.view.addClean(id, requests)
	c.cleanBlocks.Lock()
	defer c.cleanBlocks.Unlock()
	if c.cleanBlocks.since.IsZero() {
		c.cleanBlocks.since = c.now()
	}
}

// foundClean tells of a job that it was planned before somebody found out that
// there is nothing to take out.
func (c *Compactor) foundClean(j *plan.Job) bool {
	if j.Kind != plan.Rewrite {
		return false
	}
	snap := c.view.get()
	return slices.ContainsFunc(snap.deletes, func(r *block.DeleteRequest) bool {
		return slices.ContainsFunc(j.Deletes, func(d *block.DeleteRequest) bool { return d.ID == r.ID }) &&
			slices.ContainsFunc(j.Inputs, func(m *block.Meta) bool {
				return slices.Contains(snap.clean[r.ID], m.ULID) || slices.Contains(r.Clean, m.ULID)
			})
	})
}

// writeCleanIfDue is writeClean, well before claims lapse. An error is logged: it
// is tried again, and what it is about is known here.
func (c *Compactor) writeCleanIfDue(ctx context.Context) {
	c.cleanBlocks.Lock()
	since := c.cleanBlocks.since
	due := !since.IsZero() && c.now().Sub(since) >= min(cleanEvery, time.Duration(c.cfg.LeaseTTL)/4)
	c.cleanBlocks.Unlock()
	if due {
		c.tryWriteClean(ctx)
	}
}

// writeCleanAtEnd is tryWriteClean of a process that is told to stop.
func (c *Compactor) writeCleanAtEnd(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	c.tryWriteClean(ctx)
}

// tryWriteClean is writeClean for who goes on after an error.
func (c *Compactor) tryWriteClean(ctx context.Context) {
	if err := c.writeClean(ctx); err != nil && ctx.Err() == nil {
		c.log.Warn("blocks that were found to hold nothing of a delete request are not noted in it yet; it is tried again", "err", err)
	}
}

// writeClean writes into the delete requests which blocks hold nothing of them.
// It asks nothing of the bucket where there is nothing new.
func (c *Compactor) writeClean(ctx context.Context) error {
	c.cleanBlocks.Lock()
	defer c.cleanBlocks.Unlock()
	if c.cleanBlocks.since.IsZero() {
		return nil
	}
	var errs []error
	for request, blocks := range c.view.get().clean {
		err := block.UpdateDelete(ctx, c.bkt, request, func(r *block.DeleteRequest) error {
			if r.State == block.DeletePending {
				r.Clean = append(r.Clean, lackingIn(r.Clean, blocks)...)
			}
			return nil
		})
		if !errors.Is(err, block.ErrNoDelete) { // removed since
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.cleanBlocks.since = time.Time{}
	return nil
}

// lackingIn returns what list lacks of ids.
func lackingIn(list, ids []ulid.ULID) []ulid.ULID {
	set := make(map[ulid.ULID]bool, len(list))
	for _, id := range list {
		set[id] = true
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id ulid.ULID) bool { return set[id] })
}

// addClean adds to the newest snapshot that a block holds nothing of some requests.
func (v *view) addClean(id ulid.ULID, requests []ulid.ULID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := *v.mu.snap
	s.clean = maps.Clone(s.clean)
	if s.clean == nil {
		s.clean = map[ulid.ULID][]ulid.ULID{}
	}
	for _, r := range requests {
		if !slices.Contains(s.clean[r], id) {
			s.clean[r] = append(s.clean[r], id) // older snapshots go on with the shorter list
		}
	}
	v.mu.snap = &s
	v.tellLocked()
}

// keepClean takes over from the snapshot before what the requests don't say yet.
func (s *snapshot) keepClean(before *snapshot) {
	if before == nil || len(before.clean) == 0 {
		return
	}
	s.clean = map[ulid.ULID][]ulid.ULID{}
	for request, blocks := range before.clean {
		i := slices.IndexFunc(s.deletes, func(r *block.DeleteRequest) bool { return r.ID == request })
		switch {
		case i < 0 && s.fault != nil:
			s.clean[request] = slices.Clip(blocks)
		case i < 0 || s.deletes[i].State != block.DeletePending:
		default:
			if more := lackingIn(s.deletes[i].Clean, blocks); len(more) > 0 {
				s.clean[request] = more
			}
		}
	}
}
