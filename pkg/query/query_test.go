package query

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func parse(t testing.TB, args ...string) (Config, error) {
	t.Helper()
	var c Config
	fs := flag.NewFlagSet("query", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.RegisterFlags(fs)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// listen serves services on loopback and returns where, and what stops it. The
// address is the test's until it ends.
func listen(t testing.TB, services storeapi.Services) (string, func()) {
	t.Helper()
	address := proctest.Addr(t)
	return address, listenAt(t, address, services)
}

// listenAt serves services at an address of proctest.
func listenAt(t testing.TB, address string, services storeapi.Services) (stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	require.NoError(t, err)
	return serve(t, lis, services)
}

func serve(t testing.TB, lis net.Listener, services storeapi.Services) (stop func()) {
	t.Helper()
	srv := grpc.NewServer(storeapi.ServerOptions()...)
	storeapi.Register(srv, services, quiet())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(lis) })
	stop = func() { srv.Stop(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// startQuery runs a querier until the test ends.
func startQuery(t testing.TB, args ...string) *Query {
	t.Helper()
	return startQueryOver(t, nil, args...)
}

// startQueryOver runs a querier that reaches its endpoints by dial; nil: over the network.
func startQueryOver(t testing.TB, dial func(context.Context, string) (net.Conn, error), args ...string) *Query {
	t.Helper()
	cfg, err := parse(t, append([]string{"--endpoint.info-timeout=1m", "--endpoint.info-interval=50ms", "--query.replica-label=replica"}, args...)...)
	require.NoError(t, err)
	var parts Parts
	if dial != nil {
		parts.Dial = []grpc.DialOption{grpc.WithContextDialer(dial)}
	}
	q, err := New(cfg, parts, quiet(), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, q.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, func() bool { return q.Ready() == nil })
	return q
}

// eventually waits for ok, however long a slow machine takes.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 2*time.Minute, time.Millisecond)
}

// counter is a store of one counter that grows by one a second for an hour.
func counter(t testing.TB, external ...string) *storetest.Fake {
	t.Helper()
	var samples []storetest.Sample
	for i := range 240 {
		samples = append(samples, storetest.Sample{T: int64(i) * 15_000, V: float64(i * 15)})
	}
	ext := labels.FromStrings(external...)
	return storetest.NewFake([]storeapi.Series{{
		Labels: labels.FromStrings(append([]string{"__name__", "requests_total"}, external...)...),
		Chunks: storetest.Chunks(t, samples, false, 0),
	}}, storeapi.Info{
		Component: "sidecar", LabelSets: []labels.Labels{ext}, Mint: 0, Maxt: math.MaxInt64,
		TSDBs:            []storeapi.TSDBInfo{{Labels: ext, Maxt: math.MaxInt64}},
		SupportsSharding: true, SupportsWithoutReplicaLabels: true, Services: storeapi.ServiceSet{Store: true},
	})
}

type answer struct {
	code     int
	header   http.Header
	Status   string          `json:"status"`
	Data     json.RawMessage `json:"data"`
	Error    string          `json:"error"`
	Type     string          `json:"errorType"`
	Warnings []string        `json:"warnings"`
}

func get(t testing.TB, q *Query, path string, params ...string) answer {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(params); i += 2 {
		values.Add(params[i], params[i+1])
	}
	rec := httptest.NewRecorder()
	q.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path+"?"+values.Encode(), nil))
	a := answer{code: rec.Code, header: rec.Header()}
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &a), rec.Body.String())
	return a
}

func TestConfig(t *testing.T) {
	_, err := parse(t, `--selector-label=region="eu"`, "--query.replica-label=a,b", "--query.replica-label=c")
	require.NoError(t, err)
	for flags, want := range map[string]string{
		"--selector-label=region":                                            `must be name="value"`,
		"--selector-label=region=eu":                                         `must be name="value"`,
		`--selector-label=a="1" --selector-label=a="2"`:                      "a is given twice",
		`--selector-label=a="1" --query.replica-label=a`:                     "label a is both",
		"--query.replica-label=":                                             "not a label name",
		"--deduplication.func=best":                                          "--deduplication.func",
		"--query.max-concurrent-select=0":                                    "--query.max-concurrent-select=0",
		"--store.limits.request-series=-1":                                   "--store.limits.request-series=-1",
		"--query.max-hops=0 --query.lazy-retrieval-max-buffered-responses=0": "--query.max-hops=0",
	} {
		_, err := parse(t, strings.Fields(flags)...)
		require.ErrorContains(t, err, want, flags)
	}
}

