package heads

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/tenant"
)

// Flush cuts a tenant's whole head into blocks, out-of-order samples too, ships
// them and verifies all its blocks in the bucket. Meanwhile its writes are
// refused with 503. Without a bucket the blocks stay local. A tenant that there is
// none of has nothing to flush.
func (hs *Heads) Flush(ctx context.Context, id tenant.ID) error {
	hs.mu.Lock()
	s := hs.mu.slots[id]
	hs.mu.Unlock()
	if s == nil {
		return nil
	}
	h, err := hs.await(ctx, id, s)
	if err != nil {
		return fmt.Errorf("tenant %s: flush: %w", id, err)
	}
	if h == nil {
		return nil
	}
	defer h.release()
	return h.flush(ctx, "request")
}

// FlushAll flushes every tenant. One that fails, or could not be opened, does not stop the others.
func (hs *Heads) FlushAll(ctx context.Context) error {
	hs.mu.Lock()
	ids := slices.Collect(maps.Keys(hs.mu.slots))
	hs.mu.Unlock()
	errs := make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(hs.cfg.ShipConcurrency)
	for i, id := range ids {
		g.Go(func() error { errs[i] = hs.Flush(ctx, id); return nil })
	}
	_ = g.Wait() // errors are in errs
	return errors.Join(errs...)
}

// flush is Flush of one head; why is for the metric.
func (h *head) flush(ctx context.Context, why string) error {
	if err := h.cutAll(ctx); err != nil {
		return fmt.Errorf("tenant %s: flush: %w", h.id, err)
	}
	h.heads.metrics.flushes.WithLabelValues(why).Inc()
	if h.shipping.shipper == nil {
		return nil
	}
	err := h.shipping.ship(ctx)
	if err == nil {
		err = h.shipping.verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("tenant %s: ship: %w", h.id, err)
	}
	return nil
}

// cutAll cuts the whole head into blocks, each within the bounds that all blocks
// of its length have. Nothing is appended meanwhile: what came after a block was
// written and before the head was truncated would be lost.
func (h *head) cutAll(ctx context.Context) error {
	select {
	case h.heads.cuts <- struct{}{}:
		defer func() { <-h.heads.cuts }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	h.cutting.Lock()
	defer h.cutting.Unlock()
	hd, width := h.db.Head(), time.Duration(h.heads.cfg.MinBlockDuration).Milliseconds()
	for hd.NumSeries() > 0 && hd.MinTime() != math.MaxInt64 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		mint, maxt := hd.MinTime(), hd.MaxTime()
		end := min(maxt, floor(mint, width)+width-1)
		if err := h.db.CompactHead(tsdb.NewRangeHead(hd, mint, end)); err != nil {
			return fmt.Errorf("cut the head from %s to %s: %w", at(mint), at(end), err)
		}
		if end == maxt || hd.MinTime() <= mint {
			break
		}
	}
	if err := h.db.CompactOOOHead(ctx); err != nil {
		return fmt.Errorf("cut out-of-order samples: %w", err)
	}
	return nil
}

// floor rounds t down to a multiple of width.
func floor(t, width int64) int64 {
	f := t - t%width
	if f > t {
		f -= width
	}
	return f
}

// cut makes blocks of what is old enough. What is cut is shipped at once.
func (h *head) cut(ctx context.Context) error {
	hd := h.db.Head()
	width := time.Duration(h.heads.cfg.MinBlockDuration).Milliseconds()
	if hd.MinTime() == math.MaxInt64 || hd.MaxTime()-hd.MinTime() <= width/2*3 {
		return nil
	}
	select {
	case h.heads.cuts <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	err := h.db.Compact(ctx)
	<-h.heads.cuts
	if err != nil {
		return fmt.Errorf("cut a block: %w", err)
	}
	if h.shipping.shipper == nil {
		return nil
	}
	return h.shipping.ship(ctx)
}
