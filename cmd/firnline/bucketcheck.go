package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/bucket"
)

const (
	bucketRetry = 15 * time.Second // between checks of a bucket that can't be used
	maxSkew     = 5 * time.Minute  // between the bucket's clock and ours, without a warning
)

// bucketCheck finds out at the start whether the bucket can be used, and says
// what to do if it can't, for as long as that lasts.
type bucketCheck struct {
	*bucket.Handle
	p     *process
	write bool // objects are written, too

	mu struct {
		sync.Mutex
		err error
	}
}

func newBucketCheck(h *bucket.Handle, p *process, write bool) *bucketCheck {
	c := &bucketCheck{Handle: h, p: p, write: write}
	c.mu.err = errors.New("not asked yet")
	return c
}

// Run checks until the bucket can be used, and keeps its credentials fresh until ctx is done.
func (c *bucketCheck) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.untilUsable(ctx) })
	return c.Handle.Run(ctx)
}

func (c *bucketCheck) untilUsable(ctx context.Context) {
	for {
		err := c.Explain(c.ask(ctx))
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.mu.err = err
		c.mu.Unlock()
		if err == nil {
			return
		}
		c.p.log.Error("the bucket can't be used", "err", err, "retry", bucketRetry)
		select {
		case <-ctx.Done():
			return
		case <-time.After(bucketRetry):
		}
	}
}

// ask lists, and where that is needed writes, reads and removes an object.
func (c *bucketCheck) ask(ctx context.Context) error {
	if !c.write {
		stop := errors.New("one is enough")
		err := c.Iter(ctx, "", func(string) error { return stop })
		if errors.Is(err, stop) {
			return nil
		}
		return err
	}
	can := bucket.SelfTest(ctx, c.Bucket, time.Now)
	if err := can.Err(true); err != nil {
		return err
	}
	if can.Skew.Abs() > maxSkew {
		c.p.log.Warn("clocks differ: set one of them right", "bucket_ahead", can.Skew)
	}
	c.p.log.Info("the bucket can be used", "bucket", c.Target, "conditional_writes", can.Conditional, "latency", can.Latency)
	return nil
}

// check is the state for readiness.
func (c *bucketCheck) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}
