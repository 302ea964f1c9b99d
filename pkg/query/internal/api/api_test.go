package api

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/query/internal/engine"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

func TestMain(m *testing.M) {
	proctest.Main(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// get sends a GET with headers given as name, value, …
func get(h http.Handler, target string, headers ...string) *httptest.ResponseRecorder {
	return do(h, httptest.NewRequest(http.MethodGet, target, nil), headers...)
}

func post(h http.Handler, target string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(h, r, headers...)
}

func do(h http.Handler, r *http.Request, headers ...string) *httptest.ResponseRecorder {
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// store answers each request for series and labels with err, warnings, or by blocking until it is cancelled.
type store struct {
	storage.Querier
	err     error
	warn    []string
	blocked chan struct{} // closed when a selection has begun to block; nil: it doesn't
}

func (s *store) source() storage.Queryable {
	return storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return s, nil })
}

func (s *store) Close() error { return nil }

func (s *store) notes() annotations.Annotations {
	n := annotations.New()
	for _, w := range s.warn {
		n.Add(errors.New(w))
	}
	return *n
}

func (s *store) Select(ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher) storage.SeriesSet {
	if s.blocked != nil {
		close(s.blocked)
		<-ctx.Done()
		return storage.ErrSeriesSet(ctx.Err())
	}
	if s.err != nil {
		return storage.ErrSeriesSet(s.err)
	}
	return warned{storage.EmptySeriesSet(), s.notes()}
}

func (s *store) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return []string{"a"}, s.notes(), s.err
}

func (s *store) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return []string{"a"}, s.notes(), s.err
}

type warned struct {
	storage.SeriesSet
	notes annotations.Annotations
}

func (w warned) Warnings() annotations.Annotations { return w.notes }

// TestReplicaLabelsAreListed: label lookups see what selectors may name; series are those that queries return.
func TestReplicaLabelsAreListed(t *testing.T) {
	data := &dataOf{data: (&store{}).source()}
	a := newTestAPI(t, nil, func(_ *Config, p *Parts) {
		p.Data = data
		p.ReplicaLabels = []string{"replica"}
	})
	for path, dedup := range map[string]bool{"labels": false, "label/replica/values": false, "series?match[]=up": true} {
		require.Equal(t, 200, get(a, "/api/v1/"+path).Code)
		require.Equal(t, dedup, data.opts.Dedup, path)
		require.True(t, data.opts.SkipChunks, path)
	}
}

// RELIABILITY section 6, status codes: the kind of a store's error decides, and the
// body is one readable line.
func TestStatusCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code int
		typ  string
	}{
		{fmt.Errorf("store a:1: %w", storeapi.ErrBadRequest), 400, "bad_data"},
		{fmt.Errorf("store a:1: %w", storeapi.ErrLimit), 422, "execution"},
		{fmt.Errorf("store a:1: %w", storeapi.ErrPartial), 422, "execution"},
		{fmt.Errorf("store a:1: %w", storeapi.ErrUnavailable), 503, "unavailable"},
		{fmt.Errorf("store a:1: %w", storeapi.ErrCorrupt), 500, "internal"},
		{fmt.Errorf("store a:1: %w", context.Canceled), 499, "canceled"},
		{fmt.Errorf("store a:1: %w", context.DeadlineExceeded), 503, "timeout"},
		{errors.New("store a:1: anything else"), 422, "execution"},
	} {
		a := newTestAPI(t, (&store{err: tc.err}).source(), nil)
		for _, path := range []string{
			"query?query=up", "query_range?query=up&start=0&end=60&step=60", "series?match[]=up",
			"labels", "labels?match[]=up&match[]=down", "label/job/values", "label/job/values?match[]=up&match[]=down",
		} {
			w := get(a, "/api/v1/"+path)
			require.Equal(t, tc.code, w.Code, "%s: %s", path, w.Body)
			body := normal(t, w.Body.Bytes())
			require.Equal(t, "error", body["status"])
			require.Equal(t, tc.typ, body["errorType"], path)
			require.Contains(t, body["error"], "store a:1")
			require.NotContains(t, body["error"], "\n")
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		}
	}
}

