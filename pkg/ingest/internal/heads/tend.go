package heads

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/tenant"
)

// tend looks after each tenant: forgets routers, cuts blocks, opens anew what
// may be written again, flushes and removes those who send nothing. A tenant that can't be
// tended does not keep the others from it.
func (hs *Heads) tend(ctx context.Context) {
	hs.retryFailed(ctx)
	var g errgroup.Group
	g.SetLimit(hs.cfg.replays() + hs.cfg.CutConcurrency)
	for _, h := range hs.retained() {
		g.Go(func() error {
			if err := h.tend(ctx); err != nil && ctx.Err() == nil {
				h.log.Warn("tending to the tenant failed; it is tried again", "err", err)
			}
			return nil
		})
	}
	_ = g.Wait() // failures are logged
	hs.countReadOnly()
}

// retryFailed opens the tenants again that could not be opened.
func (hs *Heads) retryFailed(ctx context.Context) {
	var due []tenant.ID
	hs.mu.Lock()
	for id, s := range hs.mu.slots {
		if s.err != nil && !hs.now().Before(s.retry) {
			due = append(due, id)
		}
	}
	hs.mu.Unlock()
	for _, id := range due {
		if h, err := hs.acquire(ctx, id); err == nil {
			h.release()
		}
	}
}

func (hs *Heads) countReadOnly() {
	full, failed := 0, 0
	for _, h := range hs.retained() {
		switch err := h.failure(); {
		case err != nil && passes(err):
			full++
		case err != nil:
			failed++
		}
		h.release()
	}
	hs.metrics.readOnly.WithLabelValues("disk-full").Set(float64(full))
	hs.metrics.readOnly.WithLabelValues("io-error").Set(float64(failed))
}

// tend does what is due for one tenant. It gives back the use of the head that the caller took.
func (h *head) tend(ctx context.Context) error {
	held := true
	defer func() {
		if held {
			h.release()
		}
	}()
	h.sessions.expire()
	if err := h.failure(); err != nil {
		if !passes(err) || h.heads.disk.check() != nil || h.heads.disk.checkOpening(h.dir) != nil || checkReopening(h.dir) != nil {
			return nil // what is open can be read
		}
		held = false
		h.release()
		return h.reopen(ctx, "log failed")
	}
	lim := h.heads.limits(h.id)
	if lim.StartTimestamps != h.startTimestamps {
		held = false
		h.release()
		return h.reopen(ctx, "settings changed")
	}
	if err := h.apply(lim); err != nil {
		return err
	}
	if err := h.families.save(); err != nil {
		return err
	}
	if h.heads.disk.check() != nil {
		return nil // a block needs space
	}
	if err := h.cut(ctx); err != nil {
		return err
	}
	idle := h.idle()
	if after := time.Duration(h.heads.cfg.IdleFlush); after > 0 && idle >= after && h.db.Head().NumSeries() > 0 {
		if err := h.flush(ctx, "idle"); err != nil {
			return err
		}
	}
	if idle < time.Duration(h.heads.cfg.Retention) {
		return nil
	}
	held = false
	h.release()
	return h.retire(ctx)
}

// idle is how long the tenant has sent nothing. After an opening the newest
// sample's time stands for when it was sent.
func (h *head) idle() time.Duration {
	now := h.heads.now()
	_, maxt, ok := h.bounds() // first: where there are samples of a write it is known to have begun
	if last := h.offered.Load(); last != 0 {
		return now.Sub(time.Unix(0, last))
	}
	if !ok {
		return now.Sub(h.openedAt)
	}
	return min(now.Sub(time.UnixMilli(maxt)), now.Sub(h.openedAt)+time.Duration(h.heads.cfg.Retention))
}

// reopen closes the TSDB and opens it anew, its log cut where it is torn.
func (h *head) reopen(ctx context.Context, why string) error {
	h.log.Info("TSDB is opened anew", "why", why)
	h.heads.metrics.closed.WithLabelValues("reopen").Inc()
	return h.heads.replace(ctx, h, func() (bool, error) { return true, nil })
}

// retire closes and removes a tenant that has sent nothing for long, once all
// of its data is in the bucket or past retention.
func (h *head) retire(ctx context.Context) error {
	if !h.retain() {
		return nil
	}
	before := h.appended.Load()
	err := h.flush(ctx, "retire")
	blocks := len(h.db.Blocks())
	h.release()
	if err != nil {
		return err
	}
	if h.shipping.shipper == nil && blocks > 0 {
		return nil // retention has not come for them yet
	}
	return h.heads.replace(ctx, h, func() (again bool, err error) {
		if h.appended.Load() != before {
			return true, nil
		}
		h.shipping.end(ctx)
		if err := h.heads.remove(h.id); err != nil {
			return true, fmt.Errorf("tenant is idle and can't be removed: %w", err)
		}
		h.log.Info("tenant has sent nothing for long; its data is in the bucket, and its folder is removed", "after", h.heads.cfg.Retention)
		h.heads.metrics.closed.WithLabelValues("idle").Inc()
		return false, nil
	})
}
