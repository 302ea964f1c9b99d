package intake

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/tenant"
)

// rates holds a token bucket of samples for each tenant that has such a limit.
type rates struct {
	mu struct {
		sync.RWMutex
		buckets map[tenant.ID]*bucket
	}
}

type bucket struct {
	*rate.Limiter
	lim *limits.Limits // whose rate it has
}

// allow takes n samples out of a tenant's bucket. A request larger than the whole
// bucket passes when it is full: it could never pass otherwise.
func (r *rates) allow(id tenant.ID, lim *limits.Limits, n int, now time.Time) bool {
	if lim.SamplesPerSecond == 0 {
		return true
	}
	r.mu.RLock()
	b := r.mu.buckets[id]
	r.mu.RUnlock()
	if b == nil || b.lim != lim {
		b = r.renew(id, lim, now)
	}
	return b.AllowN(now, min(n, lim.Burst()))
}

// renew makes a tenant's bucket follow its limits.
func (r *rates) renew(id tenant.ID, lim *limits.Limits, now time.Time) *bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.mu.buckets[id]
	switch {
	case old == nil:
		old = &bucket{Limiter: rate.NewLimiter(rate.Limit(lim.SamplesPerSecond), lim.Burst())}
	case old.lim != lim:
		old.SetLimitAt(now, rate.Limit(lim.SamplesPerSecond))
		old.SetBurstAt(now, lim.Burst())
	}
	b := &bucket{Limiter: old.Limiter, lim: lim}
	r.mu.buckets[id] = b
	return b
}

// forget drops the buckets of tenants that are full again: they have not sent for a while.
func (r *rates) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, b := range r.mu.buckets {
		if b.TokensAt(now) >= float64(b.Burst()) {
			delete(r.mu.buckets, id)
		}
	}
}
