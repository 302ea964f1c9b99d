package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
)

func TestMain(m *testing.M) {
	proctest.Main(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

func defaultConfig() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	return c
}

func newTestEngine(t testing.TB, edit func(*Config)) *Prometheus {
	t.Helper()
	cfg := defaultConfig()
	if edit != nil {
		edit(&cfg)
	}
	require.NoError(t, cfg.Validate())
	e, err := New(cfg, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// brokenStore fails every selection with err, or blocks until its context ends when err is nil.
type brokenStore struct {
	storage.LabelQuerier
	err     error
	entered chan struct{} // told of each selection; nil: nobody is
}

func (b *brokenStore) Querier(int64, int64) (storage.Querier, error) { return b, nil }
func (b *brokenStore) Close() error                                  { return nil }

func (b *brokenStore) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	if b.entered != nil {
		b.entered <- struct{}{}
	}
	if b.err == nil {
		<-ctx.Done()
		return storage.ErrSeriesSet(ctx.Err())
	}
	return storage.ErrSeriesSet(b.err)
}

func TestErrorKinds(t *testing.T) {
	e := newTestEngine(t, nil)
	at := time.Unix(0, 0)
	for _, tc := range []struct {
		name string
		req  Request
		err  error
		kind Kind
		text string
	}{
		{"syntax", Request{Expr: "sum(", Start: at}, nil, BadQuery, "1:5: parse error"},
		{"range of string", Request{Expr: `"a"`, Start: at, End: at, Step: 1}, nil, BadQuery, "invalid expression type"},
		{"limit of a store", Request{Expr: "up", Start: at}, fmt.Errorf("store a: %w: --store.limits.request-series", storeapi.ErrLimit), Execution, "store a"},
		{"partial refused", Request{Expr: "up", Start: at}, fmt.Errorf("store a: %w", storeapi.ErrPartial), Execution, "store a"},
		{"unavailable", Request{Expr: "up", Start: at}, fmt.Errorf("store a: %w", storeapi.ErrUnavailable), Unavailable, "store a"},
		{"corrupt", Request{Expr: "up", Start: at}, fmt.Errorf("block b: %w", storeapi.ErrCorrupt), Internal, "block b"},
		{"refused by a store", Request{Expr: "up", Start: at}, fmt.Errorf("store a: %w", storeapi.ErrBadRequest), BadRequest, "store a"},
		{"unknown", Request{Expr: "up", Start: at}, errors.New("boom"), Execution, "boom"},
		{"timeout of the request", Request{Expr: "up", Start: at, Timeout: time.Millisecond}, nil, Timeout, "limit 1ms (parameter timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := e.Exec(context.Background(), &brokenStore{err: tc.err}, tc.req)
			var kind *Error
			require.ErrorAs(t, err, &kind)
			require.Equal(t, tc.kind, kind.Kind, "%v", err)
			require.ErrorContains(t, err, tc.text)
			if tc.err != nil {
				require.ErrorIs(t, err, tc.err)
			}
		})
	}
}

// RELIABILITY Q6: a query that needs too much fails alone and names the limit; the next one answers.
func TestLimitsNameTheirFlag(t *testing.T) {
	db := promqltest.LoadedStorage(t, "load 1s\n  m{i=\"a\"} 0+1x1000\n  m{i=\"b\"} 0+1x1000\n")
	e := newTestEngine(t, func(c *Config) { c.MaxSamples = 500 })

	_, err := e.Exec(context.Background(), db, Request{Expr: "m", Start: time.Unix(0, 0), End: time.Unix(1000, 0), Step: time.Second})
	var kind *Error
	require.ErrorAs(t, err, &kind)
	require.Equal(t, Execution, kind.Kind)
	require.ErrorContains(t, err, "limit 500 samples at once (--query.max-samples)")

	res, err := e.Exec(context.Background(), db, Request{Expr: "count(m)", Start: time.Unix(10, 0)})
	require.NoError(t, err)
	require.Equal(t, 2.0, res.Value.(promql.Vector)[0].F)
	res.Close()

	slow := newTestEngine(t, func(c *Config) { c.Timeout = model.Duration(20 * time.Millisecond) })
	_, err = slow.Exec(context.Background(), &brokenStore{}, Request{Expr: "m", Start: time.Unix(0, 0)})
	require.ErrorAs(t, err, &kind)
	require.Equal(t, Timeout, kind.Kind)
	require.ErrorContains(t, err, "limit 20ms (--query.timeout)")
}

// RELIABILITY Q6, Q7: with all slots taken queries wait in bounded time; who leaves frees its slot at once.
func TestSlots(t *testing.T) {
	e := newTestEngine(t, func(c *Config) { c.MaxConcurrent, c.MaxQueued, c.ActiveQueryPath = 1, 1, t.TempDir() })
	busy := &brokenStore{entered: make(chan struct{}, 1)}
	ctx, leave := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		_, err := e.Exec(ctx, busy, Request{Expr: "m", Start: time.Unix(0, 0)})
		done <- err
	}()
	<-busy.entered
	require.Equal(t, 1.0, testutil.ToFloat64(e.metrics.running))

	var kind *Error
	_, err := e.Exec(context.Background(), busy, Request{Expr: "m", Start: time.Unix(0, 0), Timeout: 10 * time.Millisecond})
	require.ErrorAs(t, err, &kind)
	require.Equal(t, Timeout, kind.Kind)
	require.ErrorContains(t, err, "query timed out in query queue")

	queued := make(chan error)
	go func() {
		_, err := e.Exec(ctx, busy, Request{Expr: "m", Start: time.Unix(0, 0)})
		queued <- err
	}()
	require.Eventually(t, func() bool { return e.slots.waiting.Load() == 1 }, 2*time.Minute, time.Millisecond)
	_, err = e.Exec(context.Background(), busy, Request{Expr: "m", Start: time.Unix(0, 0)})
	require.ErrorAs(t, err, &kind)
	require.Equal(t, Unavailable, kind.Kind)
	require.ErrorContains(t, err, "--query.max-queued")

	gone, leaveToo := context.WithCancel(context.Background())
	leaveToo()

	leave()
	require.ErrorAs(t, <-done, &kind)
	require.Equal(t, Canceled, kind.Kind)
	require.ErrorAs(t, <-queued, &kind)
	require.Equal(t, Canceled, kind.Kind)
	_, err = e.Exec(gone, busy, Request{Expr: "m", Start: time.Unix(0, 0)})
	require.ErrorAs(t, err, &kind)
	require.Equal(t, Canceled, kind.Kind)
	require.Equal(t, 0.0, testutil.ToFloat64(e.metrics.running))
	require.Zero(t, e.slots.waiting.Load())
}

