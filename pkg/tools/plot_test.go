package tools_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/tools"
)

func TestPlot(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	up := tools.Line{Name: "up", Times: []time.Time{at(0), at(10), at(20), at(30)}, Values: []float64{0, 1, math.NaN(), 3}}
	flat := tools.Line{Name: "flat", Times: []time.Time{at(0), at(30)}, Values: []float64{2, 2}}
	const want = `         3 |                                                           *
           |+                                                          +
           |                    *
         0 |*
           +------------------------------------------------------------
            1970-01-01 00:00:00                      1970-01-01 00:00:30
            * up
            + flat
`
	require.Equal(t, want, tools.Plot([]tools.Line{up, flat}, 60, 4))
	require.Equal(t, "no samples\n", tools.Plot(nil, 60, 4))
	require.Equal(t, "no samples\n", tools.Plot([]tools.Line{{Times: []time.Time{at(0)}, Values: []float64{math.NaN()}}}, 60, 4))
	one := tools.Plot([]tools.Line{{Times: []time.Time{at(0)}, Values: []float64{5}}}, 20, 2)
	require.Contains(t, one, "|*\n")
}