// RELIABILITY P2, Q3: what is missing is told whole, and the answer is not to be cached.
func TestWarnings(t *testing.T) {
	var warn []string
	for i := range 15 {
		warn = append(warn, fmt.Sprintf("store a:%02d did not answer", i))
	}
	a := newTestAPI(t, (&store{warn: warn}).source(), nil)
	for _, path := range []string{
		"query?query=up", "query_range?query=up&start=0&end=60&step=60", "series?match[]=up", "labels", "label/job/values",
	} {
		w := get(a, "/api/v1/"+path)
		require.Equal(t, 200, w.Code)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), path)
		var body struct{ Warnings []string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		require.Equal(t, warn, body.Warnings, path)
	}
	require.Equal(t, 5.0, testutil.ToFloat64(a.metrics.partial))

	whole := newTestAPI(t, (&store{}).source(), nil)
	require.Empty(t, get(whole, "/api/v1/labels").Header().Get("Cache-Control"))
}

// RELIABILITY Q6, Q9 and limits by the request's own size.
func TestLimitsOfRequests(t *testing.T) {
	db := loadTestData(t)
	a := newTestAPI(t, db, func(c *Config, p *Parts) {
		c.MaxRequestBytes = 4096
		p.Engine = newEngine(t, func(c *engine.Config) {
			c.MaxSamples = 50
			c.Timeout = model.Duration(time.Minute)
			c.MaxExpressionBytes = 1000
		})
	})
	w := get(a, "/api/v1/query?query=requests_total[20m]&time=1200")
	require.Equal(t, 422, w.Code)
	require.Contains(t, w.Body.String(), "--query.max-samples")

	w = get(a, "/api/v1/query?query=1%2B1")
	require.Equal(t, 200, w.Code, "a small query still answers")

	w = post(a, "/api/v1/query", url.Values{"query": {strings.Repeat("x", 5000)}})
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "--web.max-request-bytes")

	for _, path := range []string{"query?query=", "format_query?query=", "series?match[]=", "labels?match[]=", "query_exemplars?query=", "labels?storeMatch[]="} {
		w = get(a, "/api/v1/"+path+url.QueryEscape(`{a=~"`+strings.Repeat("(", 2000)+`"}`))
		require.Equal(t, 400, w.Code, path)
		require.Contains(t, w.Body.String(), "--query.max-expression-bytes", path)
	}
}