// RELIABILITY Q9: huge and deep expressions are refused or parsed, and not for ever.
func TestHugeExpressions(t *testing.T) {
	e := newTestEngine(t, nil)
	alternatives := make([]string, 100_000)
	for i := range alternatives {
		alternatives[i] = fmt.Sprintf("pod-%05d", i)
	}
	const deep = maxDepth - 1
	for name, tc := range map[string]struct {
		expr string
		ok   bool
	}{
		"1 MiB regex":               {`m{a=~"` + strings.Repeat("a?", 1<<19-10) + `"}`, true},
		"1 MiB of dots and stars":   {`m{a=~"` + strings.Repeat(".*x", 349_000) + `"}`, true},
		"100,000 alternatives":      {`m{a=~"` + strings.Join(alternatives, "|") + `"}`, true},
		"nested repeats":            {`m{a=~"((((a{100}){100}){100}){100})"}`, false},
		"4 MiB":                     {`m{a=~"` + strings.Repeat("a", 4<<20) + `"}`, false},
		"parentheses, deepest":      {strings.Repeat("(", deep) + "1" + strings.Repeat(")", deep), true},
		"parentheses, too deep":     {strings.Repeat("(", maxDepth) + "1" + strings.Repeat(")", maxDepth), false},
		"parentheses, too many":     {strings.Repeat("(", 1<<20) + "1", false},
		"signs, deepest":            {strings.Repeat("-", deep) + "m", true},
		"signs, too many":           {strings.Repeat("-", maxCodeBytes-1) + "m", false},
		"sums, deepest":             {"1" + strings.Repeat("+1", deep), true},
		"sums, many":                {"1" + strings.Repeat("+1", maxCodeBytes/2-1), false},
		"sums, too deep":            {"1" + strings.Repeat("+1", 1<<19), false},
		"functions, too deep":       {strings.Repeat("abs(", 1<<18) + "m", false},
		"a quote that never closes": {`m{a="` + strings.Repeat("(", 1<<20), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := e.Exec(context.Background(), storage.QueryableFunc(func(int64, int64) (storage.Querier, error) {
				return storage.NoopQuerier(), nil
			}), Request{Expr: tc.expr, Start: time.Unix(0, 0)})
			if tc.ok {
				require.NoError(t, err)
				return
			}
			var kind *Error
			require.ErrorAs(t, err, &kind)
			require.Equal(t, BadQuery, kind.Kind)
			require.Less(t, len(err.Error()), 5<<20)
		})
	}
}