// An HA pair in two processes: one series, and a warning or an error when one dies.
func TestPair(t *testing.T) {
	a, _ := listen(t, storeapi.Services{Store: counter(t, "cluster", "x", "replica", "a")})
	b, stopB := listen(t, storeapi.Services{Store: counter(t, "cluster", "x", "replica", "b")})
	q := startQuery(t, "--endpoint="+a, "--endpoint="+b)
	ans := get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000")
	require.Equal(t, `{"resultType":"vector","result":[{"metric":{"__name__":"requests_total","cluster":"x"},"value":[3000,"3000"]}]}`, string(ans.Data))
	require.Empty(t, ans.Warnings)
	ans = get(t, q, "/api/v1/query", "query", "count(requests_total)", "time", "3000", "dedup", "false")
	require.Contains(t, string(ans.Data), `"2"`)

	stopB() // at first found out by the query, later known
	for range 2 {
		ans = get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000")
		require.Equal(t, 200, ans.code)
		require.Contains(t, string(ans.Data), `"3000"`)
		require.Len(t, ans.Warnings, 1)
		require.Equal(t, 1, strings.Count(ans.Warnings[0], "endpoint "+b), ans.Warnings[0])
		require.Equal(t, "no-store", ans.header.Get("Cache-Control"))
		ans = get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000", "partial_response", "false")
		require.GreaterOrEqual(t, ans.code, 422)
		require.Contains(t, ans.Error, b)
		eventually(t, func() bool { return !q.endpointWell(b) })
	}
	ans = get(t, q, "/api/v1/label/cluster/values")
	require.Equal(t, `["x"]`, string(ans.Data))
	require.Len(t, ans.Warnings, 1)
	require.Contains(t, storesOf(t, q), `"sidecar":[{"name":"127.0.0.1:`)
}

func storesOf(t *testing.T, q *Query) string { return string(get(t, q, "/api/v1/stores").Data) }

// RELIABILITY Q2: whether the query finds out or it is known already, the error
// says once who is down, and why, without gRPC's own words around it.
func TestAllDead(t *testing.T) {
	a, stop := listen(t, storeapi.Services{Store: counter(t, "cluster", "x")})
	q := startQuery(t, "--endpoint="+a)
	stop()
	check := func() {
		ans := get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000")
		require.Equal(t, http.StatusServiceUnavailable, ans.code)
		require.Equal(t, "unavailable", ans.Type)
		require.Contains(t, ans.Error, "no endpoint answered: endpoint "+a+": unavailable")
		require.Equal(t, 1, strings.Count(ans.Error, a), ans.Error)
		require.NotContains(t, ans.Error, "desc = ")
	}
	check()
	eventually(t, func() bool { return strings.Contains(storesOf(t, q), "nothing listens there") })
	check()
}

// RELIABILITY Q3: a hole two queriers down shows at the top, with its path.
func TestThreeLevels(t *testing.T) {
	leaf, stop := listen(t, storeapi.Services{Store: counter(t, "cluster", "x")})
	other, _ := listen(t, storeapi.Services{Store: counter(t, "cluster", "y")})
	low := startQuery(t, "--endpoint="+leaf, "--endpoint="+other)
	lowAt, _ := listen(t, low.Services())
	mid := startQuery(t, "--endpoint="+lowAt)
	midAt, _ := listen(t, mid.Services())
	top := startQuery(t, "--endpoint="+midAt)
	ans := get(t, top, "/api/v1/query", "query", "sum(requests_total)", "time", "3000", "partial_response", "false")
	require.Contains(t, string(ans.Data), `"6000"`, ans.Error)
	require.Contains(t, storesOf(t, top), `"query":[{`)
	require.Contains(t, storesOf(t, top), `{"cluster":"x"}`)

	stop()
	for range 2 {
		ans = get(t, top, "/api/v1/query", "query", "sum(requests_total)", "time", "3000")
		require.Contains(t, string(ans.Data), `"3000"`, ans.Error)
		require.Len(t, ans.Warnings, 1)
		require.Contains(t, ans.Warnings[0], fmt.Sprintf("endpoint %s: endpoint %s: endpoint %s: ", midAt, lowAt, leaf))
		require.Equal(t, "no-store", ans.header.Get("Cache-Control"))
		ans = get(t, top, "/api/v1/query", "query", "requests_total", "time", "3000", "partial_response", "false")
		require.GreaterOrEqual(t, ans.code, 422)
		require.Contains(t, ans.Error, leaf)
		eventually(t, func() bool { return !low.endpointWell(leaf) }) // from now on it knows without asking
	}
}

