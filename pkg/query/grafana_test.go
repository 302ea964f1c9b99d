package query

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// grafana sends requests as the proxy of Grafana's Prometheus data source does:
// its forms repeat their parameters in the URL, and it can't read zstd, though
// the browsers whose headers it passes on can.
type grafana struct {
	t   testing.TB
	url string
}

func (g grafana) send(method, path string, params url.Values) (*http.Response, string) {
	g.t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(params.Encode())
	}
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.url+path+"?"+params.Encode(), body)
	require.NoError(g.t, err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept-Encoding", "zstd, gzip")
	res, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(g.t, err)
	defer func() { require.NoError(g.t, res.Body.Close()) }()
	in := io.Reader(res.Body)
	if enc := res.Header.Get("Content-Encoding"); enc != "" {
		require.Equal(g.t, "gzip", enc)
		in, err = gzip.NewReader(res.Body)
		require.NoError(g.t, err)
	}
	text, err := io.ReadAll(in)
	require.NoError(g.t, err)
	return res, strings.TrimSuffix(string(text), "\n")
}

func newGrafana(t testing.TB, q *Query) grafana {
	t.Helper()
	srv := httptest.NewServer(q.Handler())
	t.Cleanup(func() { srv.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	return grafana{t, srv.URL}
}

// numbers is a store of series whose values JSON has no numbers for.
func numbers(t testing.TB) *storetest.Fake {
	t.Helper()
	zero := 0.0
	var series []storeapi.Series
	for kind, v := range map[string]float64{"nan": zero / zero, "plus": 1 / zero, "minus": -1 / zero} {
		series = append(series, storeapi.Series{
			Labels: labels.FromStrings("__name__", "odd", "cluster", "z", "kind", kind),
			Chunks: storetest.Chunks(t, []storetest.Sample{{T: 3_000_000, V: v}}, false, 0),
		})
	}
	ext := labels.FromStrings("cluster", "z")
	return storetest.NewFake(series, storeapi.Info{
		Component: "store", LabelSets: []labels.Labels{ext}, Maxt: storeapi.MaxTime,
		TSDBs: []storeapi.TSDBInfo{{Labels: ext, Maxt: storeapi.MaxTime}}, Services: storeapi.ServiceSet{Store: true},
	})
}

// RELIABILITY section 6, "As Grafana asks it": the requests that its Prometheus
// data source makes, over a wire, and what it must get.
func TestGrafana(t *testing.T) {
	x, _ := listen(t, storeapi.Services{Store: counter(t, "cluster", "x", "replica", "a")})
	z, _ := listen(t, storeapi.Services{Store: numbers(t)})
	g := newGrafana(t, startQuery(t, "--endpoint="+x, "--endpoint="+z))
	const span = "start=2970.5&end=3030.25&"
	for _, tc := range []struct{ name, method, path, params, want string }{
		{
			"health check", "POST", "query", "query=1%2B1&time=4",
			`{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}`,
		},
		{
			"panel", "POST", "query_range", span + "step=15&query=sum(requests_total)",
			`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[2970.500,"2970"],[2985.500,"2985"],[3000.500,"3000"],[3015.500,"3015"]]}]}}`,
		},
		{
			"panel without data", "POST", "query_range", span + "step=15&query=none",
			`{"status":"success","data":{"resultType":"matrix","result":[]}}`,
		},
		{
			"function not enabled", "POST", "query", "time=3000&query=sort_by_label(odd,%22kind%22)",
			`{"status":"error","errorType":"bad_data"`,
		},
		{
			"numbers", "POST", "query", `time=3000&query=odd`,
			`"kind":"minus"},"value":[3000,"-Inf"]},{"metric":{"__name__":"odd","cluster":"z","kind":"nan"},"value":[3000,"NaN"]},{"metric":{"__name__":"odd","cluster":"z","kind":"plus"},"value":[3000,"+Inf"]}]}}`,
		},
		{
			"metric names", "GET", "label/__name__/values", span + "limit=40000",
			`{"status":"success","data":["odd","requests_total"]}`,
		},
		{
			"values of a label", "GET", "label/cluster/values", span + "limit=40000&match[]=requests_total",
			`{"status":"success","data":["x"]}`,
		},
		{
			"values of no label", "GET", "label/none/values", span,
			`{"status":"success","data":[]}`,
		},
		{
			"labels", "POST", "labels", span + "limit=40000&match[]=odd",
			`{"status":"success","data":["__name__","cluster","kind"]}`,
		},
		{
			"series", "POST", "series", span + "match[]=requests_total",
			`{"status":"success","data":[{"__name__":"requests_total","cluster":"x"}]}`,
		},
		{
			"exemplars, in milliseconds", "POST", "query_exemplars", "start=1763800000000&end=1763803600000&query=requests_total",
			`{"status":"success","data":[]}`,
		},
		{
			"metadata", "GET", "metadata", "limit=40000",
			`{"status":"success","data":{}}`,
		},
		{
			"rules", "GET", "rules", "",
			`{"status":"success","data":{"groups":[]}}`,
		},
		{
			"mistake", "POST", "query_range", span + "step=15&query=rate(",
			`{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": `,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			params, err := url.ParseQuery(tc.params)
			require.NoError(t, err)
			res, body := g.send(tc.method, "/api/v1/"+tc.path, params)
			require.Contains(t, body, tc.want)
			require.NotContains(t, body, "\n")
			require.Equal(t, "application/json", res.Header.Get("Content-Type"))
			if strings.Contains(tc.want, "bad_data") {
				require.Equal(t, 400, res.StatusCode)
			} else {
				require.Equal(t, 200, res.StatusCode)
			}
		})
	}

	var build struct{ Data map[string]any }
	_, body := g.send("GET", "/api/v1/status/buildinfo", nil)
	require.NoError(t, json.Unmarshal([]byte(body), &build))
	require.GreaterOrEqual(t, build.Data["version"], "3.0.0")
	require.NotContains(t, build.Data, "features")

	res, body := g.send("GET", "/rules/namespace/group", nil) // of a ruler of Mimir
	require.Equal(t, 404, res.StatusCode)
	require.NotContains(t, body, "<")
}

// RELIABILITY section 6: of errors Grafana reads the bodies of 400, 422 and 503:
// a query beyond its limits is the second, too many of them are the third.
func TestGrafanaErrors(t *testing.T) {
	slow := counter(t, "cluster", "x")
	at, _ := listen(t, storeapi.Services{Store: slow})
	q := startQuery(t, "--endpoint="+at, "--query.max-concurrent=1", "--query.max-queued=0", "--query.max-samples=5")
	g := newGrafana(t, q)
	panel := url.Values{"query": {"requests_total"}, "start": {"0"}, "end": {"3000"}, "step": {"15"}}
	refused := func(code int, typ, names string) {
		t.Helper()
		res, body := g.send("POST", "/api/v1/query_range", panel)
		require.Equal(t, code, res.StatusCode, body)
		require.Contains(t, body, `{"status":"error","errorType":"`+typ+`","error":"`)
		require.Contains(t, body, names)
		require.NotContains(t, body, "\n")
	}
	refused(422, "execution", "--query.max-samples")

	slow.Behave(storetest.Behaviour{SeriesDelay: time.Hour})
	ctx, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		req := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=requests_total&time=3000", nil).WithContext(ctx)
		q.Handler().ServeHTTP(httptest.NewRecorder(), req)
	})
	eventually(t, func() bool { return slow.Open() > 0 })
	refused(503, "unavailable", "--query.max-")
	leave()
	wg.Wait()
}
