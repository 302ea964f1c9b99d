// Package prove tests a store without end: it writes series whose values are a
// known function of time, reads them back over windows of all lengths, and tells
// of each sample that is missing, wrong, or there without having been written.
//
// A sample that the store has taken is expected from then on, however old it
// gets; one that it refused is written again until it is taken. So a mismatch is
// never the prover's own doing, but for one case: samples from before this
// process began are compared when they are there, and not missed when they
// aren't, unless it is told since when they were written.
package prove

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what an operator may set.
type Config struct {
	ID       string          // of the series; the same over restarts
	Series   int             // of each kind
	Interval time.Duration   // between samples
	Check    time.Duration   // between checks
	Windows  []time.Duration // read back
	Settle   time.Duration   // how long after a write it must show
	Since    time.Time       // when samples were first written; zero: when this began
	Duration time.Duration   // how long to go on; 0: for ever
	Pending  int             // times that wait to be written, at most
}

// Sample is one of a series.
type Sample struct {
	T int64 // ms
	V float64
}

// Series is one that is written, or read back.
type Series struct {
	Kind    string // the metric
	N       int
	Samples []Sample
}

// Store is what is put to the test.
type Store interface {
	Write(ctx context.Context, id string, all []Series) error
	// Window reads the raw samples of a metric in (end-window, end].
	Window(ctx context.Context, id, kind string, end time.Time, window time.Duration) ([]Series, error)
	// Steps reads the value at each step of [start, end].
	Steps(ctx context.Context, id, kind string, r v1.Range) ([]Series, error)
}

// Metrics that the series have.
const (
	Counter = "firnline_prove_counter"
	Gauge   = "firnline_prove_gauge"
)

// kinds lists the metrics.
func kinds() []string { return []string{Counter, Gauge} }

// Value is the known function: of the kind, the series' number and the time in ms.
func Value(kind string, n int, t int64) float64 {
	s := uint64(t) / 1000
	if kind == Counter {
		return float64(s) * float64(n+1)
	}
	return float64((s*2_654_435_761 + uint64(n)*40_503) % 10_007)
}

// Prover runs the test.
type Prover struct {
	cfg     Config
	store   Store
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	taken   spans   // times that were written, in ms
	pending []int64 // that are still to be
	result  Result
}

// Result is what a run came to.
type Result struct {
	Written       int // times
	WriteFailures int
	Checks        int
	CheckFailures int // that could not be made
	Mismatches    int // samples
	First         string
}

// ErrMismatch tells that the store has answered otherwise than it should.
var ErrMismatch = errors.New("the store does not answer what was written")

// New wires a Prover and starts nothing; call Run.
func New(cfg Config, store Store, log *slog.Logger, reg prometheus.Registerer) *Prover {
	return &Prover{cfg: cfg, store: store, log: log, metrics: newMetrics(reg), now: time.Now}
}

// Run tests until the duration has passed, or ctx is done, and checks once more at
// the end. The error wraps ErrMismatch.
func (p *Prover) Run(ctx context.Context) (Result, error) {
	began := p.now()
	if !p.cfg.Since.IsZero() {
		p.taken.add(p.cfg.Since.Truncate(p.cfg.Interval).UnixMilli(), began.Truncate(p.cfg.Interval).UnixMilli()-p.step(), p.step())
	}
	tick := time.NewTicker(p.cfg.Interval)
	defer tick.Stop()
	checked := began
	for {
		p.write(ctx)
		if now := p.now(); now.Sub(checked) >= p.cfg.Check {
			checked = now
			p.check(ctx)
		}
		if p.cfg.Duration > 0 && p.now().Sub(began) >= p.cfg.Duration {
			break
		}
		select {
		case <-ctx.Done():
			return p.end(nil)
		case <-tick.C:
		}
	}
	if err := p.settle(ctx); err != nil {
		return p.end(nil)
	}
	p.check(ctx)
	return p.end(nil)
}

// settle waits until what was written last must show.
func (p *Prover) settle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(p.cfg.Settle):
		return nil
	}
}

func (p *Prover) end(err error) (Result, error) {
	if p.result.Mismatches > 0 {
		err = fmt.Errorf("%w: %d samples, the first: %s", ErrMismatch, p.result.Mismatches, p.result.First)
	}
	return p.result, err
}

func (p *Prover) step() int64 { return p.cfg.Interval.Milliseconds() }

// write writes what is due, and what could not be written before, the oldest first.
func (p *Prover) write(ctx context.Context) {
	due := p.now().Truncate(p.cfg.Interval).UnixMilli()
	if n := len(p.pending); (n == 0 || p.pending[n-1] < due) && !p.taken.has(due) {
		p.pending = append(p.pending, due)
	}
	if over := len(p.pending) - p.cfg.Pending; over > 0 {
		p.log.Warn("times are given up: they were never taken", "times", over)
		p.pending = p.pending[over:]
	}
	for len(p.pending) > 0 && ctx.Err() == nil {
		t := p.pending[0]
		if err := p.store.Write(ctx, p.cfg.ID, p.at(t)); err != nil {
			p.result.WriteFailures++
			p.metrics.writeFailures.Inc()
			p.log.Warn("a write failed; it is tried again", "err", err, "pending", len(p.pending))
			return
		}
		p.pending = p.pending[1:]
		p.taken.add(t, t, p.step())
		p.result.Written++
		p.metrics.writes.Inc()
	}
}

// at are all series at one time.
func (p *Prover) at(t int64) []Series {
	var out []Series
	for _, kind := range kinds() {
		for n := range p.cfg.Series {
			out = append(out, Series{kind, n, []Sample{{t, Value(kind, n, t)}}})
		}
	}
	return out
}
