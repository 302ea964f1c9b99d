package server

import (
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spanSink is an OTLP collector over HTTP.
type spanSink struct {
	mu    sync.Mutex
	names map[string]string // span name to trace id, hex
}

func (s *spanSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	raw, err := io.ReadAll(body)
	var req collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(raw, &req) != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, res := range req.ResourceSpans {
		for _, scope := range res.ScopeSpans {
			for _, span := range scope.Spans {
				s.names[span.Name] = trace.TraceID(span.TraceId).String()
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func TestTracing(t *testing.T) {
	sink := &spanSink{names: map[string]string{}}
	srv := httptest.NewServer(sink)
	defer srv.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	tracing, err := NewTracing(t.Context(), TracingConfig{Tracing: `
type: OTLP
config:
  client_type: http
  insecure: true
  endpoint: ` + strings.TrimPrefix(srv.URL, "http://") + `
  compression: gzip
  sampler_type: neversample
  timeout: 2m
`}, "firnline-test", "v1")
	require.NoError(t, err)

	s, err := New(testConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), tracing)
	require.NoError(t, err)
	s.Handle("GET /api/{what}", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	h := (&harness{Server: s, logs: &logBuffer{}, done: make(chan error, 1)}).start(t)

	_, _, head := get(t, h.url("/api/quiet"))
	require.Empty(t, head.Get("X-Thanos-Trace-Id"))

	req, _ := http.NewRequest(http.MethodGet, h.url("/api/query"), nil)
	req.Header.Set("X-Thanos-Force-Tracing", "1")
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	resp, err := client(t).Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", resp.Header.Get("X-Thanos-Trace-Id"))

	require.NoError(t, tracing.sdk.ForceFlush(context.Background()), "for as long as it takes")
	require.NoError(t, tracing.Shutdown(context.Background()))
	sink.mu.Lock()
	defer sink.mu.Unlock()
	require.Equal(t, map[string]string{"GET /api/{what}": "0af7651916cd43dd8448eb211c80319c"}, sink.names)
}

func TestTracingConfigErrors(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, err string }{
		"other type":  {"type: JAEGER\nconfig: {}\n", "--tracing.config: type: want OTLP, the only one supported, got \"JAEGER\""},
		"unknown key": {"type: OTLP\nconfig:\n  client_type: grpc\n  endpoit: x\n", "--tracing.config: line 4: unknown key \"endpoit\""},
		"client":      {"type: OTLP\n", "config.client_type: want grpc or http, got \"\""},
		"sampler":     {"type: OTLP\nconfig: {client_type: grpc, sampler_type: often}\n", "config.sampler_type: want alwayssample"},
		"share":       {"type: OTLP\nconfig: {client_type: grpc, sampler_type: traceidratiobased, sampler_param: '2'}\n", "config.sampler_param: want a share from 0 to 1"},
		"ca":          {"type: OTLP\nconfig: {client_type: grpc, tls_config: {ca_file: /does/not/exist}}\n", "config.tls_config.ca_file: open"},
		"variable":    {"type: $(FIRN_TEST_UNSET)\n", "line 1: environment variable FIRN_TEST_UNSET is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			c := TracingConfig{Tracing: tc.yaml}
			require.ErrorContains(t, c.Validate(), tc.err)
		})
	}
	c := TracingConfig{TracingFile: write(t, filepath.Join(t.TempDir(), "t.yml"), "type: OTLP\nconfig: {client_type: grpc, insecure: true, retry_config: {retry_enabled: true}}\n")}
	require.NoError(t, c.Validate())
}
