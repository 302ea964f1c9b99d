package bucket

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// store answers each request after 10 ms, and throttles while down.
type store struct {
	*Memory
	down           atomic.Bool
	asked          atomic.Int64
	inFlight, most atomic.Int64
}

func (s *store) Exists(ctx context.Context, _ string) (bool, error) {
	s.asked.Add(1)
	n := s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	if n > s.most.Load() {
		s.most.Store(n)
	}
	down := s.down.Load()
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if down {
		return false, errThrottled
	}
	return true, nil
}

// A storm of 503: load falls, never rises, and comes back afterwards. // RELIABILITY B2
func TestThrottlingStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{Memory: NewMemory()}
		m := newMetrics(prometheus.NewRegistry())
		b := withRetry(withLimit(s, newLimiter(16, m)), 5, m)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, _ = b.Exists(ctx, "o") // what comes of it is counted by the store
				}
			})
		}
		rate := func(d time.Duration) float64 {
			before := s.asked.Load()
			time.Sleep(d)
			return float64(s.asked.Load()-before) / d.Seconds()
		}
		time.Sleep(time.Second)
		healthy := rate(10 * time.Second)
		require.InDelta(t, 1600, healthy, 100, "16 places of 10 ms")

		s.down.Store(true)
		first := rate(time.Second)
		require.Less(t, first, healthy/5, "the first second")
		time.Sleep(10 * time.Second)
		storm := rate(time.Minute)
		require.Less(t, storm, 10.0, "requests a second while the store is down; %.0f when it is not", healthy)
		require.Greater(t, storm, 0.1, "somebody still asks")
		t.Logf("requests a second: healthy %.0f, first second of the storm %.0f, then %.1f", healthy, first, storm)

		s.down.Store(false)
		time.Sleep(10 * time.Second)
		require.InDelta(t, healthy, rate(5*time.Second), healthy/10, "recovered")
		cancel()
		wg.Wait()
		require.LessOrEqual(t, s.most.Load(), int64(16))
	})
}

// Whoever gives up on a request learns nothing of the store: the storm goes on. // RELIABILITY B2
func TestLimitOfThoseWhoGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{Memory: NewMemory()}
		s.down.Store(true)
		l := newLimiter(16, newMetrics(prometheus.NewRegistry()))
		b := withLimit(s, l)
		for range 8 {
			_, err := b.Exists(t.Context(), "o")
			require.ErrorIs(t, err, errThrottled)
			time.Sleep(fallEvery)
		}
		limit, streak := l.mu.limit, l.mu.streak
		for range 20 {
			time.Sleep(pauseMost)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond) // half of what an answer takes
			_, err := b.Exists(ctx, "o")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		require.Equal(t, limit, l.mu.limit)
		require.Equal(t, streak, l.mu.streak)
		require.Zero(t, l.mu.inFlight)
	})
}

// Whoever stops waiting leaves no place taken.
func TestLimitWaitersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{Memory: NewMemory()}
		l := newLimiter(1, newMetrics(prometheus.NewRegistry()))
		b := withLimit(s, l)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() { _, _ = b.Exists(ctx, "o") }) // most of them run out of time
			}
			wg.Wait()
			cancel()
		}
		require.Zero(t, l.mu.inFlight)
		require.Empty(t, l.mu.queue)
		_, err := b.Exists(t.Context(), "o")
		require.NoError(t, err)
		require.Equal(t, int64(1), s.most.Load())
	})
}
