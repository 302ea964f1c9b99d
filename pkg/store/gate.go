package store

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/firnline/firnline/pkg/storeapi"
)

// gate lets so many requests in at once; more wait in line.
type gate struct {
	slots   *semaphore.Weighted
	metrics *metrics
}

func newGate(n int, m *metrics) *gate {
	return &gate{slots: semaphore.NewWeighted(int64(n)), metrics: m}
}

// enter waits for a turn, no longer than ctx. The caller calls leave.
func (g *gate) enter(ctx context.Context) error {
	began := time.Now()
	g.metrics.gateWaiting.Inc()
	err := g.slots.Acquire(ctx, 1)
	g.metrics.gateWaiting.Dec()
	g.metrics.gateSeconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return fmt.Errorf("%w: no turn among --%s requests: %w", storeapi.ErrUnavailable, flagConcurrency, err)
	}
	g.metrics.gateInFlight.Inc()
	return nil
}

func (g *gate) leave() {
	g.metrics.gateInFlight.Dec()
	g.slots.Release(1)
}
