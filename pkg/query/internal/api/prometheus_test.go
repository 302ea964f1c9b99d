package api

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	promroute "github.com/prometheus/common/route"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/query/internal/engine"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

const testData = `
load 30s
  up{job="api",instance="a:1"} 1x40
  up{job="db",instance="b:2"} 1x20 0x20
  requests_total{job="api",instance="a:1",code="200"} 0+10x40
  requests_total{job="api",instance="a:1",code="500"} 0+1x40
  requests_total{job="db",instance="b:2",code="200"} 0+3x20 0+3x20
  special{kind="nan"} NaN 1 NaN 1 NaN 1 NaN 1 NaN 1 NaN 1 NaN 1 NaN 1 NaN 1 NaN 1 NaN
  special{kind="inf"} Inf -Inf Inf -Inf 1e300 -1e-300 0.000000123 123456789012345678901234 -0 Inf Inf Inf Inf Inf Inf Inf Inf Inf Inf Inf Inf
  stale 1x10 stale 2x5 stale _x5
  gone 1x5
  mixed 1x10 {{schema:0 count:3 sum:5 buckets:[1 2]}}x10 2x10
  nh{job="api"} {{schema:1 count:10 sum:20.5 z_bucket:2 z_bucket_w:0.001 buckets:[1 2 0 3] n_buckets:[1 1] n_offset:1}}+{{schema:1 count:3 sum:5 buckets:[1 2]}}x40
  nh{job="db"} {{schema:-1 count:6 sum:20.5 offset:2 buckets:[1 2 3]}}x40
  fh {{schema:0 count:3.5 sum:NaN buckets:[1.25 2.25]}}x40
  {"label with spaces"="a<b>\"c\\", __name__="odd", "with-dash"="é&ü"} 1x40
  target_info{job="api",instance="a:1",version="v1"} 1x40

load_with_nhcb 30s
  hist_bucket{le="0.1"} 0+1x40
  hist_bucket{le="1"} 0+4x40
  hist_bucket{le="+Inf"} 0+5x40
  hist_count 0+5x40
  hist_sum 0+7.5x40
`

// dataOf makes a Factory of a Queryable and remembers the options last asked for.
type dataOf struct {
	data storage.Queryable
	opts querier.Options
}

func (d *dataOf) Queryable(opts querier.Options) storage.Queryable {
	d.opts = opts
	return d.data
}

// exemplarsOf lists exemplars of a storage as an endpoint would.
type exemplarsOf struct {
	data   storage.ExemplarQueryable
	parser parser.Parser
}

func (e exemplarsOf) Exemplars(ctx context.Context, query string, start, end int64, _ bool) ([]storeapi.ExemplarSeries, []string, error) {
	expr, err := e.parser.ParseExpr(query)
	if err != nil {
		return nil, nil, err
	}
	q, err := e.data.ExemplarQuerier(ctx)
	if err != nil {
		return nil, nil, err
	}
	found, err := q.Select(start, end, parser.ExtractSelectors(expr)...)
	var out []storeapi.ExemplarSeries
	for _, f := range found {
		out = append(out, storeapi.ExemplarSeries{SeriesLabels: f.SeriesLabels, Exemplars: f.Exemplars})
	}
	return out, nil, err
}

func loadTestData(t testing.TB) *teststorage.TestStorage {
	t.Helper()
	db := promqltest.LoadedStorage(t, testData)
	app := db.AppenderV2(context.Background())
	series := labels.FromStrings("__name__", "requests_total", "job", "api", "instance", "a:1", "code", "200")
	_, err := app.Append(0, series, 0, 1_200_000, 400, nil, nil, storage.AOptions{Exemplars: []exemplar.Exemplar{
		{Labels: labels.FromStrings("trace_id", "a<b>&c"), Value: 1.5, Ts: 60_123, HasTs: true},
		{Labels: labels.FromStrings("trace_id", "two"), Value: 2, Ts: 120_000, HasTs: true},
	}})
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	return db
}

func defaultConfig() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	return c
}

