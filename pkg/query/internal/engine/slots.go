package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/promql"
)

type metrics struct {
	running, waiting, slots prometheus.Gauge
	refused                 *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		running: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_engine_running", Help: "Queries that hold a slot of the engine.",
		}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_engine_waiting", Help: "Queries that wait for a slot of the engine.",
		}),
		slots: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_engine_slots", Help: "Slots of the engine (--query.max-concurrent).",
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_query_engine_errors_total", Help: "Queries that failed, by kind of error.",
		}, []string{"kind"}),
	}
}

// slots bounds the queries evaluated at once, and writes the running ones to
// the active query file where there is one. It is the promql.QueryTracker of the engine.
type slots struct {
	free chan int
	file *promql.ActiveQueryTracker // nil: none
	m    *metrics
	at   []int // index in file, by slot; a slot's is used by its holder alone
}

func newSlots(cfg Config, log *slog.Logger, m *metrics) (*slots, error) {
	s := &slots{free: make(chan int, cfg.MaxConcurrent), m: m, at: make([]int, cfg.MaxConcurrent)}
	for i := range cfg.MaxConcurrent {
		s.free <- i
	}
	m.slots.Set(float64(cfg.MaxConcurrent))
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

// Insert takes a slot for the query, waiting for one until ctx ends.
func (s *slots) Insert(ctx context.Context, query string) (int, error) {
	s.m.waiting.Inc()
	defer s.m.waiting.Dec()
	select {
	case slot := <-s.free:
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
	case <-ctx.Done():
		return 0, queueError(ctx.Err())
	}
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