// RELIABILITY Q7: when the client leaves, the work below ends at once.
func TestClientLeaves(t *testing.T) {
	for _, path := range []string{"query?query=up", "query_range?query=up&start=0&end=60&step=60", "series?match[]=up"} {
		st := &store{blocked: make(chan struct{})}
		a := newTestAPI(t, st.source(), nil)
		ctx, leave := context.WithCancel(context.Background())
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- do(a, httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/"+path, nil)) }()
		<-st.blocked
		leave()
		w := <-done
		require.Equal(t, 499, w.Code, path)
	}
	st := &store{blocked: make(chan struct{})}
	w := get(newTestAPI(t, st.source(), nil), "/api/v1/query?query=up&timeout=10ms")
	require.Equal(t, 503, w.Code)
	require.Equal(t, "timeout", normal(t, w.Body.Bytes())["errorType"])
	require.Contains(t, w.Body.String(), "limit 10ms")
}

// TestThanosParameters: what they set of the data, and that unknown values name the allowed ones.
func TestThanosParameters(t *testing.T) {
	data := &dataOf{data: storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil })}
	a := newTestAPI(t, nil, func(_ *Config, p *Parts) {
		p.Data = data
		p.ReplicaLabels = []string{"replica"}
	})
	address := [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "__address__", "a:1")}}
	base := querier.Options{Dedup: true, ReplicaLabels: []string{"replica"}, PartialResponse: true}
	edit := func(f func(*querier.Options)) querier.Options { o := base; f(&o); return o }
	for params, want := range map[string]querier.Options{
		"":                                 base,
		"dedup=false":                      edit(func(o *querier.Options) { o.Dedup = false }),
		"partial_response=false":           edit(func(o *querier.Options) { o.PartialResponse = false }),
		"replicaLabels[]=a":                edit(func(o *querier.Options) { o.ReplicaLabels = []string{"a"} }),
		"replicaLabels=a&replicaLabels=b":  edit(func(o *querier.Options) { o.ReplicaLabels = []string{"a", "b"} }),
		"max_source_resolution=5m":         edit(func(o *querier.Options) { o.MaxResolution = 5 * time.Minute }),
		"max_source_resolution=0s":         base,
		"max_source_resolution=300":        edit(func(o *querier.Options) { o.MaxResolution = 5 * time.Minute }),
		"max_source_resolution=auto":       edit(func(o *querier.Options) { o.MaxResolution = 12 * time.Second }),
		`storeMatch[]={__address__="a:1"}`: edit(func(o *querier.Options) { o.StoreMatchers = address }),
		`shard_info={"shard_index":1,"total_shards":2,"by":true,"labels":["a"]}`: edit(func(o *querier.Options) {
			o.Shard = &storeapi.Shard{Index: 1, Total: 2, By: true, Labels: []string{"a"}}
		}),
		"engine=thanos":     base,
		"engine=prometheus": base,
		"analyze=true":      base,
	} {
		form, err := url.ParseQuery(params)
		require.NoError(t, err)
		form.Set("query", "up")
		form.Set("start", "0")
		form.Set("end", "60")
		form.Set("step", "60")
		w := post(a, "/api/v1/query_range", form)
		require.Equal(t, 200, w.Code, "%s: %s", params, w.Body)
		if len(want.StoreMatchers) > 0 {
			require.Equal(t, want.StoreMatchers[0][0].String(), data.opts.StoreMatchers[0][0].String())
			continue
		}
		require.Equal(t, want, data.opts, params)
	}
	for params, text := range map[string]string{
		"dedup=maybe":                "true nor false",
		"partial_response=2":         "true nor false",
		"analyze=x":                  "true nor false",
		"engine=volcano":             "prometheus, thanos",
		"max_source_resolution=fine": "auto, 0s, 5m, 1h",
		"max_source_resolution=-5":   "negative",
		"storeMatch[]=({":            "parse error",
		"shard_info=x":               "shard_info",
		`shard_info={"shard_index":2,"total_shards":2}`: "does not exist",
	} {
		form, err := url.ParseQuery(params)
		require.NoError(t, err)
		for _, path := range []string{"query?query=up&", "labels?", "label/a/values?", "series?match[]=up&"} {
			w := get(a, "/api/v1/"+path+form.Encode())
			require.Equal(t, 400, w.Code, "%s %s", path, params)
			require.Contains(t, w.Body.String(), text, params)
		}
	}
}

func TestDefaultsOfRanges(t *testing.T) {
	var from, to int64
	seen := storage.QueryableFunc(func(mint, maxt int64) (storage.Querier, error) {
		from, to = mint, maxt
		return storage.NoopQuerier(), nil
	})
	a := newTestAPI(t, seen, func(c *Config, _ *Parts) { c.MetadataRange = model.Duration(10 * time.Minute) })
	require.Equal(t, 200, get(a, "/api/v1/labels").Code)
	require.Equal(t, []int64{600_000, 1_200_000}, []int64{from, to})
	require.Equal(t, 200, get(a, "/api/v1/labels?start=1&end=2").Code)
	require.Equal(t, []int64{1000, 2000}, []int64{from, to})

	r := httptest.NewRequest("GET", "/", nil)
	require.NoError(t, r.ParseForm())
	for span, want := range map[time.Duration]time.Duration{
		time.Minute: time.Second, 250 * time.Second: time.Second, 1000 * time.Second: 4 * time.Second, 24 * time.Hour: 345 * time.Second,
	} {
		step, err := a.stepParam(r, span)
		require.NoError(t, err)
		require.Equal(t, want, step)
	}
}

