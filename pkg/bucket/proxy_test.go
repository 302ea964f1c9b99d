package bucket_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/proctest"
)

// proxied starts an S3 with a handler of the test's before it. The handler calls
// next to have the request done.
func proxied(t *testing.T, handle func(w http.ResponseWriter, r *http.Request, next http.Handler)) (endpoint string) {
	target, err := url.Parse("http://" + fakeS3(t, "metrics"))
	require.NoError(t, err)
	next := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(w, r, next) }))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func isGet(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/object")
}

// A GET cut short is read on, and the caller sees all bytes once. // RELIABILITY B1
func TestGetCutShort(t *testing.T) {
	content := strings.Repeat("0123456789", 10_000)
	for name, cut := range map[string]func(w http.ResponseWriter, answer *httptest.ResponseRecorder){
		"connection lost": func(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
			copyHeader(w, answer) // with the whole Content-Length
			_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
			panic(http.ErrAbortHandler)
		},
		"as if whole": func(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
			half := answer.Body.Bytes()[:answer.Body.Len()/2]
			answer.Header().Set("Content-Length", fmt.Sprint(len(half)))
			copyHeader(w, answer)
			_, _ = w.Write(half)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var gets atomic.Int64
			h := open(t, s3YAML(proxied(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if !isGet(r) || gets.Add(1)%3 == 0 {
					next.ServeHTTP(w, r)
					return
				}
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, r)
				cut(w, answer)
			}), "metrics"))
			require.NoError(t, h.Upload(t.Context(), "object", strings.NewReader(content)))
			rc, err := h.GetRange(t.Context(), "object", 10, 90_000)
			require.NoError(t, err)
			got, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			require.True(t, content[10:90_010] == string(got))
			require.GreaterOrEqual(t, gets.Load(), int64(3))
		})
	}
}

func copyHeader(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.Code)
}

// A store that ignores ranges would have us serve bytes from the wrong place. // RELIABILITY B1, P6
func TestRangeIgnored(t *testing.T) {
	h := open(t, s3YAML(proxied(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Del("Range")
		next.ServeHTTP(w, r)
	}), "metrics"))
	require.NoError(t, h.Upload(t.Context(), "object", strings.NewReader("0123456789")))
	_, err := h.GetRange(t.Context(), "object", 3, 4)
	require.ErrorContains(t, err, "did not honour the range")
}

// A request that stands still is given up and tried again. // RELIABILITY S7
func TestStandsStill(t *testing.T) {
	var requests atomic.Int64
	release := make(chan struct{})
	h := open(t, s3YAML(proxied(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/object") && requests.Add(1) == 1 {
			<-release
			return
		}
		next.ServeHTTP(w, r)
	}), "metrics"), "--objstore.request-timeout=2s", "--objstore.max-retries=20")
	defer close(release)
	ok, err := h.Exists(t.Context(), "object")
	require.NoError(t, err)
	require.False(t, ok)
	require.GreaterOrEqual(t, requests.Load(), int64(2), "more where an answer takes seconds")
}

