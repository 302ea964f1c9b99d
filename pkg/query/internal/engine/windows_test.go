package engine

import (
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// windowsBegin is a full hour.
const windowsBegin = 472_222 * downsample.Resolution1h

// randomSamples are n samples with gaps, in multiples of 1/8.
func randomSamples(rnd *rand.Rand, n int, histograms bool) (out []storetest.Sample) {
	t := windowsBegin + rnd.Int63n(100_000)
	for range n {
		s := storetest.Sample{T: t, V: float64(rnd.Intn(8000)) / 8}
		if histograms {
			zeros := float64(rnd.Intn(50))
			s.FH = &histogram.FloatHistogram{Count: zeros, ZeroCount: zeros, Sum: s.V, CounterResetHint: histogram.GaugeType}
		}
		out = append(out, s)
		t += 15_000
		if rnd.Intn(50) == 0 {
			t += rnd.Int63n(2 * downsample.Resolution1h)
		}
	}
	return out
}

// tiered returns the samples as chunks: those before the first time in 1h
// windows, those before the second in 5m windows, the others raw.
func tiered(tb testing.TB, samples []storetest.Sample, hours, minutes int64) (out []storeapi.Chunk) {
	tb.Helper()
	before := func(t int64) (part []storetest.Sample) {
		n, _ := slices.BinarySearchFunc(samples, t, func(s storetest.Sample, t int64) int { return int(s.T - t) })
		part, samples = samples[:n], samples[n:]
		return part
	}
	for _, tier := range []struct{ until, resolution int64 }{{hours, downsample.Resolution1h}, {minutes, downsample.Resolution5m}} {
		d := downsample.NewDownsampler(tier.resolution)
		for _, s := range before(tier.until) {
			if s.FH != nil {
				require.NoError(tb, d.Histogram(s.T, s.FH))
			} else {
				require.NoError(tb, d.Floats([]int64{s.T}, []float64{s.V}))
			}
		}
		chunks, err := d.Finish(tier.resolution)
		require.NoError(tb, err)
		for _, e := range chunks {
			c, err := downsample.Decode(e.Payload)
			require.NoError(tb, err)
			sub := func(t downsample.Type) storeapi.Data {
				return storeapi.Data{Encoding: c[t].Encoding, Bytes: slices.Clone(c[t].Bytes)}
			}
			out = append(out, storeapi.Chunk{MinTime: e.MinTime, MaxTime: e.MaxTime, Aggr: &storeapi.Aggregates{
				Count: sub(downsample.Count), Sum: sub(downsample.Sum), Min: sub(downsample.Min), Max: sub(downsample.Max), Counter: sub(downsample.Counter),
			}})
		}
	}
	return append(out, storetest.Chunks(tb, samples, false, 120)...)
}

func queryableOf(series []storeapi.Series, max time.Duration) storage.Queryable {
	var cfg querier.Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	cfg.DedupFunc = string(dedup.Firnline)
	fake := storetest.NewFake(series, storeapi.Info{Maxt: 1 << 62, Services: storeapi.ServiceSet{Store: true}})
	return querier.New(cfg, func([][]*labels.Matcher) storeapi.Store { return fake }, prometheus.NewRegistry()).Queryable(querier.Options{MaxResolution: max})
}

// TestMixedResolutionsAnswerAsRaw: over ranges of whole windows, functions of
// samples answer as over the raw ones, whatever parts are downsampled. RELIABILITY C10
func TestMixedResolutionsAnswerAsRaw(t *testing.T) {
	e := newTestEngine(t, nil)
	for seed := range int64(15) {
		rnd := rand.New(rand.NewSource(seed))
		var raw, mixed []storeapi.Series
		for i := range 3 {
			lset := labels.FromStrings("__name__", "x", "i", fmt.Sprint(i))
			samples := randomSamples(rnd, 4000, i == 2)
			raw = append(raw, storeapi.Series{Labels: lset, Chunks: storetest.Chunks(t, samples, false, 120)})
			hours := windowsBegin + rnd.Int63n(12)*downsample.Resolution1h
			minutes := hours + rnd.Int63n(6)*downsample.Resolution1h
			mixed = append(mixed, storeapi.Series{Labels: lset, Chunks: tiered(t, samples, hours, minutes)})
		}
		for _, expr := range []string{
			`count_over_time(x[2h])`, `sum_over_time(x[1h])`, `avg_over_time(x[3h])`, `min_over_time(x{i!="2"}[2h])`, `max_over_time(x{i!="2"}[1h])`,
			`sum by (i) (count_over_time((x[1h] offset 1h)))`, `avg_over_time(x[1h]) / -avg_over_time(x[2h])`, `count(x)`, `count_over_time(x[1h:1h])`,
			`max_over_time(count_over_time(x[1h])[3h:1h])`, `avg_over_time(x[1h] @ end())`, `topk(1, avg_over_time(x{i="1"}[1h]))`,
		} {
			req := Request{
				Expr: expr, Start: time.UnixMilli(windowsBegin + 4*downsample.Resolution1h - 1), Step: time.Hour,
				End: time.UnixMilli(windowsBegin + 20*downsample.Resolution1h - 1), Lookback: time.Hour,
			}
			want, err := e.Exec(t.Context(), queryableOf(raw, 0), req)
			require.NoError(t, err)
			req.MaxResolution = time.Hour
			got, err := e.Exec(t.Context(), queryableOf(mixed, time.Hour), req)
			require.NoError(t, err)
			require.NotEmpty(t, want.Value.(promql.Matrix))
			require.Equal(t, want.Value.String(), got.Value.String(), "seed %d: %s", seed, expr)
			want.Close()
			got.Close()
		}
	}
}

// TestWindowsOfSubqueriesAreSteps: the tree is only changed where samples are
// counted, and errors are those of the expression as it was given.
func TestWindowsOfSubqueriesAreSteps(t *testing.T) {
	p := windowParser{Parser: newParser(defaultConfig())}
	for in, want := range map[string]string{
		`count_over_time(x[5m])`:                          `sum_over_time(x{__firnline_counts__="1"}[5m])`,
		`avg_over_time((x{a="b"}[5m] offset 1m))`:         `(sum_over_time(x{a="b"}[5m] offset 1m) / sum_over_time(x{__firnline_counts__="1",a="b"}[5m] offset 1m))`,
		`count_over_time(x[1h:5m])`:                       `count_over_time(x[1h:5m])`,
		`rate(count_over_time(x[5m])[1h:])`:               `rate(sum_over_time(x{__firnline_counts__="1"}[5m])[1h:])`,
		`topk(scalar(avg_over_time(x[5m])), -x)`:          `topk(scalar((sum_over_time(x[5m]) / sum_over_time(x{__firnline_counts__="1"}[5m]))), -x)`,
		`sum_over_time(x[5m]) + present_over_time(x[5m])`: `sum_over_time(x[5m]) + present_over_time(x[5m])`,
	} {
		got, err := p.ParseExpr(in + overWindows)
		require.NoError(t, err, in)
		require.Equal(t, want, got.String())
		same, err := p.ParseExpr(in)
		require.NoError(t, err)
		require.NotContains(t, same.String(), countsLabel)
	}
	delayed := windowParser{Parser: p.Parser, delayedNames: true}
	got, err := delayed.ParseExpr(`avg_over_time({__name__=~"a|b"}[5m])` + overWindows)
	require.NoError(t, err)
	require.Equal(t, `avg_over_time({__name__=~"a|b"}[5m])`, got.String())

	e := newTestEngine(t, nil)
	_, err = e.Exec(t.Context(), queryableOf(nil, time.Hour), Request{Expr: `count_over_time(x[5m]`, Start: time.Unix(0, 0), MaxResolution: time.Hour})
	require.EqualError(t, err, `1:22: parse error: unclosed left parenthesis`)
}
