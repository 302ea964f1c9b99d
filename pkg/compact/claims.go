package compact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
)

// claimPrefix begins the names of the leases on jobs.
const claimPrefix = "compact-"

// claims keep workers from doing a job twice. They save work and no more: two
// workers at one job write the same objects.
type claims struct {
	bkt   block.Bucket
	owner string
	ttl   time.Duration
	now   func() time.Time
	log   *slog.Logger
	alone func(bool) // told whether there can be claims at all

	mu struct {
		sync.Mutex
		tested bool
		works  bool // the bucket honours conditions
	}
}

// test finds out, once, whether claims mean anything in this bucket.
func (c *claims) test(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.tested {
		return nil
	}
	works, err := block.HonoursConditions(ctx, c.bkt, c.owner)
	if err != nil {
		return err
	}
	c.mu.tested, c.mu.works = true, works
	c.alone(!works)
	if !works {
		c.log.Error("the bucket has no conditional writes, so nothing keeps two compactors from doing the same work: run a single one on this bucket")
	}
	return nil
}

// impossible tells that there can be no claims in this bucket.
func (c *claims) impossible() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.tested && !c.mu.works
}

// claimName never contains labels: keys are hashed.
func claimName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return claimPrefix + hex.EncodeToString(sum[:16])
}

// claim is the right to do one job for a while.
type claim struct {
	lease *block.Lease // nil: nobody can have one
	ttl   time.Duration
}

// acquire takes the claim on a job. While another worker has it the error is a
// *block.HeldError.
func (c *claims) acquire(ctx context.Context, key, purpose string) (*claim, error) {
	c.mu.Lock()
	works := c.mu.works
	c.mu.Unlock()
	if !works {
		return &claim{}, nil
	}
	lease := block.NewLease(c.bkt, block.LeaseConfig{Name: claimName(key), Owner: c.owner, For: purpose, TTL: c.ttl, Now: c.now})
	if err := lease.Acquire(ctx); err != nil {
		return nil, err
	}
	return &claim{lease: lease, ttl: c.ttl}, nil
}

// check proves, by a conditional write, that the claim is still ours. The error
// wraps block.ErrLeaseLost when it isn't.
func (c *claim) check(ctx context.Context) error {
	if c.lease == nil {
		return nil
	}
	return c.lease.Renew(ctx)
}

// release gives the claim up.
func (c *claim) release(ctx context.Context) error {
	if c.lease == nil {
		return nil
	}
	return c.lease.Release(ctx)
}

// during runs do and renews the claim meanwhile. When it is lost do's context ends.
func (c *claim) during(ctx context.Context, do func(context.Context) error) error {
	if c.lease == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	g.Go(func() error { c.renew(ctx, cancel); return nil })
	err := do(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	_ = g.Wait() // renew has no error: it cancels
	if err != nil && errors.Is(cause, block.ErrLeaseLost) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// renew keeps the claim until ctx is done, and ends ctx when it is lost. A
// renewal that fails otherwise is tried again while the claim lasts.
func (c *claim) renew(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(c.ttl / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := c.lease.Renew(ctx); err != nil && !c.lease.Held() && ctx.Err() == nil {
			cancel(fmt.Errorf("%w: %w", block.ErrLeaseLost, err))
			return
		}
	}
}
