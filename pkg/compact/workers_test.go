package compact_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/compact"
)

// TestTwoWorkers lets two processes clear one backlog in step: whoever has claimed
// a job waits until the other has claimed one, too. They do no more jobs together
// than one does alone, and about as many each, though each plans by itself.
func TestTwoWorkers(t *testing.T) {
	alone, w := twoWindows(t)
	reg := prometheus.NewRegistry()
	require.NoError(t, alone.compactor(func(_ *compact.Config, p *compact.Parts) { p.Metrics = reg }).Once(context.Background()))
	jobs := value(t, reg, "jobs_total")
	require.EqualValues(t, 18, jobs, "seven of two days and, raw and at 5m, one of 14 days for each window")

	both := newInStep(2)
	regs := []*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	var g sync.WaitGroup
	for _, reg := range regs {
		c := w.compactor(func(_ *compact.Config, p *compact.Parts) { p.Metrics, p.Fault = reg, both.hook })
		g.Go(func() {
			defer both.leave()
			if err := c.Once(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	a, b := value(t, regs[0], "jobs_total"), value(t, regs[1], "jobs_total")
	require.Equal(t, jobs, a+b)
	require.InDelta(t, a, b, 2)
	require.Zero(t, value(t, regs[0], "job_failures_total")+value(t, regs[1], "job_failures_total"))
	w.requireSamples()
	require.Len(t, w.liveRaw(), 2)
	require.Len(t, w.live(), len(alone.live()))
}

// twoWindows makes two equal buckets with blocks for two windows of 14 days, more
// in each than one job takes.
func twoWindows(t *testing.T) (one, other *world) {
	one, other = newWorld(t), newWorld(t)
	one.clock.add(30 * 24 * time.Hour)
	for h := int64(0); h < 28*24; h += 4 {
		one.ship(h, h+4, 1)
	}
	other.clock, other.want = one.clock, one.want
	other.bkt.SetClock(one.clock.now)
	for name, data := range one.bkt.Objects() {
		require.NoError(t, other.bkt.Upload(context.Background(), name, bytes.NewReader(data)))
	}
	return one, other
}

// inStep is a fault hook that lets a number of processes claim jobs together.
type inStep struct {
	mu      sync.Mutex
	n       int // processes that are not done
	waiting int
	all     chan struct{} // closed when all have claimed one
}

func newInStep(n int) *inStep { return &inStep{n: n, all: make(chan struct{})} }

func (s *inStep) hook(_ context.Context, point, _ string) error {
	if point != "compact/after-claim" {
		return nil
	}
	s.mu.Lock()
	s.waiting++
	mine := s.all
	s.releaseLocked()
	s.mu.Unlock()
	<-mine
	return nil
}

// leave tells that a process is done.
func (s *inStep) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n--
	s.releaseLocked()
}

func (s *inStep) releaseLocked() {
	if s.waiting < s.n {
		return
	}
	close(s.all)
	s.all, s.waiting = make(chan struct{}), 0
}