func TestScan(t *testing.T) {
	for in, want := range map[string][2]int{
		``: {0, 0}, `abc`: {3, 0}, `a{b="cd"}`: {6, 1}, `'a\'b'+1`: {3, 1}, "`a\\`+1": {3, 1}, `"a`: {1, 0}, `"a\`: {1, 0},
		`f(g(x)[5m])`: {11, 2}, `- -+ (-1)`: {9, 3}, `1+1+1`: {5, 1},
	} {
		code, nesting := scan(in)
		require.Equal(t, want, [2]int{code, nesting}, in)
	}
}

func TestLookback(t *testing.T) {
	for _, tc := range [][3]time.Duration{ // configured, coarsest resolution, wanted
		{5 * time.Minute, 0, 5 * time.Minute},
		{5 * time.Minute, 5 * time.Minute, 5 * time.Minute},
		{5 * time.Minute, 6 * time.Minute, time.Hour},
		{5 * time.Minute, time.Hour, time.Hour},
		{5 * time.Minute, 2 * time.Hour, time.Hour},
		{time.Minute, 30 * time.Second, time.Minute},
		{time.Minute, 2 * time.Minute, 5 * time.Minute},
		{2 * time.Hour, time.Hour, 2 * time.Hour},
	} {
		require.Equal(t, tc[2], lookbackFor(tc[0], tc[1]), "%v", tc)
	}
	e := newTestEngine(t, nil)
	require.Equal(t, time.Hour, e.lookback(Request{MaxResolution: time.Hour}))
	require.Equal(t, time.Second, e.lookback(Request{MaxResolution: time.Hour, Lookback: time.Second}))
	e = newTestEngine(t, func(c *Config) { c.DynamicLookback = false })
	require.Zero(t, e.lookback(Request{MaxResolution: time.Hour}))
}

func TestConfig(t *testing.T) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	var c Config
	c.RegisterFlags(fs)
	require.NoError(t, fs.Parse([]string{"-enable-feature=promql-experimental-functions,promql-at-modifier", "-enable-feature", "promql-delayed-name-removal", "-query.timeout=1h"}))
	require.NoError(t, c.Validate())
	require.Len(t, c.Features, 3)
	require.Equal(t, model.Duration(time.Hour), c.Timeout)

	bad := Config{MaxQueued: -1, Engine: "volcano", Mode: "remote", XFunctions: true, Features: []string{"warp"}}
	err := bad.Validate()
	for _, name := range []string{
		"query.timeout", "query.max-concurrent", "query.max-queued", "query.max-samples", "query.max-expression-bytes", "query.lookback-delta",
		"query.default-evaluation-interval", "query.promql-engine", "query.mode", "query.enable-x-functions", "enable-feature",
	} {
		require.ErrorContains(t, err, "--"+name+": ")
	}
}
