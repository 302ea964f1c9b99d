package e2e

import (
	"context"
	"sync"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block"
)

// simClock is a time that tests move from day to day. In between it goes on as
// the real one does, so that for each real moment there is one simulated one.
type simClock struct {
	mu    sync.Mutex
	jumps []jump // by real time
}

type jump struct{ real, sim time.Time }

// set makes it t at the next full second, and waits for that: S3 tells ages in
// full seconds, so that each object is plainly older or younger than the jump.
func (c *simClock) set(t time.Time) {
	now := time.Now()
	at := now.Truncate(time.Second).Add(time.Second)
	time.Sleep(at.Sub(now))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jumps = append(c.jumps, jump{at, t})
}

func (c *simClock) now() time.Time { return c.at(time.Now()) }

// at is the simulated time of a real one. What was before the first jump was as
// long before that.
func (c *simClock) at(real time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.jumps[0]
	for _, j := range c.jumps {
		if !j.real.After(real) {
			last = j
		}
	}
	return last.sim.Add(real.Sub(last.real))
}

// simBucket is a real bucket whose clock is a simulated one.
type simBucket struct {
	block.Bucket
	clock *simClock
}

// Attributes implements objstore.Bucket.
func (b simBucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	a, err := b.Bucket.Attributes(ctx, name)
	if err == nil {
		a.LastModified = b.clock.at(a.LastModified)
	}
	return a, err
}

// ListSizes implements block.Bucket.
func (b simBucket) ListSizes(ctx context.Context, prefix string, f func(block.Object) error) error {
	return b.Bucket.ListSizes(ctx, prefix, func(o block.Object) error {
		o.LastModified = b.clock.at(o.LastModified)
		return f(o)
	})
}
