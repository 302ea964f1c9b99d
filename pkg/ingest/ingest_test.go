package ingest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest"
	"github.com/firnline/firnline/pkg/storeapi"
)

// node is one process' ingest, alone in its ring.
type node struct {
	t    testing.TB
	in   *ingest.Ingester
	url  string
	run  func()
	stop func()
}

func start(t testing.TB, dir string, args ...string) *node {
	t.Helper()
	n := launch(t, dir, args...)
	require.Eventually(t, n.ready, 2*time.Minute, time.Millisecond)
	return n
}

// ready is what it says of itself.
func (n *node) ready() bool {
	for _, check := range n.in.Checks() {
		if check() != nil {
			return false
		}
	}
	return true
}

// launch is start that does not wait until writes are taken.
func launch(t testing.TB, dir string, args ...string) *node {
	t.Helper()
	n := listen(t, dir, args...)
	n.run()
	return n
}

// listen makes a node that does nothing yet but answer.
func listen(t testing.TB, dir string, args ...string) *node {
	t.Helper()
	var cfg ingest.Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse(append([]string{"--tsdb.path=" + dir, `--label=ingest="a"`, "--ring.bind-address=127.0.0.1:0", "--ring.instance-id=a"}, args...)))
	require.NoError(t, cfg.Validate())
	in, err := ingest.New(cfg, ingest.Parts{Address: "127.0.0.1:1", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // which is done before cleaning up
	done := make(chan error, 1)
	srv := httptest.NewServer(in.Handler())
	n := &node{t: t, in: in, url: srv.URL}
	done <- nil // while it does not run
	n.run = func() {
		<-done
		go func() { done <- in.Run(ctx) }()
	}
	n.stop = sync.OnceFunc(func() {
		require.NoError(t, in.Leave(context.WithoutCancel(ctx)))
		srv.Close()
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) post(path, contentType string, body []byte, header ...string) (int, string, http.Header) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.url+path, bytes.NewReader(body))
	require.NoError(n.t, err)
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(n.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(n.t, err)
	return resp.StatusCode, string(text), resp.Header
}

const protobuf = "application/x-protobuf"

// rw1 is a remote-write request with a sample of each metric.
func rw1(at time.Time, value float64, metrics ...string) []byte {
	var req prompb.WriteRequest
	for _, m := range metrics {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: m}, {Name: "job", Value: "x"}},
			Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: value}},
		})
	}
	raw, err := req.Marshal()
	if err != nil {
		panic(err)
	}
	return snappy.Encode(nil, raw)
}