// A proxy that drops conditions is found out, and so is a bucket that can't be written. // RELIABILITY B5, rule 5
func TestSelfTest(t *testing.T) {
	type check struct {
		handle func(w http.ResponseWriter, r *http.Request, next http.Handler)
		want   func(t *testing.T, h *bucket.Handle, a bucket.Abilities)
	}
	deny := func(methods ...string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			for _, m := range methods {
				if r.Method == m {
					w.WriteHeader(http.StatusForbidden)
					_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>`))
					return
				}
			}
			next.ServeHTTP(w, r)
		}
	}
	for name, c := range map[string]check{
		"all well": {deny(), func(t *testing.T, _ *bucket.Handle, a bucket.Abilities) {
			require.NoError(t, a.Err(true))
			require.NoError(t, a.DeleteErr)
			require.NoError(t, a.ConditionErr)
			require.True(t, a.Conditional)
			require.InDelta(t, 0, a.Skew.Seconds(), 60)
		}},
		"conditions dropped": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			r.Header.Del("If-Match")
			r.Header.Del("If-None-Match")
			next.ServeHTTP(w, r)
		}, func(t *testing.T, _ *bucket.Handle, a bucket.Abilities) {
			require.NoError(t, a.Err(true))
			require.False(t, a.Conditional)
			require.ErrorContains(t, a.ConditionErr, "a second create was not refused")
		}},
		"read only": {deny(http.MethodPut), func(t *testing.T, h *bucket.Handle, a bucket.Abilities) {
			require.True(t, a.ReadOnly())
			require.NoError(t, a.Err(false))
			err := h.Explain(a.Err(true))
			require.ErrorContains(t, err, "s3:PutObject")
			require.ErrorContains(t, err, "[bucket-denied]")
		}},
		"no deletes": {deny(http.MethodDelete), func(t *testing.T, _ *bucket.Handle, a bucket.Abilities) {
			require.NoError(t, a.Err(true))
			require.True(t, a.Conditional)
			require.Error(t, a.DeleteErr)
		}},
		"no rights": {deny(http.MethodPut, http.MethodGet), func(t *testing.T, _ *bucket.Handle, a bucket.Abilities) {
			require.Error(t, a.Err(false))
			require.False(t, a.ReadOnly())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, s3YAML(proxied(t, c.handle), "metrics"))
			c.want(t, h, bucket.SelfTest(t.Context(), h, time.Now))
		})
	}
	t.Run("clocks differ", func(t *testing.T) {
		m := bucket.NewMemory()
		m.SetClock(func() time.Time { return time.Now().Add(time.Hour) })
		a := bucket.SelfTest(t.Context(), m, time.Now)
		require.NoError(t, a.Err(true))
		require.InDelta(t, time.Hour.Seconds(), a.Skew.Seconds(), 60)
		require.Empty(t, m.Objects())
	})
}

// Credentials rotated in the file are used at once; a bad file changes nothing. // RELIABILITY S7, K1, K3
func TestCredentialsRotated(t *testing.T) {
	defer proctest.NoLeaks(t, goleak.IgnoreCurrent(), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreAnyFunction("net/http/httptest.(*Server).goServe.func1"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
	var key atomic.Value
	key.Store("minioadmin")
	endpoint := proxied(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential="+key.Load().(string)+"/") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<?xml version="1.0"?><Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>`))
			return
		}
		next.ServeHTTP(w, r)
	})
	file := filepath.Join(t.TempDir(), "objstore.yaml")
	write := func(yaml string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(yaml), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	good := s3YAML(endpoint, "metrics")
	write(good)
	reg, logged := prometheus.NewRegistry(), &bytes.Buffer{}
	cfg := bucket.Config{ObjstoreFile: file, MaxConcurrent: 4, MaxRetries: 3, Timeout: 6e10}
	h, err := bucket.Open(t.Context(), cfg, bucket.Parts{Log: slog.New(slog.NewTextHandler(logged, nil)), Metrics: reg})
	require.NoError(t, err)
	put := func() error { return h.Upload(t.Context(), "object", strings.NewReader("x")) }
	require.NoError(t, put())

	key.Store("rotated") // the store first, as it goes
	err = put()
	require.True(t, h.IsAccessDeniedErr(err), "%v", err)
	require.ErrorContains(t, h.Explain(err), "[bucket-credentials]")
	require.NotContains(t, logged.String(), "not taken over", "nothing changed in the file")

	wait := func() { time.Sleep(1100 * time.Millisecond) } // the file is looked at once a second
	for _, bad := range []string{"type: S3\nconfig: {secret_key: s3cr3t, bucket: [", strings.ReplaceAll(good, "bucket: metrics", "bucket: other")} {
		write(bad)
		wait()
		require.Error(t, put())
		wait()
		require.Error(t, put())
	}
	require.Equal(t, 2, strings.Count(logged.String(), "not taken over"), "each bad content once:\n%s", logged)
	require.Contains(t, logged.String(), "restart to use it")
	require.NotContains(t, logged.String(), "s3cr3t")
	require.InDelta(t, 0, value(t, reg, "firnline_objstore_config_last_reload_successful"), 0)

	write(strings.ReplaceAll(good, "access_key: minioadmin", "access_key: rotated"))
	wait()
	require.NoError(t, put(), "the request that is refused is the one that learns the new key")
	require.InDelta(t, 1, value(t, reg, "firnline_objstore_config_last_reload_successful"), 0)
	require.InDelta(t, 2, value(t, reg, "firnline_objstore_config_reload_failures_total"), 0)
}

// value returns the one value of a metric without labels.
func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := bucket.Config{Objstore: "type: FILESYSTEM\nconfig: {directory: " + t.TempDir() + "}", MaxConcurrent: 4, Timeout: 6e10}
	h, err := bucket.Open(t.Context(), cfg, bucket.Parts{Log: slog.New(slog.DiscardHandler), Metrics: reg})
	require.NoError(t, err)
	require.NoError(t, h.Upload(t.Context(), "o", strings.NewReader("four")))
	_, err = h.PutIf(t.Context(), "o", nil, "")
	require.Error(t, err)
	rc, err := h.GetRange(t.Context(), "o", 1, 2)
	require.NoError(t, err)
	_, err = io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	_, err = h.Get(t.Context(), "none")
	require.Error(t, err)
	require.Error(t, h.Upload(t.Context(), "../outside", strings.NewReader("x")))
	want := `
# HELP firnline_objstore_bucket_operation_failures_total Operations that failed in the end. An object that is not there, a lost condition and a cancelled request are no failures.
# TYPE firnline_objstore_bucket_operation_failures_total counter
firnline_objstore_bucket_operation_failures_total{operation="attributes"} 0
firnline_objstore_bucket_operation_failures_total{operation="copy"} 0
firnline_objstore_bucket_operation_failures_total{operation="delete"} 0
firnline_objstore_bucket_operation_failures_total{operation="exists"} 0
firnline_objstore_bucket_operation_failures_total{operation="get"} 0
firnline_objstore_bucket_operation_failures_total{operation="get_if"} 0
firnline_objstore_bucket_operation_failures_total{operation="get_range"} 0
firnline_objstore_bucket_operation_failures_total{operation="iter"} 0
firnline_objstore_bucket_operation_failures_total{operation="list"} 0
firnline_objstore_bucket_operation_failures_total{operation="put_if"} 0
firnline_objstore_bucket_operation_failures_total{operation="upload"} 1
# HELP firnline_objstore_bucket_read_bytes_total Bytes of objects read from the bucket.
# TYPE firnline_objstore_bucket_read_bytes_total counter
firnline_objstore_bucket_read_bytes_total{operation="get_range"} 2
# HELP firnline_objstore_bucket_sent_bytes_total Bytes of objects written to the bucket.
# TYPE firnline_objstore_bucket_sent_bytes_total counter
firnline_objstore_bucket_sent_bytes_total{operation="upload"} 4
`
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(want), "firnline_objstore_bucket_operation_failures_total",
		"firnline_objstore_bucket_read_bytes_total", "firnline_objstore_bucket_sent_bytes_total"))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}
