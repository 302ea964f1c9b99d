package compact

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrLeftUndone tells that a pass came to its end with something it could not do.
var ErrLeftUndone = errors.New("some work is left undone")

// maxRounds bounds a pass, in which each round makes work for the next one: a
// block comes to 14 days in four, and to one hour's resolution in one more.
const maxRounds = 100

// Once makes one pass: everything that can be done now. It returns nil when
// nothing is left to do, or only what other workers do and take long for. The error wraps
// ErrLeftUndone when jobs have failed, and else is about the bucket.
func (c *Compactor) Once(ctx context.Context) error {
	telling, enough := context.WithCancel(ctx)
	var g sync.WaitGroup
	defer g.Wait()
	defer enough()
	if every := time.Duration(c.cfg.ProgressInterval); every > 0 {
		g.Go(func() {
			if sleep(telling, every, nil) {
				c.run(telling, loop{name: "telling progress", every: every, step: c.tell})
			}
		})
	}
	began, jobs, since := c.now(), c.jobs.finishedJobs(), time.Now()
	for range maxRounds {
		if err := c.look(ctx); err != nil {
			return err
		}
		before := c.jobs.finishedJobs()
		c.workUntilIdle(ctx, since)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if c.jobs.finishedJobs() == before {
			break
		}
	}
	err := errors.Join(c.mark(ctx), c.writeClean(ctx), c.closeDeletes(ctx), c.clean(ctx))
	if failed := c.leftUndone(); failed != nil {
		err = errors.Join(err, failed)
	}
	c.tellPass(c.now().Sub(began), c.jobs.finishedJobs()-jobs)
	return err
}

// tellPass logs what a pass came to.
func (c *Compactor) tellPass(took time.Duration, jobs int) {
	s := c.Status()
	c.log.Info("the pass is over", "duration", took.Round(time.Millisecond), "jobs", jobs, "failed", len(s.Failed), "elsewhere", len(s.Elsewhere),
		"blocks", s.Blocks-s.Marked, "marked_for_deletion", s.Marked, "held", len(s.Held), "set_aside", len(s.SetAside), "resting", len(s.Resting))
}

// workUntilIdle runs jobs until there is none that could begin, in a pass that began
// at since by the machine's clock.
func (c *Compactor) workUntilIdle(ctx context.Context, since time.Time) {
	var g sync.WaitGroup
	defer g.Wait()
	for range c.cfg.Concurrency {
		g.Go(func() {
			for ctx.Err() == nil {
				changed := c.view.next()
				if a := c.nextJob(ctx); a != nil {
					_ = c.do(ctx, a) // it is noted
					continue
				}
				c.tryWriteClean(ctx)
				if c.jobs.idle() && time.Since(c.jobs.idleSince(since)) >= c.jobs.patience() {
					return
				}
				c.await(ctx, changed) // a job that ends may make room for another, or give rise to one
			}
		})
	}
}

// leftUndone says which jobs could not be done. A failure whose job is not to be
// done any more is forgotten.
func (c *Compactor) leftUndone() error {
	due, err := c.due()
	if err != nil {
		return err
	}
	c.jobs.keepFailures(due)
	_, failed, _ := c.jobs.lists()
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d jobs failed, such as %s: %s", ErrLeftUndone, len(failed), failed[0].Key, failed[0].Reason)
}

// tell logs what is left to do.
func (c *Compactor) tell(context.Context) error {
	due, err := c.due()
	if err != nil {
		return err
	}
	c.jobs.keepFailures(due)
	s := c.Status()
	if s.Ready != "" {
		c.log.Info("not begun yet", "waiting_for", s.Ready)
		return nil
	}
	var jobs int
	var bytes int64
	for _, b := range s.Backlog {
		for _, n := range b.Jobs {
			jobs += n
		}
		bytes += b.Bytes
	}
	c.log.Info("progress", "jobs", jobs, "groups", len(s.Backlog), "bytes", size(bytes), "estimate", time.Duration(s.Hours*float64(time.Hour)).Round(time.Second),
		"running", len(s.Running), "elsewhere", len(s.Elsewhere), "failed", len(s.Failed),
		"garbage", s.Garbage, "expired", s.Expired, "removable", s.Removable, "held", len(s.Held), "set_aside", len(s.SetAside), "resting", len(s.Resting))
	for _, r := range s.Running {
		c.log.Info("job goes on", "job", r.Key, "stage", r.Stage, "done", fmt.Sprintf("%.0f%%", 100*r.Share))
	}
	return nil
}
