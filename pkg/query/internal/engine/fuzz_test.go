package engine

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

// FuzzExpression: what parses prints as something that parses and prints the
// same again, and nothing is deeper than allowed. The seeds are the expressions of promqltest.
// RELIABILITY section 5, Q9.
func FuzzExpression(f *testing.F) {
	exprs, err := promqltest.GetBuiltInExprs()
	require.NoError(f, err)
	slices.Sort(exprs)
	for _, e := range slices.Compact(exprs) {
		f.Add(e)
	}
	f.Add("((((((1))))))")
	f.Add("-(-(-1))")
	f.Add(`{"a\"b"=~'c',__name__="x"}`)
	cfg := defaultConfig()
	cfg.Features = []string{featureExperimental, featureFillModifiers, featureUnquotedUTF8}
	p := newParser(cfg)
	f.Fuzz(func(t *testing.T, input string) {
		expr, err := p.ParseExpr(input)
		if err != nil {
			return
		}
		require.LessOrEqual(t, depth(expr), maxDepth)
		printed := expr.String()
		again, err := p.ParseExpr(printed)
		require.NoError(t, err, "%q was printed as %q", input, printed)
		require.Equal(t, printed, again.String())
	})
}
