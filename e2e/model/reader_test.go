package model

import (
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	promroute "github.com/prometheus/common/route"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/query"
	"github.com/firnline/firnline/pkg/store"
	"github.com/firnline/firnline/pkg/storeapi"
)

// gatewayFlags are settings under which a store gateway must answer alike.
var gatewayFlags = [][]string{
	nil,
	{"--index-cache-size=0", "--debug.series-batch-size=3", "--store.chunk-window-size=2000", "--store.read-gap=0", "--store.read-size=300"},
	{"--store.index-header-lazy-download-strategy=lazy", "--block-discovery-strategy=concurrent", "--index-cache-size=10KB"},
}

// startGateway runs a store gateway until the test ends and returns when it has
// seen the bucket once.
func startGateway(t *testing.T, bkt block.Bucket, args ...string) *store.Store {
	t.Helper()
	s, stop := openGateway(t, bkt, time.Now, args...)
	t.Cleanup(stop)
	return s
}

// openGateway is startGateway with a clock, and ends at stop.
func openGateway(t testing.TB, bkt block.Bucket, now func() time.Time, args ...string) (s *store.Store, stop func()) {
	t.Helper()
	var cfg store.Config
	flags := flag.NewFlagSet("store", flag.ContinueOnError)
	cfg.RegisterFlags(flags)
	dir := t.TempDir()
	require.NoError(t, flags.Parse(append([]string{"--sync-block-duration=50ms", "--delete-requests.interval=50ms", "--data-dir=" + dir}, args...)))
	s, err := store.New(cfg, bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	s.SetClock(now)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, s.Run(ctx)) })
	require.Eventually(t, func() bool { return s.Ready() == nil }, soon, time.Millisecond)
	return s, func() { cancel(); wg.Wait() }
}

// listen serves a store on loopback until the test ends.
func listen(t *testing.T, s storeapi.Services) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer(storeapi.ServerOptions()...)
	storeapi.Register(srv, s, slog.New(slog.DiscardHandler))
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	return l.Addr().String()
}

// startQuerier runs a querier over endpoints until the test ends.
func startQuerier(t *testing.T, endpoints []string, args ...string) http.Handler {
	t.Helper()
	var cfg query.Config
	flags := flag.NewFlagSet("query", flag.ContinueOnError)
	cfg.RegisterFlags(flags)
	for _, e := range endpoints {
		args = append(args, "--endpoint="+e)
	}
	require.NoError(t, flags.Parse(append(args, "--query.replica-label=replica", "--endpoint.info-timeout=1m", "--query.timeout=20m")))
	q, err := query.New(cfg, query.Parts{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, q.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	require.Eventually(t, func() bool { return q.Ready() == nil }, soon, 5*time.Millisecond)
	return q.Handler()
}

// oracle is Prometheus' own engine and HTTP API over a model.
func oracle(t *testing.T, m *Model) http.Handler {
	p := parser.NewParser(parser.Options{})
	ng := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: 20 * time.Minute, LookbackDelta: 5 * time.Minute, Parser: p,
		NoStepSubqueryIntervalFn: func(int64) int64 { return minute }, EnableAtModifier: true, EnableNegativeOffset: true,
	})
	t.Cleanup(func() { require.NoError(t, ng.Close()) })
	api := v1.NewAPI(ng, m, nil, nil, nil, nil, nil,
		func() promconfig.Config { return promconfig.Config{} }, nil, v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		nil, "", false, false, 0, promslog.NewNopLogger(), nil,
		5e7, 10, 1<<20, false, regexp.MustCompile("^(?:.*)$"), nil, nil, nil, nil, nil, nil, nil,
		false, nil, false, false, false, 5*time.Minute, false, false, nil, nil, v1.OpenAPIOptions{}, p, false, 0)
	router := promroute.New().WithPrefix("/api/v1")
	api.Register(router)
	return router
}

// answer is what must be equal of two answers. Warnings may come in any order.
type answer struct {
	Status, ErrorType, Error string
	Data                     json.RawMessage
}

func ask(t *testing.T, h http.Handler, path string, params url.Values) answer {
	t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/api/v1/"+path+"?"+params.Encode(), nil))
	var a answer
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &a), "%s: %s", path, rec.Body)
	return a
}

// reading is what one look at a gateway came to.
type reading struct {
	samples int // before the cut, each time of a series once
	wrong   []string
}