// RELIABILITY section 6, "As Grafana asks it".
func TestGrafanaHabits(t *testing.T) {
	db := loadTestData(t)
	a := newTestAPI(t, db, nil)

	// Health check: 1+1 at time 4, as a form whose parameters also stand in the URL.
	w := post(a, "/api/v1/query?query=1%2B1&time=4", url.Values{"query": {"1+1"}, "time": {"4"}})
	require.Equal(t, 200, w.Code)
	require.Equal(t, `{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}`, w.Body.String())

	// Exemplars are asked for in milliseconds.
	w = post(a, "/api/v1/query_exemplars", url.Values{"query": {"up"}, "start": {"1763800000000"}, "end": {"1763803600000"}})
	require.Equal(t, 200, w.Code)
	require.Equal(t, `{"status":"success","data":[]}`, w.Body.String())

	// Numbers are strings.
	w = get(a, "/api/v1/query?query=special&time=30")
	require.Contains(t, w.Body.String(), `"-Inf"`)
	require.NotContains(t, w.Body.String(), ":NaN")

	// Lists are never null, and neither are those of sources that are not there.
	for _, path := range []string{
		"query?query=nothing", "query?query=nothing[5m]", "series?match[]=nothing", "labels?match[]=nothing", "label/nothing/values",
		"query_exemplars?query=up", "metadata", "rules", "alerts", "targets", "targets?state=active", "stores", "status/tsdb", "status/flags", "status/config",
	} {
		w = get(a, "/api/v1/"+path)
		require.Equal(t, 200, w.Code, path)
		if path != "targets?state=active" { // as Prometheus: no counts of what was not asked for
			require.NotContains(t, w.Body.String(), "null", path)
		}
	}

	// The version by which Grafana chooses, and no features, by which it would take us for Mimir.
	var build struct{ Data map[string]string }
	require.NoError(t, json.Unmarshal(get(a, "/api/v1/status/buildinfo").Body.Bytes(), &build))
	require.Equal(t, "3.16.0", build.Data["version"])
	require.Equal(t, "Firnline", build.Data["application"])
	require.NotContains(t, build.Data, "features")

	// The ruler's paths are not here, and no page answers in their place.
	for _, path := range []string{"/rules", "/rules/ns/group", "/prometheus/config/v1/rules", "/api/v1/rules/ns", "/api/v1/nothing", "/ruler/x"} {
		w = get(a, path)
		require.Equal(t, 404, w.Code, path)
		require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"), path)
	}
}

func TestMultipartForm(t *testing.T) {
	a := newTestAPI(t, loadTestData(t), nil)
	body := "--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n1+1\r\n--x--\r\n"
	r := httptest.NewRequest(http.MethodPost, "/api/v1/query?time=4", strings.NewReader(body))
	w := do(a, r, "Content-Type", "multipart/form-data; boundary=x")
	require.Equal(t, `{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}`, w.Body.String())
	r = httptest.NewRequest(http.MethodPost, "/api/v1/query?time=4", strings.NewReader(body[:40]))
	require.Equal(t, 400, do(a, r, "Content-Type", "multipart/form-data; boundary=x").Code)
	require.Equal(t, 400, get(a, "/api/v1/query?query=%zz").Code)
}

