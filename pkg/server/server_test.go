package server

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/firnline/firnline/pkg/proctest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// harness is a server under test.
type harness struct {
	*Server
	reg  *prometheus.Registry
	logs *logBuffer
	stop context.CancelFunc
	done chan error // Run's result
}

// logBuffer is a bytes.Buffer for several goroutines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func testConfig() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	c.HTTP.Address, c.GRPC.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.ShutdownDelay = 0
	return c
}

func newHarness(t *testing.T, cfg Config, opts ...grpc.ServerOption) *harness {
	t.Helper()
	h := &harness{reg: prometheus.NewRegistry(), logs: &logBuffer{}, done: make(chan error, 1)}
	log := slog.New(LogHandler(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	tracing, err := NewTracing(t.Context(), TracingConfig{}, "test", "v0")
	require.NoError(t, err)
	h.Server, err = New(cfg, log, h.reg, tracing, opts...)
	require.NoError(t, err)
	return h
}

// start runs the server until the test ends.
func (h *harness) start(t *testing.T) *harness {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	require.NoError(t, h.Listen(ctx))
	go func() { h.done <- h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-h.done:
		case <-time.After(2 * time.Minute):
			t.Error("Run has not returned")
		}
	})
	return h
}

func (h *harness) url(path string) string { return "http://" + h.HTTPAddr().String() + path }

// wait returns what Run returned.
func (h *harness) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-h.done:
		h.done <- err // for the cleanup
		return err
	case <-time.After(2 * time.Minute):
		t.Fatal("Run has not returned")
		return nil
	}
}

func client(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	resp, err := client(t).Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body), resp.Header
}

func post(t *testing.T, url string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client(t).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestReadyTellsWhatItWaitsFor(t *testing.T) {
	h := newHarness(t, testConfig())
	var mu sync.Mutex
	waiting := map[string]error{"prometheus": errors.New("http://x: connection refused"), "bucket": errors.New("first listing\nnot done")}
	for _, name := range []string{"prometheus", "bucket"} {
		h.AddCheck(name, func() error {
			mu.Lock()
			defer mu.Unlock()
			return waiting[name]
		})
	}
	h.start(t)

	code, body, head := get(t, h.url("/-/ready"))
	require.Equal(t, 503, code)
	require.Equal(t, "not ready, waiting for\nprometheus: http://x: connection refused\nbucket: first listing; not done\n", body)
	require.Equal(t, "text/plain; charset=utf-8", head.Get("Content-Type"))

	code, body, _ = get(t, h.url("/-/healthy"))
	require.Equal(t, 200, code)
	require.Equal(t, "healthy\n", body)

	mu.Lock()
	clear(waiting)
	mu.Unlock()
	code, body, _ = get(t, h.url("/-/ready"))
	require.Equal(t, 200, code)
	require.Equal(t, "ready\n", body)

	code, _, _ = get(t, h.url("/ready"))
	require.Equal(t, 200, code)

	resp, err := client(t).Head(h.url("/-/ready"))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	code, _ = post(t, h.url("/-/ready"))
	require.Equal(t, 405, code)
}

func TestRequestIDsHeadersAndMetrics(t *testing.T) {
	h := newHarness(t, testConfig())
	h.Handle("GET /things/{id}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, RequestID(r.Context()))
	}))
	h.start(t)

	req, _ := http.NewRequest(http.MethodGet, h.url("/things/7"), nil)
	req.Header.Set("X-Request-Id", "from-client.1")
	resp, err := client(t).Do(req)
	require.NoError(t, err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	require.Equal(t, "from-client.1", string(body))
	require.Equal(t, "from-client.1", resp.Header.Get("X-Request-Id"))
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'self'")

	req.Header.Set("X-Request-Id", `"><script>`)
	resp, err = client(t).Do(req)
	require.NoError(t, err)
	body, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	require.Len(t, string(body), 26, "an id of our own")

	get(t, h.url("/nowhere"))
	require.NoError(t, testutil.GatherAndCompare(h.reg, strings.NewReader(`
# HELP firnline_server_http_requests_total HTTP requests answered.
# TYPE firnline_server_http_requests_total counter
firnline_server_http_requests_total{code="200",handler="/things/{id}",method="GET"} 2
firnline_server_http_requests_total{code="404",handler="none",method="GET"} 1
`), "firnline_server_http_requests_total"))

	req, _ = http.NewRequest(http.MethodGet, h.url("/metrics"), nil)
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	resp, err = client(t).Do(req)
	require.NoError(t, err)
	body, _ = io.ReadAll(resp.Body)
	resp.Body.Close()
	require.Contains(t, resp.Header.Get("Content-Type"), "application/openmetrics-text")
	require.True(t, strings.HasSuffix(string(body), "# EOF\n"))
}

func TestPanicIsA500AndCutsAnswersHalfWay(t *testing.T) {
	h := newHarness(t, testConfig())
	h.Handle("/before", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	h.Handle("/midway", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", 1<<16))
		w.(http.Flusher).Flush()
		panic("boom")
	}))
	h.start(t)

	code, body, head := get(t, h.url("/before"))
	require.Equal(t, 500, code)
	require.Equal(t, "internal error, see the log for request "+head.Get("X-Request-Id")+"\n", body)
	require.Contains(t, h.logs.String(), "panic=boom")
	require.Contains(t, h.logs.String(), "request_id="+head.Get("X-Request-Id"))

	resp, err := client(t).Get(h.url("/midway"))
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	resp.Body.Close()
	require.Error(t, err, "a cut answer must not look whole")
	require.Equal(t, 2.0, testutil.ToFloat64(h.metrics.panics.WithLabelValues("http")))
}

