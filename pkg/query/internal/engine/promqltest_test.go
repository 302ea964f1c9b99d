package engine

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"
)

// TestPromQL runs the scripts of the Prometheus module, all of them, through
// Exec. What they expect of values, order, annotations and error texts is what Prometheus answers.
func TestPromQL(t *testing.T) {
	e := newTestEngine(t, func(c *Config) {
		c.Timeout = c.Timeout * 10
		c.Features = []string{
			featureExperimental, featureFillModifiers, featureUnquotedUTF8, featureDelayedNames, featureStartTimes,
		}
	})
	promqltest.RunBuiltinTests(t, scriptEngine{e})
}

// scriptEngine lets the scripts drive an Engine.
type scriptEngine struct{ e Engine }

func (s scriptEngine) NewInstantQuery(_ context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, at time.Time) (promql.Query, error) {
	return s.query(q, opts, Request{Expr: expr, Start: at})
}

func (s scriptEngine) NewRangeQuery(_ context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return s.query(q, opts, Request{Expr: expr, Start: start, End: end, Step: step})
}

func (s scriptEngine) query(q storage.Queryable, opts promql.QueryOpts, req Request) (promql.Query, error) {
	if opts != nil {
		req.Lookback, req.PerStepStats, req.UseStartTimestamps = opts.LookbackDelta(), opts.EnablePerStepStats(), opts.UseStartTimestamps()
	}
	return &scriptQuery{e: s.e, q: q, req: req}, nil
}

type scriptQuery struct {
	e   Engine
	q   storage.Queryable
	req Request
	res *Result
}

func (q *scriptQuery) Exec(ctx context.Context) *promql.Result {
	res, err := q.e.Exec(ctx, q.q, q.req)
	if err != nil {
		return &promql.Result{Err: err}
	}
	q.res = res
	return &promql.Result{Value: res.Value, Warnings: res.Annotations}
}

func (q *scriptQuery) Close() {
	if q.res != nil {
		q.res.Close()
	}
}

func (q *scriptQuery) Statement() parser.Statement { return nil }
func (q *scriptQuery) Stats() *stats.Statistics    { return q.res.Stats }
func (q *scriptQuery) Cancel()                     {}
func (q *scriptQuery) String() string              { return q.req.Expr }