func newEngine(t testing.TB, edit func(*engine.Config)) *engine.Prometheus {
	t.Helper()
	var c engine.Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	if edit != nil {
		edit(&c)
	}
	e, err := engine.New(c, promslog.NewNopLogger(), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

var testNow = time.Unix(1200, 0)

// newTestAPI puts an API on a storage; edit may change what it is made of.
func newTestAPI(t testing.TB, db storage.Queryable, edit func(*Config, *Parts)) *API {
	t.Helper()
	cfg := defaultConfig()
	e := newEngine(t, nil)
	parts := Parts{Engine: e, Data: &dataOf{data: db}}
	if eq, ok := db.(storage.ExemplarQueryable); ok {
		parts.Exemplars = exemplarsOf{eq, e.Parser()}
	}
	if edit != nil {
		edit(&cfg, &parts)
	}
	require.NoError(t, cfg.Validate())
	a := New(cfg, parts, promslog.NewNopLogger(), prometheus.NewRegistry())
	a.now = func() time.Time { return testNow }
	return a
}

// newReference puts Prometheus' own handler on the same storage.
func newReference(t testing.TB, db *teststorage.TestStorage, p parser.Parser) http.Handler {
	t.Helper()
	ng := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: 2 * time.Minute, LookbackDelta: 5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true, EnableNegativeOffset: true, EnablePerStepStats: true, Parser: p,
	})
	api := v1.NewAPI(ng, db, nil, db, nil, nil, nil,
		func() promconfig.Config { return promconfig.Config{} }, nil, v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		nil, "", false, false, 0, promslog.NewNopLogger(), nil,
		5e7, 10, 1<<20, false, regexp.MustCompile("^(?:.*)$"), nil, nil, nil, nil, nil, nil, nil,
		false, nil, false, false, false, 5*time.Minute, false, false, nil, nil, v1.OpenAPIOptions{}, p, false, 0)
	router := promroute.New().WithPrefix("/api/v1")
	api.Register(router)
	return router
}

// testRequest is a line of testdata/requests.
type testRequest struct {
	line, method, path string
	form               url.Values
}

func readRequests(t testing.TB) []testRequest {
	t.Helper()
	b, err := os.ReadFile("testdata/requests")
	require.NoError(t, err)
	var out []testRequest
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		req := testRequest{line: line, form: url.Values{}}
		method, rest, _ := strings.Cut(line, " ")
		path, params, _ := strings.Cut(rest, " ")
		req.method, req.path = method, path
		for p := range strings.SplitSeq(params, " && ") {
			name, value, ok := strings.Cut(p, "=")
			if !ok {
				continue
			}
			value = strings.NewReplacer("%2B", "+", "%3A", ":").Replace(value)
			req.form.Add(name, value)
		}
		out = append(out, req)
	}
	return out
}

func (r testRequest) send(h http.Handler) *httptest.ResponseRecorder {
	target := "/api/v1/" + r.path
	var req *http.Request
	if r.method == http.MethodPost {
		req = httptest.NewRequest(r.method, target, strings.NewReader(r.form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		req = httptest.NewRequest(r.method, target+"?"+r.form.Encode(), nil)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// TestLikePrometheus sends each request of testdata/requests to Prometheus'
// handler and to ours. Bodies are equal byte for byte; where Prometheus itself
// is free in its order (warnings, keys) or measures time, as JSON.
func TestLikePrometheus(t *testing.T) {
	db := loadTestData(t)
	ours := newTestAPI(t, db, nil)
	theirs := newReference(t, db, ours.parser)
	seen := map[int]int{}
	for _, req := range readRequests(t) {
		if req.path == "query" && !req.form.Has("time") {
			req.form.Set("time", "1200") // the clocks differ
		}
		t.Run(req.line, func(t *testing.T) {
			want, got := req.send(theirs), req.send(ours)
			seen[want.Code]++
			require.Equal(t, want.Code, got.Code, "%s\n%s", want.Body, got.Body)
			require.Equal(t, want.Header().Get("Content-Type"), got.Header().Get("Content-Type"))
			if want.Body.String() == got.Body.String() {
				return
			}
			w, g := normal(t, want.Body.Bytes()), normal(t, got.Body.Bytes())
			free := w["warnings"] != nil || w["infos"] != nil || req.form.Has("stats") || req.path == "parse_query"
			require.Equal(t, w, g)
			require.True(t, free, "same JSON, other bytes:\n%s\n%s", want.Body, got.Body)
		})
	}
	require.Greater(t, seen[200], 100)
	require.Greater(t, seen[400], 50)
	require.Greater(t, seen[422], 2)
	require.Equal(t, 1, seen[204])
}

// normal decodes an answer, sorts its notes and leaves out what a clock says.
func normal(t testing.TB, body []byte) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal(body, &v), "%s", body)
	for _, key := range []string{"warnings", "infos"} {
		if list, ok := v[key].([]any); ok {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	}
	if data, ok := v["data"].(map[string]any); ok {
		if stats, ok := data["stats"].(map[string]any); ok {
			require.Contains(t, stats, "timings")
			delete(stats, "timings")
		}
	}
	return v
}
