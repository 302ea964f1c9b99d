package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Why an endpoint was given up.
var (
	errSilent = errors.New("silent for too long")
	errBudget = errors.New("it was waited for in nine tenths of the request's time, and the rest is needed for what the others have sent")
)

// errLate is the cause of a context that a watch has ended.
var errLate = errors.New("gave up waiting")

// watch gives up on an endpoint that lets a request wait: for longer than idle
// each time it is waited for, or altogether for so long that nothing of the
// request's own time would be left to make use of what the others have sent.
// Time in which the endpoint has to wait for us is not held against it. It is
// used by one goroutine.
type watch struct {
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil: there is nothing to watch
	idle   time.Duration
	left   time.Duration // that the endpoint may still be waited for; valid where bounded is set
	since  time.Time     // when the waiting began
	silent error         // what it means if idle is over
	why    error         // what it would mean if the timer fired now

	bounded bool // the request has a deadline
}

// newWatch returns the context of a call and its watch; waiting begins at once.
// idle 0 is no limit.
func newWatch(ctx context.Context, idle time.Duration) (context.Context, *watch) {
	w := &watch{idle: idle, silent: fmt.Errorf("%w: nothing came for %s (--store.response-timeout)", errSilent, idle)}
	if deadline, ok := ctx.Deadline(); ok {
		w.bounded, w.left = true, time.Until(deadline)*9/10
	}
	ctx, w.cancel = context.WithCancelCause(ctx)
	if idle > 0 || w.bounded {
		w.timer = time.AfterFunc(time.Hour, func() { w.cancel(errLate) })
		w.waiting()
	}
	return ctx, w
}

// waiting says that from now on the endpoint is waited for.
func (w *watch) waiting() {
	if w.timer == nil {
		return
	}
	w.since = time.Now()
	limit := w.idle
	w.why = w.silent
	if w.bounded && (w.idle == 0 || w.left < w.idle) {
		limit, w.why = w.left, errBudget
	}
	w.timer.Reset(limit)
}

// came says that the endpoint has sent something.
func (w *watch) came() {
	if w.timer != nil {
		w.timer.Stop()
		w.left -= time.Since(w.since)
	}
}

// close frees what the watch holds and ends the call.
func (w *watch) close() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.cancel(nil)
}

// explain returns err with the reason, where the watch was it.
func (w *watch) explain(ctx context.Context, p peer, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errLate) {
		return named(p, w.why)
	}
	return err
}
