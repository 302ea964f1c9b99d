package block

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"
)

// shipLeases keep two shippers with the same external labels from sending at
// the same time: their blocks could not be told apart in the bucket. There is a
// lease for each set of labels that blocks are sent under, mostly one.
type shipLeases struct {
	bkt   Bucket
	owner string
	ttl   time.Duration
	now   func() time.Time

	byName map[string]*Lease
	works  bool // conditional writes have been seen to work
}

// errNoConditions tells that leases mean nothing in this bucket.
var errNoConditions = errors.New("the bucket does not honour conditional writes")

// leaseName never contains labels: they are hashed.
func leaseName(lset labels.Labels) string {
	sum := sha256.Sum256([]byte(lset.String()))
	return "ship-" + hex.EncodeToString(sum[:16])
}

// acquire takes or renews the lease of a label set.
func (l *shipLeases) acquire(ctx context.Context, lset labels.Labels) error {
	if !l.works {
		ok, err := HonoursConditions(ctx, l.bkt, l.owner)
		if err != nil {
			return err
		}
		if !ok {
			return errNoConditions
		}
		l.works = true
	}
	name := leaseName(lset)
	lease := l.byName[name]
	if lease == nil {
		lease = NewLease(l.bkt, LeaseConfig{Name: name, Owner: l.owner, For: "shipping blocks of " + lset.String(), TTL: l.ttl, Now: l.now})
		l.byName[name] = lease
	}
	err := lease.Acquire(ctx)
	if err != nil && lease.Held() {
		return nil // not renewed this time, and ours for a while yet
	}
	return err
}

// during runs do, renewing a label set's lease meanwhile. When the lease is lost
// do's context ends.
func (l *shipLeases) during(ctx context.Context, lset labels.Labels, do func(context.Context) error) error {
	lease := l.byName[leaseName(lset)]
	if lease == nil {
		return do(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	g.Go(func() error {
		defer cancel(nil)
		err := do(ctx)
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrLeaseLost) {
			return fmt.Errorf("%w: %w", cause, err)
		}
		return err
	})
	g.Go(func() error {
		tick := time.NewTicker(l.ttl / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if err := lease.Acquire(ctx); err != nil && !lease.Held() && ctx.Err() == nil {
				cancel(fmt.Errorf("%w: %w", ErrLeaseLost, err))
				return nil
			}
		}
	})
	return g.Wait()
}

// release gives all leases up, so that another shipper need not wait.
func (l *shipLeases) release(ctx context.Context) error {
	var err error
	for _, lease := range l.byName {
		err = errors.Join(err, lease.Release(ctx))
	}
	return err
}
