package api

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// node is an object of the tree that parse_query answers with. The names are
// those that the tree view of Prometheus' pages reads.
type node map[string]any

// tree makes plain objects of an expression. A nil expression is null.
func tree(expr parser.Expr) any {
	switch e := expr.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		return node{
			"type": "aggregation", "op": e.Op.String(), "expr": tree(e.Expr), "param": tree(e.Param),
			"grouping": orEmpty(e.Grouping), "without": e.Without,
		}
	case *parser.BinaryExpr:
		return node{
			"type": "binaryExpr", "op": e.Op.String(), "lhs": tree(e.LHS), "rhs": tree(e.RHS),
			"matching": matchingTree(e.VectorMatching), "bool": e.ReturnBool,
		}
	case *parser.Call:
		return callTree(e)
	case *parser.MatrixSelector:
		return matrixTree(e)
	case *parser.SubqueryExpr:
		return subqueryTree(e)
	case *parser.VectorSelector:
		n := selectorTree(e)
		n["type"] = "vectorSelector"
		return n
	case *parser.DurationExpr:
		return durationTree(e)
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(e.Val, 'f', -1, 64)}
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": e.Val}
	case *parser.ParenExpr:
		return node{"type": "parenExpr", "expr": tree(e.Expr)}
	case *parser.UnaryExpr:
		return node{"type": "unaryExpr", "op": e.Op.String(), "expr": tree(e.Expr)}
	default:
		panic(fmt.Sprintf("expression of type %T: the parser has learnt something that tree has not", expr))
	}
}

func callTree(e *parser.Call) node {
	args := make([]any, 0, len(e.Args))
	for _, arg := range e.Args {
		args = append(args, tree(arg))
	}
	return node{"type": "call", "args": args, "func": node{
		"name": e.Func.Name, "argTypes": e.Func.ArgTypes, "variadic": e.Func.Variadic, "returnType": e.Func.ReturnType,
	}}
}

func matchingTree(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return node{
		"card": m.Card.String(), "labels": orEmpty(m.MatchingLabels), "on": m.On, "include": orEmpty(m.Include),
		"fillValues": node{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS},
	}
}

// selectorTree is what vector and matrix selectors have in common.
func selectorTree(e *parser.VectorSelector) node {
	matchers := make([]node, 0, len(e.LabelMatchers))
	for _, m := range e.LabelMatchers {
		matchers = append(matchers, matcherTree(m))
	}
	return node{
		"name": e.Name, "matchers": matchers,
		"offset": milliseconds(e.OriginalOffset), "offsetExpr": durationTree(e.OriginalOffsetExpr),
		"timestamp": e.Timestamp, "startOrEnd": startOrEnd(e.StartOrEnd),
		"anchored": e.Anchored, "smoothed": e.Smoothed,
	}
}

func matcherTree(m *labels.Matcher) node {
	return node{"name": m.Name, "value": m.Value, "type": m.Type.String()}
}

func matrixTree(e *parser.MatrixSelector) node {
	n := selectorTree(e.VectorSelector.(*parser.VectorSelector))
	n["type"] = "matrixSelector"
	n["range"], n["rangeExpr"] = milliseconds(e.Range), durationTree(e.RangeExpr)
	return n
}

func subqueryTree(e *parser.SubqueryExpr) node {
	return node{
		"type": "subquery", "expr": tree(e.Expr),
		"range": milliseconds(e.Range), "rangeExpr": durationTree(e.RangeExpr),
		"offset": milliseconds(e.OriginalOffset), "offsetExpr": durationTree(e.OriginalOffsetExpr),
		"step": milliseconds(e.Step), "stepExpr": durationTree(e.StepExpr),
		"timestamp": e.Timestamp, "startOrEnd": startOrEnd(e.StartOrEnd),
	}
}

// durationTree is tree for where durations stand: numbers there tell whether they were written as one.
func durationTree(expr parser.Expr) any {
	switch e := expr.(type) {
	case *parser.DurationExpr:
		if e == nil {
			return nil
		}
		return node{
			"type": "durationExpr", "op": e.Op.String(), "lhs": durationTree(e.LHS), "rhs": durationTree(e.RHS), "wrapped": e.Wrapped,
		}
	case *parser.NumberLiteral:
		if e == nil {
			return nil
		}
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(e.Val, 'f', -1, 64), "duration": e.Duration}
	default:
		return tree(expr)
	}
}

func milliseconds(d time.Duration) int64 { return d.Milliseconds() }

// startOrEnd names the modifier @ start() or @ end().
func startOrEnd(item parser.ItemType) any {
	if item == 0 {
		return nil
	}
	return item.String()
}

func orEmpty(texts []string) []string {
	if texts == nil {
		return []string{}
	}
	return texts
}
