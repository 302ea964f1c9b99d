package downsample

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// TestAsThanos makes of the series in testdata/thanos what Thanos made of them:
// both tiers, the coarser also by way of 5m chunks. Another tool wrote the
// results; don't rewrite them. RELIABILITY C9
func TestAsThanos(t *testing.T) {
	datadriven.RunTest(t, "testdata/thanos", func(t *testing.T, d *datadriven.TestData) string {
		ds := NewDownsampler(Resolution5m, Resolution1h)
		for _, line := range strings.Split(d.Input, "\n") {
			addLine(t, ds, line)
		}
		fine, coarse := finish(t, ds, Resolution5m), finish(t, ds, Resolution1h)
		require.Equal(t, coarse, aggregated(t, fine))
		var out strings.Builder
		for _, e := range fine {
			out.WriteString(printed(t, "5m", e, !d.HasArg("without-counter")))
		}
		for _, e := range coarse {
			out.WriteString(printed(t, "1h", e, !d.HasArg("without-counter")))
		}
		return out.String()
	})
}

// TestOfThanos makes the 1h tier of chunks that Thanos made. RELIABILITY C9
func TestOfThanos(t *testing.T) {
	datadriven.RunTest(t, "testdata/thanos_chunks", func(t *testing.T, d *datadriven.TestData) string {
		ds := NewDownsampler(Resolution1h)
		for _, line := range strings.Split(d.Input, "\n") {
			payload, err := hex.DecodeString(line)
			require.NoError(t, err)
			c, err := Decode(payload)
			require.NoError(t, err)
			require.NoError(t, ds.Aggregate(c))
		}
		var out strings.Builder
		for _, e := range finish(t, ds, Resolution1h) {
			out.WriteString(printed(t, "1h", e, !d.HasArg("without-counter")))
		}
		return out.String()
	})
}

// addLine adds a sample: "<ms> <float, stale or histogram>".
func addLine(t *testing.T, d *Downsampler, line string) {
	t.Helper()
	at, v, _ := strings.Cut(line, " ")
	ts, err := strconv.ParseInt(at, 10, 64)
	require.NoError(t, err)
	if strings.HasPrefix(v, "{{") {
		_, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc("x " + v)
		require.NoError(t, err)
		require.NoError(t, d.Histogram(ts, values[0].Histogram))
		return
	}
	f := math.Float64frombits(value.StaleNaN)
	if v != "stale" {
		f, err = strconv.ParseFloat(v, 64)
		require.NoError(t, err)
	}
	require.NoError(t, d.Floats([]int64{ts}, []float64{f}))
}

// printed prints a chunk, a line a window.
func printed(t *testing.T, resolution string, e Encoded, counter bool) string {
	t.Helper()
	var out strings.Builder
	if !e.Histograms {
		c := decodeFloats(t, e)
		fmt.Fprintf(&out, "%s first %d %v\n", resolution, c.firstT, c.first)
		for i, ts := range c.t {
			fmt.Fprintf(&out, "%s %d count=%v sum=%v min=%v max=%v counter=%v\n", resolution, ts, c.count[i], c.sum[i], c.min[i], c.max[i], c.counter[i])
		}
		fmt.Fprintf(&out, "%s last %v\n", resolution, c.last)
		return out.String()
	}
	sub, err := Decode(e.Payload)
	require.NoError(t, err)
	c, err := decodeHists(sub)
	require.NoError(t, err)
	for _, h := range slices.Concat(c.sum, c.counter) {
		if h.Compact(0); h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
	}
	for i, ts := range c.t {
		fmt.Fprintf(&out, "%s %d count=%v sum=%s", resolution, ts, c.count[i], c.sum[i].TestExpression())
		if counter {
			fmt.Fprintf(&out, " counter=%s", c.counter[i].TestExpression())
		}
		out.WriteByte('\n')
	}
	return out.String()
}