func TestTooManyRequestsAreRefused(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxRequests = 1
	h := newHarness(t, cfg)
	entered, leave := make(chan struct{}), make(chan struct{})
	h.Handle("/slow", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-leave
	}))
	h.start(t)
	first := make(chan int, 1)
	go func() {
		code, _, _ := get(t, h.url("/slow"))
		first <- code
	}()
	<-entered
	code, body, head := get(t, h.url("/slow"))
	require.Equal(t, 503, code)
	require.Equal(t, "1", head.Get("Retry-After"))
	require.Contains(t, body, "limit 1 (--http-max-concurrent-requests)")
	code, _, _ = get(t, h.url("/-/healthy"))
	require.Equal(t, 200, code, "probes don't count")
	close(leave)
	require.Equal(t, 200, <-first)
}

func TestPortInUseNamesTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	cfg := testConfig()
	cfg.HTTP.Address, cfg.GRPC.Address = taken.Addr().String(), taken.Addr().String()
	h := newHarness(t, cfg)
	err = h.Run(t.Context())
	require.ErrorContains(t, err, "--http-address: "+taken.Addr().String()+" is in use")
	require.ErrorContains(t, err, "--grpc-address: "+taken.Addr().String()+" is in use")
}

func TestPprofHidesTheCommandLine(t *testing.T) {
	h := newHarness(t, testConfig()).start(t)
	code, _, _ := get(t, h.url("/debug/pprof/cmdline"))
	require.Equal(t, 404, code)
	code, _, _ = get(t, h.url("/debug/pprof/goroutine?debug=1"))
	require.Equal(t, 200, code)
}

func TestLandingPage(t *testing.T) {
	h := newHarness(t, testConfig())
	h.Handle("/", http.NotFoundHandler())
	require.NoError(t, h.Landing(Page{Title: "firnline <b>", About: "a & b", Version: "<script>", Routes: []Route{
		{"/api/v1/x?a=b&c=\"", "linked"}, {"POST /api/v1/y", "told"}, {"/api/v1/z/{id}", "told"},
	}}))
	h.start(t)
	code, body, header := get(t, h.url("/"))
	require.Equal(t, 200, code)
	require.Equal(t, "text/html; charset=utf-8", header.Get("Content-Type"))
	require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'")
	require.Contains(t, body, "<h1>firnline &lt;b&gt;</h1>\n<p>a &amp; b</p>\n<p>Version: &lt;script&gt;</p>")
	require.Contains(t, body, `<li><a href="./api/v1/x?a=b&amp;c=%22">/api/v1/x?a=b&amp;c=&#34;</a>: linked</li>`)
	require.Contains(t, body, `<li>POST /api/v1/y: told</li>`)
	require.Contains(t, body, `<li>/api/v1/z/{id}: told</li>`)
	require.Contains(t, body, `<a href="./metrics">`)
	code, _, _ = get(t, h.url("/other"))
	require.Equal(t, 404, code)
}

func TestAddressesThatClash(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"0.0.0.0:1", "0.0.0.0:1", true},
		{":1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "[::]:1", true},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{"0.0.0.0:1", "0.0.0.0:2", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"0.0.0.0:1", "", false},
	} {
		require.Equal(t, tc.want, clash(tc.a, tc.b), "%+v", tc)
		require.Equal(t, tc.want, clash(tc.b, tc.a), "%+v", tc)
	}
	cfg := testConfig()
	cfg.HTTP.Address, cfg.GRPC.Address = "0.0.0.0:10902", ":10902"
	require.ErrorContains(t, cfg.Validate(), "--http-address=0.0.0.0:10902, --grpc-address=:10902: give each a port of its own")
}

func TestValidateListsEverything(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.Address = "nonsense"
	cfg.HTTP.ReadTimeout = model.Duration(0)
	cfg.GRPC.TLSMinVersion = "1.4"
	cfg.GRPC.TLSCert, cfg.GRPC.TLSKey = "a", "b"
	cfg.HTTP.WebConfig = filepath.Join(t.TempDir(), "missing.yml")
	cfg.RequestLogging, cfg.RequestLoggingFile = "{}", "x"
	err := cfg.Validate()
	for _, want := range []string{
		"--http-address: want host:port", "--http-read-timeout: must be greater than 0", "--grpc-server-tls-min-version: want 1.0",
		"--http.config: open", "--request.logging-config and --request.logging-config-file exclude each other",
	} {
		require.ErrorContains(t, err, want)
	}
	good := testConfig()
	require.NoError(t, good.Validate())
}

// Without gRPC no port is taken for it, nor are there flags of it.
func TestHTTPOnly(t *testing.T) {
	cfg := testConfig()
	cfg.HTTPOnly, cfg.GRPC.Address = true, "256.0.0.1:1" // nobody could listen there
	h := newHarness(t, cfg).start(t)
	require.Nil(t, h.GRPCAddr())
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	(&Config{HTTPOnly: true}).RegisterFlags(fs)
	fs.VisitAll(func(f *flag.Flag) { require.NotContains(t, f.Name, "grpc") })
}
