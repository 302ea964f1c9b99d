// Package engine evaluates PromQL. It knows nothing of HTTP, RPC or where
// samples come from: it is given an expression and a storage.Queryable, and
// returns a value with its annotations and statistics.
//
// Engine is the seam: today Prometheus, the engine of the Prometheus module,
// stands behind it, and what is faster later takes its place for the
// expressions it can do. Source puts an Engine behind the thanos.Query service.
//
// Everything here is safe for concurrent use, but for a Result, which belongs
// to one caller.
package engine

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
)

// MaxPoints is how many steps a range query may have, as in Prometheus: a week
// at 60 s, a year at 1 h.
const MaxPoints = 11_000

// Engine evaluates PromQL over a Queryable.
type Engine interface {
	// Exec evaluates one expression. It waits for a free slot first. Errors are
	// of type *Error. The Result must be closed when its value is no longer used.
	Exec(ctx context.Context, q storage.Queryable, req Request) (*Result, error)
	// Parser parses expressions and selectors as Exec does.
	Parser() parser.Parser
}

// Request is one expression to evaluate: at Start alone when Step is 0, else at
// each step of [Start, End].
type Request struct {
	Expr       string
	Start, End time.Time
	Step       time.Duration

	Timeout  time.Duration // 0: the engine's; never more than that
	Lookback time.Duration // 0: the engine's, widened for MaxResolution

	// MaxResolution is the coarsest downsampling resolution the data may have.
	MaxResolution time.Duration

	PerStepStats       bool  // count samples by step
	UseStartTimestamps *bool // nil: as configured
}

// Result is the answer to a Request.
type Result struct {
	Value       parser.Value // promql.Vector, Matrix, Scalar or String
	Annotations annotations.Annotations
	Stats       *stats.Statistics

	close func()
}

// Close gives the memory of Value back to the engine. Value must not be used afterwards.
func (r *Result) Close() {
	if r.close != nil {
		r.close()
		r.close = nil
	}
}
