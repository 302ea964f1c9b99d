package model

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Engine evaluates PromQL over models.
type Engine struct{ ng *promql.Engine }

// NewEngine returns an engine with Prometheus' own defaults, but for a timeout that
// holds on busy machines, too. Close it.
func NewEngine() *Engine {
	return &Engine{promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: 20 * time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{}),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() }, EnableAtModifier: true, EnableNegativeOffset: true,
	})}
}

// Close gives back what the engine holds.
func (e *Engine) Close() error { return e.ng.Close() }

// Steps are the moments of a range query, both ends included.
type Steps struct {
	Start, End time.Time
	Step       time.Duration
}

// Range evaluates a range query. The result is the caller's.
func (e *Engine) Range(ctx context.Context, m *Model, expr string, at Steps) (promql.Matrix, error) {
	q, err := e.ng.NewRangeQuery(ctx, m, nil, expr, at.Start, at.End, at.Step)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	defer q.Close()
	r := q.Exec(ctx)
	matrix, err := r.Matrix()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	out := make(promql.Matrix, 0, len(matrix))
	for _, s := range matrix { // closing the query takes its memory back
		s.Floats = append([]promql.FPoint(nil), s.Floats...)
		s.Histograms = append([]promql.HPoint(nil), s.Histograms...)
		out = append(out, s)
	}
	return out, nil
}