// readAll reads all series of a gateway and looks each sample up in the model.
func readAll(ctx context.Context, s storeapi.Store, m *Model, cut int64) (reading, error) {
	set, err := s.Series(ctx, storeapi.Selection{
		Mint: 0, Maxt: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "")},
	})
	if err != nil {
		return reading{}, err
	}
	defer set.Close()
	var r reading
	for set.Next() {
		at := set.At()
		seen := map[int64]bool{}
		for _, c := range at.Chunks {
			samples, err := decode(c.Raw)
			if err != nil {
				return r, err
			}
			for _, sample := range samples {
				if !m.Has(at.Labels, sample) {
					r.wrong = append(r.wrong, at.Labels.String())
				}
				if sample.Time < cut && !seen[sample.Time] {
					seen[sample.Time] = true
					r.samples++
				}
			}
		}
	}
	return r, set.Err()
}

func decode(d storeapi.Data) (out []Sample, err error) {
	chunk, err := d.Chunk()
	if err != nil {
		return nil, err
	}
	it := chunk.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		var s Sample
		switch typ {
		case chunkenc.ValFloat:
			s.Time, s.Value = it.At()
		case chunkenc.ValHistogram:
			s.Time, s.Hist = it.AtHistogram(nil)
		default:
			s.Time, s.FloatHist = it.AtFloatHistogram(nil)
		}
		out = append(out, s)
	}
	return out, it.Err()
}

// question is a request to an HTTP API of Prometheus' kind.
type question struct {
	path   string
	params url.Values
}

var expressions = []string{
	`{__name__!=""}`, `queue`, `requests_total{pod="pod-0"}`, `{__name__=~"latency|size|custom"}`, `mixed`, `temperature`,
	`rate(requests_total[5m])`, `increase(requests_total[13m])`, `resets(requests_total[20m])`, `irate(requests_total[2m])`,
	`rate(latency[5m])`, `increase(custom[7m])`, `histogram_quantile(0.9, rate(size[5m]))`, `histogram_count(latency)`,
	`sum by (cluster) (rate(requests_total[5m]))`, `sum without (pod) (queue)`, `sum(rate(latency[10m]))`,
	`avg_over_time(queue[10m])`, `quantile_over_time(0.5, queue[10m])`, `count_over_time({__name__!=""}[6m])`,
	`last_over_time(mixed[10m])`, `changes(queue[10m])`, `max_over_time(rate(requests_total[1m])[10m:1m])`,
	`queue offset 17m`, `queue @ start()`, `topk(2, queue)`, `count by (zone) (queue)`, `queue{zone=~"a|ü"}`, `queue{zone=""}`,
	`absent(queue{pod="none"})`, `label_replace(queue, "x", "$1", "pod", "pod-(.*)")`, `queue{cluster!="overridden"}`,
	`sum_over_time(temperature[5m])`, `histogram_avg(latency) > 1`, `queue + on (cluster, replica, pod) group_left temperature`,
}

// questions draws requests about [begin, cut).
func questions(rnd *rand.Rand, begin, cut int64, n int) (out []question) {
	for range n {
		expr := expressions[rnd.IntN(len(expressions))]
		start := begin + int64(rnd.IntN(int(cut-begin)))
		end := start + int64(rnd.IntN(int(cut-start)))
		switch rnd.IntN(8) {
		case 0, 1, 2, 3:
			step := max(1000, (end-start)/int64(1+rnd.IntN(100)))
			out = append(out, question{"query_range", url.Values{"query": {expr}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {(time.Duration(step) * time.Millisecond).String()}}})
		case 4, 5:
			out = append(out, question{"query", url.Values{"query": {expr}, "time": {seconds(end)}}})
		case 6:
			raw := []string{`queue[1h]`, `{__name__!=""}[10m]`, `latency[30m]`, `requests_total[23m]`}[rnd.IntN(4)]
			out = append(out, question{"query", url.Values{"query": {raw}, "time": {seconds(end)}}})
		case 7:
			match := url.Values{"match[]": {[]string{`queue`, `{pod="pod-1"}`, `{zone=~".+"}`, `{__name__=~"l.*"}`}[rnd.IntN(4)]}, "start": {"0"}, "end": {"9999999999"}}
			out = append(out, question{[]string{"series", "labels", "label/zone/values", "label/cluster/values"}[rnd.IntN(4)], match})
		}
	}
	return out
}

func seconds(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
