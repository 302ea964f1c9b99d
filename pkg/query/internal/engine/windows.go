package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// Downsampled data has a sample a window, which stands for many. PromQL's
// count_over_time would count windows, and avg_over_time would take a full one
// for as much as one with a single sample. So where data may be downsampled
//
//	count_over_time(x[r]) is evaluated as sum_over_time(counts of x[r]), and
//	avg_over_time(x[r])   as sum_over_time(x[r]) / sum_over_time(counts of x[r])
//
// in which each raw sample has a count of 1 (RELIABILITY C10). Positions in the
// expression stay what they were: it is the parsed tree that changes.

const (
	// overWindows stands behind an expression that is to be changed in this way. It
	// is a comment, so the engine's own log shows what was done.
	overWindows = "\n# over downsampled data"
	// countsLabel names the matcher of selectors that stand for counts.
	countsLabel = "__firnline_counts__"
	// countsFunction is the function that such a selector is selected for.
	countsFunction = "count_over_time"
)

// leastDownsampled is the finest resolution of downsampled data.
const leastDownsampled = 5 * time.Minute

// windowed returns the expression and the data of a request so that windows count
// for what they hold. What can't be parsed is left as it is.
func (p *Prometheus) windowed(q storage.Queryable, req Request) (string, storage.Queryable) {
	if req.MaxResolution < leastDownsampled {
		return req.Expr, q
	}
	expr, err := p.parser.ParseExpr(req.Expr)
	if err != nil || !mentions(expr, "count_over_time", "avg_over_time") {
		return req.Expr, q
	}
	return req.Expr + overWindows, storage.QueryableFunc(func(mint, maxt int64) (storage.Querier, error) {
		of, err := q.Querier(mint, maxt)
		return countsQuerier{of}, err
	})
}

// mentions tells whether any of the functions is called.
func mentions(n parser.Node, functions ...string) bool {
	if call, ok := n.(*parser.Call); ok && slices.Contains(functions, call.Func.Name) {
		return true
	}
	for c := range parser.ChildrenIter(n) {
		if mentions(c, functions...) {
			return true
		}
	}
	return false
}

// countsQuerier selects counts where a selector asks for them.
type countsQuerier struct{ storage.Querier }

// Select implements storage.Querier.
func (q countsQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	i := slices.IndexFunc(matchers, func(m *labels.Matcher) bool { return m.Name == countsLabel })
	if i < 0 || hints == nil {
		return q.Querier.Select(ctx, sorted, hints, matchers...)
	}
	counts := *hints
	counts.Func = countsFunction
	return q.Querier.Select(ctx, sorted, &counts, slices.Delete(slices.Clone(matchers), i, i+1)...)
}

// windowParser changes the expressions that end with overWindows.
type windowParser struct {
	parser.Parser
	delayedNames bool // names of metrics stay until the end of the evaluation
}

// ParseExpr parses an expression.
func (p windowParser) ParseExpr(input string) (parser.Expr, error) {
	input, marked := strings.CutSuffix(input, overWindows)
	expr, err := p.Parser.ParseExpr(input)
	if err != nil || !marked {
		return expr, err
	}
	return p.change(expr), nil
}

// change returns an expression with all calls in it changed.
func (p windowParser) change(e parser.Expr) parser.Expr {
	switch e := e.(type) {
	case *parser.AggregateExpr:
		e.Expr = p.change(e.Expr)
		if e.Param != nil {
			e.Param = p.change(e.Param)
		}
	case *parser.BinaryExpr:
		e.LHS, e.RHS = p.change(e.LHS), p.change(e.RHS)
	case *parser.ParenExpr:
		e.Expr = p.change(e.Expr)
	case *parser.UnaryExpr:
		e.Expr = p.change(e.Expr)
	case *parser.SubqueryExpr:
		e.Expr = p.change(e.Expr)
	case *parser.StepInvariantExpr:
		e.Expr = p.change(e.Expr)
	case *parser.Call:
		for i := range e.Args {
			e.Args[i] = p.change(e.Args[i])
		}
		return p.changeCall(e)
	}
	return e
}

func (p windowParser) changeCall(e *parser.Call) parser.Expr {
	count, average := e.Func.Name == "count_over_time", e.Func.Name == "avg_over_time"
	if !count && !average || len(e.Args) != 1 {
		return e
	}
	m, ok := unparen(e.Args[0]).(*parser.MatrixSelector)
	if !ok {
		return e // of a subquery, whose steps are samples
	}
	counts := sumOverTime(e, countsOf(m))
	if count {
		return counts
	}
	if selector := m.VectorSelector.(*parser.VectorSelector); p.delayedNames && selector.Name == "" {
		return e // series that differ by their names alone could not be divided
	}
	return &parser.ParenExpr{PosRange: e.PosRange, Expr: &parser.BinaryExpr{
		Op: parser.DIV, LHS: sumOverTime(e, m), RHS: counts,
		VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
	}}
}

// sumOverTime returns a call in the place of another.
func sumOverTime(of *parser.Call, m *parser.MatrixSelector) *parser.Call {
	return &parser.Call{Func: parser.Functions["sum_over_time"], Args: parser.Expressions{m}, PosRange: of.PosRange}
}

// countsOf returns the selector of the counts of m: a copy, since evaluation
// keeps what it selects in the tree.
func countsOf(m *parser.MatrixSelector) *parser.MatrixSelector {
	matrix, vector := *m, *m.VectorSelector.(*parser.VectorSelector)
	vector.LabelMatchers = append(slices.Clone(vector.LabelMatchers), labels.MustNewMatcher(labels.MatchEqual, countsLabel, "1"))
	matrix.VectorSelector = &vector
	return &matrix
}

func unparen(e parser.Expr) parser.Expr {
	for {
		inner, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = inner.Expr
	}
}