func TestCompression(t *testing.T) {
	a := newTestAPI(t, loadTestData(t), nil)
	const path = "/api/v1/query_range?query=requests_total&start=0&end=1200&step=10"
	plain := get(a, path).Body.String()
	require.Greater(t, len(plain), 4096)
	for accept, want := range map[string]string{
		"":                  "",
		"gzip":              "gzip",
		"zstd, gzip":        "gzip", // Grafana's proxy can't read zstd
		"gzip, deflate, br": "gzip",
		"zstd":              "zstd",
		"gzip;q=0":          "",
		"br":                "",
	} {
		w := get(a, path, "Accept-Encoding", accept)
		require.Equal(t, want, w.Header().Get("Content-Encoding"), accept)
		require.Contains(t, w.Header().Values("Vary"), "Accept-Encoding")
		require.Contains(t, w.Header().Values("Vary"), "Origin")
		var body io.Reader = w.Body
		switch want {
		case "gzip":
			gz, err := gzip.NewReader(w.Body)
			require.NoError(t, err)
			body = gz
		case "zstd":
			z, err := zstd.NewReader(w.Body, zstd.WithDecoderConcurrency(1))
			require.NoError(t, err)
			defer z.Close()
			body = z
		}
		b, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, plain, string(b), accept)
	}
}

func TestCORS(t *testing.T) {
	a := newTestAPI(t, loadTestData(t), nil)
	w := get(a, "/api/v1/labels", "Origin", "https://example.com")
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	w = get(a, "/api/v1/labels")
	require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, []string{"Origin"}, w.Header().Values("Vary")[:1])
	w = do(a, httptest.NewRequest(http.MethodOptions, "/api/v1/query", nil), "Origin", "https://example.com")
	require.Equal(t, 204, w.Code)
	require.Equal(t, "GET, POST, OPTIONS", w.Header().Get("Access-Control-Allow-Methods"))

	closed := newTestAPI(t, loadTestData(t), func(c *Config, _ *Parts) { c.DisableCORS = true })
	w = get(closed, "/api/v1/labels", "Origin", "https://example.com")
	require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	require.Contains(t, w.Header().Values("Vary"), "Origin")
}

func TestPrefixes(t *testing.T) {
	db := loadTestData(t)
	a := newTestAPI(t, db, nil)
	require.Equal(t, 200, get(a, "/api/v1/labels").Code)
	require.Equal(t, 200, get(a, "/prometheus/api/v1/labels").Code)
	w := get(a, "/")
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'")
	require.Contains(t, w.Body.String(), `href="api/v1/query_range"`)
	require.Equal(t, 405, do(a, httptest.NewRequest(http.MethodPut, "/api/v1/query", nil)).Code)
	require.Equal(t, 405, do(a, httptest.NewRequest(http.MethodPost, "/api/v1/rules", nil)).Code)

	a = newTestAPI(t, db, func(c *Config, _ *Parts) { c.ExternalPrefix = "/metrics/" })
	require.Equal(t, 200, get(a, "/metrics/api/v1/labels").Code)
	require.Equal(t, 200, get(a, "/prometheus/api/v1/labels").Code)
	require.Equal(t, 404, get(a, "/api/v1/labels").Code)
	require.Equal(t, "/metrics/", get(a, "/").Header().Get("Location"))
	require.Equal(t, 200, get(a, "/metrics/").Code)

	a = newTestAPI(t, db, func(c *Config, _ *Parts) { c.ExternalPrefix, c.RoutePrefix = "/outside", "/prometheus" })
	require.Equal(t, 200, get(a, "/prometheus/api/v1/labels").Code)
	require.Equal(t, "/outside/", get(a, "/").Header().Get("Location"))

	for prefix, base := range map[string]string{".": "", "//": "", "./a//b/": "/a/b", "..": ""} {
		a = newTestAPI(t, db, func(c *Config, _ *Parts) { c.ExternalPrefix = prefix })
		require.Equal(t, 200, get(a, base+"/api/v1/labels").Code, prefix)
	}
}

func TestConfigErrors(t *testing.T) {
	bad := Config{ReadSampleLimit: -1, RoutePrefix: "/a?b", ExternalPrefix: "/a b"}
	err := bad.Validate()
	for _, name := range []string{
		"web.max-request-bytes", "query.default-step", "storage.remote.read-concurrent-limit", "storage.remote.read-max-bytes-in-frame",
		"storage.remote.read-sample-limit", "web.route-prefix", "web.external-prefix",
	} {
		require.ErrorContains(t, err, "--"+name+": ")
	}
}
