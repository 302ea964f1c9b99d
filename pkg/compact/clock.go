package compact

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/block"
)

// errClocks tells that our clock and the bucket's differ so much that nothing
// may be decided by age.
var errClocks = errors.New("clocks differ: nothing is compacted, marked or removed until one of them is set right")

const (
	maxSkew    = 5 * time.Minute // between the bucket's clock and ours
	clockFresh = 2 * time.Minute // how long a comparison holds
)

// bucketClock is the time by the bucket's clock, by which every age is
// measured. It asks the bucket seldom and counts on by our clock.
type bucketClock struct {
	bkt   block.Bucket
	owner string
	local func() time.Time

	mu struct {
		sync.Mutex
		ahead time.Duration // of ours
		asked time.Time     // by ours; zero: never
	}
}

// now is the bucket's time as far as it is known.
func (c *bucketClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local().Add(c.mu.ahead)
}

// skew is by how much the bucket's clock is ahead of ours.
func (c *bucketClock) skew() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.ahead
}

// check compares the clocks, unless that was done a moment ago. The error wraps
// errClocks when they differ, or comes from the bucket.
func (c *bucketClock) check(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := c.local().Sub(c.mu.asked); c.mu.asked.IsZero() || age < 0 || age > clockFresh {
		before := c.local()
		theirs, err := block.BucketTime(ctx, c.bkt, c.owner)
		if err != nil {
			return err
		}
		// Within a request's time nobody can tell; half of it is the best guess.
		ours := before.Add(c.local().Sub(before) / 2)
		c.mu.ahead, c.mu.asked = theirs.Sub(ours), c.local()
	}
	if c.mu.ahead.Abs() > maxSkew {
		return fmt.Errorf("%w; the bucket's is %s ahead of ours", errClocks, c.mu.ahead.Round(time.Second))
	}
	return nil
}
