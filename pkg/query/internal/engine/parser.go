package engine

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// maxCodeBytes bounds what stands outside of string literals in an expression.
// Each such byte can nest the expression one deeper; the time that the parser takes
// grows with the square of that, and all who walk the tree recurse: at 1 KiB of
// stack a level this stays far below the 1 GiB at which the runtime ends the process.
const maxCodeBytes = 32 << 10

// maxDepth bounds how deep an expression nests once it is parsed. A sum of n
// terms is n deep. Printing an expression neatly takes time with the cube of its depth: 0.2 s here.
const maxDepth = 1000

// boundedParser refuses expressions too long or too deep to be parsed in
// bounded time and memory.
type boundedParser struct {
	parser.Parser
	maxBytes int
}

func newParser(cfg Config) parser.Parser {
	return boundedParser{
		Parser: parser.NewParser(parser.Options{
			EnableExperimentalFunctions: slices.Contains(cfg.Features, featureExperimental),
			EnableBinopFillModifiers:    slices.Contains(cfg.Features, featureFillModifiers),
			EnableUnquotedUTF8Names:     slices.Contains(cfg.Features, featureUnquotedUTF8),
		}),
		maxBytes: cfg.MaxExpressionBytes,
	}
}

// ParseExpr parses an expression.
func (p boundedParser) ParseExpr(input string) (parser.Expr, error) {
	if err := p.check(input); err != nil {
		return nil, err
	}
	expr, err := p.Parser.ParseExpr(input)
	if err != nil {
		return expr, err
	}
	if d := depth(expr); d > maxDepth {
		return nil, tooDeep(d)
	}
	return expr, nil
}

// depth counts the nodes on the longest way down.
func depth(n parser.Node) int {
	deepest := 0
	for c := range parser.ChildrenIter(n) {
		deepest = max(deepest, depth(c))
	}
	return deepest + 1
}

// ParseMetricSelector parses a series selector.
func (p boundedParser) ParseMetricSelector(input string) ([]*labels.Matcher, error) {
	if err := p.check(input); err != nil {
		return nil, err
	}
	return p.Parser.ParseMetricSelector(input)
}

// ParseMetricSelectors parses several series selectors.
func (p boundedParser) ParseMetricSelectors(inputs []string) ([][]*labels.Matcher, error) {
	for _, input := range inputs {
		if err := p.check(input); err != nil {
			return nil, err
		}
	}
	return p.Parser.ParseMetricSelectors(inputs)
}

func (p boundedParser) check(input string) error {
	if len(input) > p.maxBytes {
		return fmt.Errorf("expression of %d bytes, limit %d (--query.max-expression-bytes)", len(input), p.maxBytes)
	}
	code, nesting := scan(input)
	if code > maxCodeBytes {
		return fmt.Errorf("expression of %d bytes outside of strings, limit %d; split it into several queries", code, maxCodeBytes)
	}
	if nesting > maxDepth {
		return tooDeep(nesting)
	}
	return nil
}

func tooDeep(n int) error {
	return fmt.Errorf("expression nests %d deep, limit %d; split it into several queries", n, maxDepth)
}

// scan counts the bytes outside of string literals, and how deep brackets and
// signs in a row nest at most, which is the part of the depth that can be known
// before parsing. An unterminated literal ends with the input, which the parser then refuses.
func scan(input string) (code, nesting int) {
	var (
		quote          byte // of the literal that i is in; 0: none
		brackets, sign int
	)
	for i := 0; i < len(input); i++ {
		c := input[i]
		if quote != 0 {
			switch {
			case c == quote:
				quote = 0
			case c == '\\' && quote != '`':
				i++
			}
			continue
		}
		code++
		switch c {
		case '"', '\'', '`':
			quote = c
		case '(', '[', '{':
			brackets++
		case ')', ']', '}':
			brackets--
		}
		switch c {
		case '+', '-':
			sign++
		case ' ', '\t', '\n', '\r':
		default:
			sign = 0
		}
		nesting = max(nesting, brackets+sign)
	}
	return code, nesting
}
