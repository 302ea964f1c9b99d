package compact

import (
	"context"
	"time"
)

// backoff is the pause after a number of failures in a row: first, doubled
// with each, at most most, and a quarter more or less so that workers don't
// come back all at once. r is random in [0, 1).
func backoff(failures int, first, most time.Duration, r float64) time.Duration {
	pause := first
	for range failures - 1 {
		if pause *= 2; pause >= most {
			break
		}
	}
	pause = min(pause, most)
	return pause - pause/4 + time.Duration(r*float64(pause)/2)
}

// loop is something done again and again.
type loop struct {
	name  string
	every time.Duration
	wake  func() <-chan struct{} // nil: only every so often; else also when it is closed, but for least
	step  func(ctx context.Context) error
}

// Pauses of loops after a failure, and the least between two rounds.
const (
	loopRetry    = 5 * time.Second
	loopMaxRetry = 10 * time.Minute
	loopLeast    = 2 * time.Second
)

// run goes round until ctx is done. A round that fails is logged and tried
// again, later each time; it holds up no other loop.
func (c *Compactor) run(ctx context.Context, l loop) {
	c.metrics.watch(l.name)
	failures := 0
	for {
		var wake <-chan struct{}
		if l.wake != nil {
			wake = l.wake() // before the step, so that nothing is missed meanwhile
		}
		began := c.now()
		err := l.step(ctx)
		if ctx.Err() != nil {
			return
		}
		c.metrics.rounds.WithLabelValues(l.name).Inc()
		pause := l.every
		if err != nil {
			failures++
			c.metrics.roundFailures.WithLabelValues(l.name).Inc()
			pause, wake = backoff(failures, loopRetry, loopMaxRetry, c.rand()), nil
			c.log.Warn(l.name+" failed; it is tried again", "err", err, "failures", failures, "duration", c.now().Sub(began))
		} else {
			failures = 0
			c.metrics.roundSuccess.WithLabelValues(l.name).Set(float64(c.now().Unix()))
		}
		if !sleep(ctx, min(pause, loopLeast), nil) || !sleep(ctx, pause-loopLeast, wake) {
			return
		}
	}
}

// sleep waits, less long when wake is closed. It is false when ctx is done.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return ctx.Err() == nil
}
