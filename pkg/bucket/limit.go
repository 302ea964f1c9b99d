package bucket

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// limiter bounds the requests that wait for the store at once. While the store
// throttles, the bound falls by half at a time and requests pause; when it
// answers again, the bound grows by one a round of answers, as TCP's window does.
//
// A request counts until its answer begins: reading a body is not bounded here
// but by who reads, so that a caller may have a body open and ask for more
// without waiting for itself.
type limiter struct {
	most    int
	metrics *metrics
	now     func() time.Time
	rand    func() float64 // in [0, 1)

	mu struct {
		sync.Mutex
		limit    float64
		inFlight int
		queue    []chan struct{} // first come, first served
		streak   int             // throttled answers since the last good one
		fell     time.Time       // when limit was last halved
		pause    time.Time       // nothing is sent before
	}
}

const (
	fallEvery  = 100 * time.Millisecond // answers of one burst count as one signal
	pauseFirst = 50 * time.Millisecond
	pauseMost  = 2 * time.Second
)

func newLimiter(most int, m *metrics) *limiter {
	l := &limiter{most: most, metrics: m, now: time.Now, rand: rand.Float64}
	l.mu.limit = float64(most)
	m.limit.Set(l.mu.limit)
	return l
}

// withLimit has the requests to b bounded by l.
func withLimit(b Bucket, l *limiter) Bucket {
	return &layer{Bucket: b, around: func(ctx context.Context, _ Call, do func(context.Context) error) error {
		if err := l.acquire(ctx); err != nil {
			return err
		}
		throttled := false
		defer func() { // also when do panics
			if ctx.Err() != nil && !throttled {
				l.leave() // whoever asked has given up, which tells nothing of the store
				return
			}
			l.release(throttled)
		}()
		err := do(ctx)
		throttled = classify(err) == classThrottled
		return err
	}}
}

// acquire waits for a place and for the end of a pause.
func (l *limiter) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.metrics.waiting.Inc()
	defer l.metrics.waiting.Dec()
	l.mu.Lock()
	if l.mu.inFlight < int(l.mu.limit) && len(l.mu.queue) == 0 {
		l.take()
		l.mu.Unlock()
		return l.sleep(ctx)
	}
	place := make(chan struct{})
	l.mu.queue = append(l.mu.queue, place)
	l.mu.Unlock()
	select {
	case <-place:
		return l.sleep(ctx)
	case <-ctx.Done():
		l.abandon(place)
		return ctx.Err()
	}
}

// take counts one more in flight; l.mu is held.
func (l *limiter) take() {
	l.mu.inFlight++
	l.metrics.inFlight.Set(float64(l.mu.inFlight))
}

// sleep waits out a pause with the place taken, and gives the place back if ctx ends first.
func (l *limiter) sleep(ctx context.Context) error {
	for {
		l.mu.Lock()
		wait := l.mu.pause.Sub(l.now())
		l.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			l.leave()
			return ctx.Err()
		}
	}
}

// abandon gives up place, or what it has just been given.
func (l *limiter) abandon(place chan struct{}) {
	l.mu.Lock()
	for i, p := range l.mu.queue {
		if p == place {
			l.mu.queue = append(l.mu.queue[:i], l.mu.queue[i+1:]...)
			l.mu.Unlock()
			return
		}
	}
	l.mu.Unlock()
	l.leave()
}

// leave gives back a place that was not used, or from which nothing is learned.
func (l *limiter) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next()
}

// release gives back a place after an answer and learns from it.
func (l *limiter) release(throttled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if throttled {
		l.fall()
	} else {
		l.mu.streak = 0
		l.mu.limit = min(float64(l.most), l.mu.limit+1/l.mu.limit)
	}
	l.metrics.limit.Set(float64(int(l.mu.limit)))
	l.next()
}

// fall halves the limit and lengthens the pause; l.mu is held.
func (l *limiter) fall() {
	l.metrics.throttled.Inc()
	now := l.now()
	if now.Sub(l.mu.fell) < fallEvery && !l.mu.fell.IsZero() {
		return
	}
	l.mu.fell = now
	l.mu.limit = max(1, l.mu.limit/2)
	pause := min(pauseMost, pauseFirst<<min(l.mu.streak, 10))
	l.mu.pause = now.Add(pause/2 + time.Duration(l.rand()*float64(pause/2)))
	l.mu.streak++
}

// next takes one out of flight and lets those in that there is room for; l.mu is held.
func (l *limiter) next() {
	l.mu.inFlight--
	l.metrics.inFlight.Set(float64(l.mu.inFlight))
	for len(l.mu.queue) > 0 && l.mu.inFlight < int(l.mu.limit) {
		place := l.mu.queue[0]
		l.mu.queue = l.mu.queue[1:]
		l.take()
		close(place)
	}
}