// read lists the series of a metric with their samples.
func (n *node) read(metric string) []string {
	n.t.Helper()
	set, err := n.in.Services().Store.Series(n.t.Context(), storeapi.Selection{
		Mint: 0, Maxt: time.Now().Add(time.Hour).UnixMilli(), Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", metric)}})
	require.NoError(n.t, err)
	defer set.Close()
	var out []string
	for set.Next() {
		s := set.At()
		samples := 0
		for _, c := range s.Chunks {
			samples += int(binary.BigEndian.Uint16(c.Raw.Bytes))
		}
		out = append(out, fmt.Sprintf("%s %d", s.Labels, samples))
	}
	require.NoError(n.t, set.Err())
	return out
}

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	n := start(t, dir)
	now := time.Now()
	for i, path := range []string{"/api/v1/write", "/api/v1/receive", "/api/v1/push"} {
		code, text, _ := n.post(path, protobuf, rw1(now.Add(time.Duration(i)*time.Second), 1, "up", "down"))
		require.Equal(t, http.StatusNoContent, code, text)
	}
	require.Equal(t, []string{`{__name__="up", ingest="a", job="x", tenant_id="default-tenant"} 3`}, n.read("up"))

	otlp := fmt.Sprintf(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"temp","gauge":{"dataPoints":[{"asDouble":1,"timeUnixNano":"%d"}]}}]}]}]}`, now.UnixNano())
	for _, path := range []string{"/api/v1/otlp", "/api/v1/otlp/v1/metrics", "/otlp/v1/metrics", "/v1/metrics", "/opentelemetry/v1/metrics"} {
		code, text, _ := n.post(path, "application/json", []byte(otlp), "X-Scope-OrgID", "team-a")
		require.Equal(t, http.StatusOK, code, text)
	}
	require.Equal(t, []string{`{__name__="temp", ingest="a", tenant_id="team-a"} 1`}, n.read("temp"))

	// RELIABILITY P9, I3: the same answers after a restart.
	n.stop()
	n = start(t, dir)
	require.Equal(t, []string{`{__name__="up", ingest="a", job="x", tenant_id="default-tenant"} 3`}, n.read("up"))
	require.Equal(t, []string{`{__name__="temp", ingest="a", tenant_id="team-a"} 1`}, n.read("temp"))
}

// RELIABILITY P9, P12: a node that starts, for the first time or again, or is about to stop says so, not
// that nodes are missing.
func TestNotReady(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		n := listen(t, dir)
		taken := func() bool {
			code, text, _ := n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "up"))
			if code == http.StatusNoContent {
				return true
			}
			require.Equal(t, http.StatusServiceUnavailable, code, text)
			require.Contains(t, text, "[not-ready]")
			return false
		}
		require.False(t, taken())
		n.run()
		for until := time.Now().Add(2 * time.Minute); !taken(); time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(until))
		}
		require.NoError(t, n.in.Leave(t.Context()))
		require.Eventually(t, func() bool {
			code, text, _ := n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "up"))
			return code == http.StatusServiceUnavailable && strings.Contains(text, "[not-ready]")
		}, 2*time.Minute, 10*time.Millisecond)
		n.stop()
	}
}

// RELIABILITY P9: who says that it is ready takes writes, for the first time and again.
func TestReadyTakesWrites(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		n := start(t, dir)
		code, text, _ := n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "up"))
		require.Equal(t, http.StatusNoContent, code, text)
		n.stop()
	}
}

// RELIABILITY P12: malformed input is 4xx and changes nothing.
func TestBadRequests(t *testing.T) {
	n := start(t, t.TempDir(), "--ingest.max-body-bytes=100000", "--ingest.max-decoded-bytes=200000")
	good := rw1(time.Now(), 1, "up")
	for _, c := range []struct {
		name, path, contentType string
		body                    []byte
		header                  []string
		code                    int
		want                    string
	}{
		{"media type", "/api/v1/write", "text/plain", good, nil, http.StatusUnsupportedMediaType, "[unsupported-type]"},
		{"encoding", "/api/v1/write", protobuf, good, []string{"Content-Encoding", "br"}, http.StatusUnsupportedMediaType, "[unsupported-type]"},
		{"no snappy", "/api/v1/write", protobuf, []byte("hello"), nil, http.StatusBadRequest, "[bad-request]"},
		{"no protobuf", "/api/v1/write", protobuf, snappy.Encode(nil, []byte{0xff, 0xff, 0xff}), nil, http.StatusBadRequest, "[bad-request]"},
		{"no JSON", "/v1/metrics", "application/json", []byte("{"), nil, http.StatusBadRequest, ""},
		{"too large", "/api/v1/write", protobuf, make([]byte, 200_000), nil, http.StatusRequestEntityTooLarge, "[request-too-large]"},
		{"declares 2.7 GB", "/api/v1/write", protobuf, append([]byte{0x80, 0x80, 0x80, 0x80, 0x0a}, make([]byte, 42)...), nil, http.StatusRequestEntityTooLarge, "[request-too-large]"},
		{"tenant climbs", "/api/v1/write", protobuf, good, []string{"THANOS-TENANT", "../x"}, http.StatusBadRequest, "[bad-tenant]"},
		{"tenants differ", "/api/v1/write", protobuf, good, []string{"THANOS-TENANT", "a", "X-Scope-OrgID", "b"}, http.StatusBadRequest, "[bad-tenant]"},
		{"a year ahead", "/api/v1/write", protobuf, rw1(time.Now().AddDate(1, 0, 0), 1, "up"), nil, http.StatusBadRequest, "[sample-too-far-ahead]"},
		{"no metric name", "/api/v1/write", protobuf, rw1(time.Now(), 1, ""), nil, http.StatusBadRequest, "[bad-labels]"},
	} {
		code, text, _ := n.post(c.path, c.contentType, c.body, c.header...)
		require.Equal(t, c.code, code, "%s: %s", c.name, text)
		require.Contains(t, text, c.want, c.name)
	}
	require.Empty(t, n.read("up"))
	code, _, _ := n.post("/api/v1/write", protobuf, good)
	require.Equal(t, http.StatusNoContent, code, "the head's range is not poisoned")
}

// RELIABILITY I6: of a mixed request the good part is written, and what was wrong is named.
func TestPartialWrite(t *testing.T) {
	n := start(t, t.TempDir())
	now := time.Now()
	body := func(bad float64) []byte {
		raw, err := snappy.Decode(nil, rw1(now, 1, "good"))
		require.NoError(t, err)
		more, err := snappy.Decode(nil, rw1(now, bad, "twice"))
		require.NoError(t, err)
		return snappy.Encode(nil, append(raw, more...))
	}
	code, text, _ := n.post("/api/v1/write", protobuf, body(1))
	require.Equal(t, http.StatusNoContent, code, text)
	code, text, _ = n.post("/api/v1/write", protobuf, body(2))
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, text, "[sample-duplicate]")
	require.Contains(t, text, "twice")
	code, text, _ = n.post("/api/v1/write", protobuf, body(1))
	require.Equal(t, http.StatusNoContent, code, text)
}

// RELIABILITY P7, I7: limits are read again while running, and each refusal names its limit.
func TestLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yml")
	set := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	set("write: {default: {}}")
	n := start(t, t.TempDir(), "--receive.limits-config-file="+file)
	code, text, _ := n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "a"))
	require.Equal(t, http.StatusNoContent, code, text)
	set("write: {tenants: {default-tenant: {head_series_limit: 1, max_label_value_bytes: 10}}}")
	require.NoError(t, n.in.Reload(t.Context()))
	code, text, header := n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "a", "b"))
	require.Equal(t, http.StatusTooManyRequests, code, text)
	require.Contains(t, text, "[series-limit]")
	require.NotEmpty(t, header.Get("Retry-After"))
	require.Len(t, n.read("a"), 1)
	require.Empty(t, n.read("b"))
	code, text, _ = n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, strings.Repeat("x", 11)))
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, text, "[label-value-too-long]")
	set("write: {default: {typo: 1}}")
	require.ErrorContains(t, n.in.Reload(t.Context()), "typo")
	code, _, _ = n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, strings.Repeat("x", 11)))
	require.Equal(t, http.StatusBadRequest, code, "the limits before stay in force")
}

func TestInsight(t *testing.T) {
	n := start(t, t.TempDir())
	_, _, _ = n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "up", "down"))
	ask := func(path string) (out map[string]any) {
		resp, err := http.Get(n.url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
		return out
	}
	require.EqualValues(t, 2, ask("/api/v1/cardinality/label_names")["label_names_count"])
	require.EqualValues(t, 2, ask("/api/v1/cardinality/label_values?label_names[]=__name__")["series_count_total"])
	require.Len(t, ask("/api/v1/cardinality/active_series?selector=up")["data"], 1)
	require.Equal(t, "success", ask("/api/v1/status/tsdb")["status"])
	members := ask("/api/v1/ingest/ring")["data"].(map[string]any)["instances"].([]any)
	require.Len(t, members, 1)
	require.Equal(t, "ACTIVE", members[0].(map[string]any)["state"])
	resp, err := http.Get(n.url + "/api/v1/cardinality/active_series")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	code, _, _ := n.post("/api/v1/ingest/flush", "", nil)
	require.Equal(t, http.StatusNotFound, code, "off unless --web.enable-admin-api is given")
}

// TestBodyLimit: a tenant's limit of bytes holds for bodies that say their size and for those that don't.
func TestBodyLimit(t *testing.T) {
	n := start(t, t.TempDir(), "--receive.limits-config=write: {default: {request: {size_bytes_limit: 60}}, tenants: {big: {request: {size_bytes_limit: 0}}}}")
	large := rw1(time.Now(), 1, "a_metric_with_a_long_name", "another_metric_with_quite_a_long_name")
	require.Greater(t, len(large), 60)
	code, text, _ := n.post("/api/v1/write", protobuf, large)
	require.Equal(t, http.StatusRequestEntityTooLarge, code)
	require.Contains(t, text, "limit 60 (request.size_bytes_limit of tenant default-tenant)")

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/api/v1/write", io.MultiReader(bytes.NewReader(large))) // chunked
	require.NoError(t, err)
	req.Header.Set("Content-Type", protobuf)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)

	code, _, _ = n.post("/api/v1/write", protobuf, large, "THANOS-TENANT", "big")
	require.Equal(t, http.StatusNoContent, code)
	code, _, _ = n.post("/api/v1/write", protobuf, rw1(time.Now(), 1, "up"))
	require.Equal(t, http.StatusNoContent, code)
}
