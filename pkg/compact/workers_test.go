package compact_test

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
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

// TestPassWaitsForOthers: who has nothing left to do while another is at work looks
// what that comes to, and does its part of what it gives rise to: the jobs of 14
// days need the results of all others.
func TestPassWaitsForOthers(t *testing.T) {
	w := newWorld(t)
	w.clock.add(30 * 24 * time.Hour)
	for h := int64(0); h < 14*24; h += 4 {
		w.ship(h, h+4, 1)
	}
	claimed, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := w.compactor(func(_ *compact.Config, p *compact.Parts) {
		p.Fault = func(_ context.Context, point, _ string) error {
			if point == "compact/after-claim" {
				once.Do(func() { close(claimed); <-goOn })
			}
			return nil
		}
	})
	var g sync.WaitGroup
	defer g.Wait()
	g.Go(func() {
		if err := slow.Once(context.Background()); err != nil {
			t.Error(err)
		}
	})
	<-claimed

	var looks atomic.Int32 // since the last job
	done := 0.0            // when there was nothing left to do
	var goneOn sync.Once
	defer goneOn.Do(func() { close(goOn) })
	reg := prometheus.NewRegistry()
	waiting := w.compactor(func(_ *compact.Config, p *compact.Parts) {
		p.Metrics = reg
		p.Fault = func(_ context.Context, point, _ string) error {
			if point == "compact/after-claim" {
				looks.Store(0)
			}
			return nil
		}
		p.Bucket = bucket.WithFaults(w.bkt, func(_ context.Context, point, object string) error {
			if point == "bucket/list/before" && object == "firnline/manifest.d/" && looks.Add(1) == 3 { // one between two jobs
				goneOn.Do(func() {
					done = value(t, reg, "jobs_total")
					close(goOn)
				})
			}
			return nil
		})
	})
	waiting.Patient()
	require.NoError(t, waiting.Once(context.Background()))
	require.EqualValues(t, 6, done, "all of two days but one")
	require.Len(t, w.liveRaw(), 1, "it has stayed until the end")
	w.requireSamples()
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
