package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/promql"
)

type metrics struct {
	running, slots prometheus.Gauge
	refused        *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		running: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_engine_running", Help: "Queries that hold a slot of the engine.",
		}),
		slots: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_engine_slots", Help: "Slots of the engine (--query.max-concurrent).",
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_query_engine_errors_total", Help: "Queries that failed, by kind of error.",
		}, []string{"kind"}),
	}
}

// errQueueFull refuses a query because too many wait before it.
var errQueueFull = errors.New("query refused, the queue is full")

// slots bounds the queries evaluated at once, and writes the running ones to
// the active query file where there is one. It is the promql.QueryTracker of the engine.
type slots struct {
	free    chan int
	queue   int64                      // longest queue allowed
	waiting atomic.Int64               // its length
	file    *promql.ActiveQueryTracker // nil: none
	m       *metrics
	at      []int // index in file, by slot; a slot's is used by its holder alone
}

func newSlots(cfg Config, log *slog.Logger, m *metrics, reg prometheus.Registerer) (*slots, error) {
	s := &slots{free: make(chan int, cfg.MaxConcurrent), queue: int64(cfg.MaxQueued), m: m, at: make([]int, cfg.MaxConcurrent)}
	for i := range cfg.MaxConcurrent {
		s.free <- i
	}
	m.slots.Set(float64(cfg.MaxConcurrent))
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "firnline_query_engine_waiting", Help: "Queries that wait for a slot of the engine.",
	}, func() float64 { return float64(s.waiting.Load()) })
	if cfg.ActiveQueryPath != "" {
		file, err := promql.NewActiveQueryTracker(cfg.ActiveQueryPath, cfg.MaxConcurrent, log)
		if err != nil {
			return nil, fmt.Errorf("--query.active-query-path %s: %w", cfg.ActiveQueryPath, err)
		}
		s.file = file
	}
	return s, nil
}

// GetMaxConcurrent returns the number of slots.
func (s *slots) GetMaxConcurrent() int { return cap(s.free) }

// Insert takes a slot for the query. Where none is free it waits for one until
// ctx ends, unless too many wait already: errQueueFull.
func (s *slots) Insert(ctx context.Context, query string) (int, error) {
	select {
	case slot := <-s.free:
		return s.take(ctx, slot, query)
	default:
	}
	if n := s.waiting.Add(1); n > s.queue {
		s.waiting.Add(-1)
		return 0, fmt.Errorf("%w: %d wait already (--query.max-queued); ask again later", errQueueFull, s.queue)
	}
	defer s.waiting.Add(-1)
	select {
	case slot := <-s.free:
		return s.take(ctx, slot, query)
	case <-ctx.Done():
		return 0, queueError(ctx.Err())
	}
}

// take makes the query the holder of a slot.
func (s *slots) take(ctx context.Context, slot int, query string) (int, error) {
	if s.file != nil {
		at, err := s.file.Insert(ctx, query)
		if err != nil {
			s.free <- slot
			return 0, queueError(err)
		}
		s.at[slot] = at
	}
	s.m.running.Inc()
	return slot, nil
}

// Delete gives a slot back.
func (s *slots) Delete(slot int) {
	if s.file != nil {
		s.file.Delete(s.at[slot])
	}
	s.m.running.Dec()
	s.free <- slot
}

// Close closes the active query file.
func (s *slots) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// queueError says that a query's time ended while it was waiting for a slot.
func queueError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return promql.ErrQueryTimeout("query queue")
	}
	return promql.ErrQueryCanceled("query queue")
}