// RELIABILITY Q4: queriers that are endpoints of each other answer with an error
// that says so; an endpoint given twice counts once.
func TestCycle(t *testing.T) {
	leaf, _ := listen(t, storeapi.Services{Store: counter(t, "cluster", "x")})
	aAt, bAt := proctest.Addr(t), proctest.Addr(t)
	a := startQuery(t, "--endpoint="+bAt, "--endpoint="+leaf, "--endpoint="+leaf)
	b := startQuery(t, "--endpoint="+aAt)
	listenAt(t, aAt, a.Services())
	listenAt(t, bAt, b.Services())
	eventually(t, func() bool { return !strings.Contains(storesOf(t, a)+storesOf(t, b), `"lastError":"`) })
	ans := get(t, a, "/api/v1/query", "query", "requests_total", "time", "3000")
	require.Equal(t, 422, ans.code)
	require.Contains(t, ans.Error, "cycle")
	_, _, err := a.Services().Rules.Rules(context.Background(), storeapi.RulesRequest{}, true)
	require.ErrorContains(t, err, "cycle")

	twice := startQuery(t, "--endpoint="+leaf, "--endpoint="+leaf)
	ans = get(t, twice, "/api/v1/query", "query", "count(requests_total)", "time", "3000")
	require.Contains(t, string(ans.Data), `"1"`)
}

// RELIABILITY Q1: an endpoint that hangs when it is asked for series costs the
// response timeout or, without one, nine tenths of the query's own, and only its series.
func TestHangingEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		flag    string
		timeout string
		want    time.Duration
	}{
		"the response timeout": {"--store.response-timeout=3s", "10m", 3 * time.Second},
		"the query's own":      {"--store.response-timeout=0s", "10s", 9 * time.Second},
		"a shorter timeout":    {"--store.response-timeout=10m", "10s", 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, hanging := network{}, counter(t, "cluster", "y")
				n.listen(t, "good:1", storeapi.Services{Store: counter(t, "cluster", "x")})
				n.listen(t, "hangs:1", storeapi.Services{Store: hanging})
				q := startQueryOver(t, n.dial, "--endpoint=good:1", "--endpoint=hangs:1", c.flag)
				hanging.Behave(storetest.Behaviour{SeriesDelay: time.Hour})
				began := time.Now()
				ans := get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000", "timeout", c.timeout)
				require.Equal(t, c.want, time.Since(began))
				require.Equal(t, 200, ans.code, ans.Error)
				require.Contains(t, string(ans.Data), `"cluster":"x"`)
				require.Len(t, ans.Warnings, 1)
				require.Contains(t, ans.Warnings[0], "endpoint hangs:1")
				synctest.Wait()
				require.Zero(t, hanging.Open(), "nothing goes on below")
			})
		})
	}
}

// RELIABILITY Q7: a client that leaves ends all work below, through two queriers.
func TestClientLeaves(t *testing.T) {
	slow := counter(t, "cluster", "x")
	at, _ := listen(t, storeapi.Services{Store: slow})
	low := startQuery(t, "--endpoint="+at)
	lowAt, _ := listen(t, low.Services())
	top := startQuery(t, "--endpoint="+lowAt)
	slow.Behave(storetest.Behaviour{SeriesDelay: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		req := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=requests_total", nil).WithContext(ctx)
		top.Handler().ServeHTTP(httptest.NewRecorder(), req)
	})
	eventually(t, func() bool { return slow.Open() > 0 })
	cancel()
	eventually(t, func() bool { return slow.Open() == 0 })
	wg.Wait()
}

// The conformance suite over a querier, through gRPC on both sides.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
		at, _ := listen(t, storeapi.Services{Store: storetest.NewFakeOf(t, in)})
		return startQuery(t, "--endpoint="+at).Services().Store
	})
}
