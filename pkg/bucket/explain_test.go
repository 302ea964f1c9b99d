package bucket_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/proctest"
)

// startup is what a component does with its bucket at the start: its error, in an operator's words.
func startup(t *testing.T, yaml string) error {
	t.Helper()
	h := open(t, yaml, "--objstore.max-retries=0", "--objstore.request-timeout=2m")
	return h.Explain(bucket.SelfTest(t.Context(), h, time.Now).Err(true))
}

// What an operator gets wrong is told apart at the start, by a real MinIO.
func TestStartupErrors(t *testing.T) {
	endpoint, admin := startMinIO(t)
	require.NoError(t, admin.MakeBucket(context.Background(), "metrics", minio.MakeBucketOptions{}))
	good := s3YAML(endpoint, "metrics")
	require.NoError(t, startup(t, good))
	for _, c := range []struct {
		name, old, new string
		cause          bucket.Cause
		says           []string
	}{
		{"missing bucket", "bucket: metrics", "bucket: metrisc", bucket.CauseMissing, []string{`create bucket "metrisc"`, endpoint}},
		{"unknown key", "access_key: minioadmin", "access_key: someone", bucket.CauseCredentials, []string{"access_key"}},
		{"wrong secret", "secret_key: minioadmin", "secret_key: s3cr3tcanary", bucket.CauseCredentials, []string{"secret_key does not belong"}},
		{"wrong region", "region: us-east-1", "region: eu-west-7", bucket.CauseRegion, []string{"another region (us-east-1)", "region eu-west-7"}},
		{"wrong port", "endpoint: " + endpoint, "endpoint: " + proctest.Addr(t), bucket.CauseUnreachable, []string{"nothing listens"}},
		{"HTTPS asked", "insecure: true", "insecure: false", bucket.CauseScheme, []string{"insecure: true"}},
		{"no such name", "endpoint: " + endpoint, "endpoint: nowhere.invalid", bucket.CauseUnreachable, []string{"nowhere.invalid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			yaml := strings.Replace(good, c.old, c.new, 1)
			require.NotEqual(t, good, yaml)
			err := startup(t, yaml)
			var explained *bucket.Explanation
			require.ErrorAs(t, err, &explained)
			t.Log(err)
			require.Equal(t, c.cause, explained.Cause, "%v", err)
			for _, s := range append(c.says, "S3 bucket", "["+string(c.cause)+"]") {
				require.ErrorContains(t, err, s)
			}
			require.NotContains(t, fmt.Sprintf("%v %+v", err, err), "s3cr3t")
			require.NotContains(t, fmt.Sprintf("%+v", err), ".go:", "no stack trace")
		})
	}
}

func TestStartupCertificate(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	yaml := strings.Replace(s3YAML(strings.TrimPrefix(srv.URL, "https://"), "metrics"), "insecure: true", "insecure: false", 1)
	err := startup(t, yaml)
	require.ErrorContains(t, err, "tls_config.ca_file")
	require.ErrorContains(t, err, "[bucket-certificate]")

	require.ErrorContains(t, startup(t, strings.Replace(yaml, "insecure: false", "insecure: true", 1)), "[bucket-")

	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	err = startup(t, yaml+"  http_config: {tls_config: {ca_file: "+ca+"}}\n")
	require.NotContains(t, err.Error(), "certificate", "with its authority it is trusted")
}

func TestStartupFolder(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root may write anywhere: what stands in the way is a file.
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "firnline"), nil, 0o600))
		err := startup(t, "type: FILESYSTEM\nconfig: {directory: "+dir+"}")
		require.ErrorContains(t, err, dir)
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	require.ErrorContains(t, startup(t, "type: FILESYSTEM\nconfig: {directory: "+dir+"}"), "[bucket-denied]")
}

// Every secret is a canary; no error, log line or metric shows it. // RELIABILITY section 5, Secrets
func TestSecretsNeverShow(t *testing.T) {
	endpoint, admin := startMinIO(t)
	require.NoError(t, admin.MakeBucket(context.Background(), "metrics", minio.MakeBucketOptions{}))
	var seen bytes.Buffer
	reg := prometheus.NewRegistry()
	yaml := s3YAML(endpoint, "metrics") + "  session_token: canary-token\n  trace: {enable: true}\n"
	yaml = strings.ReplaceAll(yaml, "secret_key: minioadmin", "secret_key: canary-secret")
	cfg := bucket.Config{Objstore: yaml, MaxConcurrent: 4, Timeout: 6e10}
	h, err := bucket.Open(t.Context(), cfg, bucket.Parts{
		Log: slog.New(slog.NewTextHandler(&seen, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: reg,
	})
	require.NoError(t, err)
	log := func(err error) { _, _ = fmt.Fprintf(&seen, "%v\n%+v\n%v\n%q\n", err, err, h.Explain(err), err) }
	a := bucket.SelfTest(t.Context(), h, time.Now)
	log(a.ListErr)
	log(h.Upload(t.Context(), "o", strings.NewReader("x")))
	_, err = h.Get(t.Context(), "o")
	log(err)
	_, err = h.PutIf(t.Context(), "o", []byte("x"), "")
	log(err)
	_, err = h.Attributes(t.Context(), "o")
	log(err)
	_, _ = fmt.Fprintf(&seen, "%+v %#v %v\n", h.Target, h.Target, cfg.Given())
	families, err := reg.Gather()
	require.NoError(t, err)
	_, _ = fmt.Fprintln(&seen, families)
	require.Contains(t, seen.String(), "InvalidTokenId", "something was seen at all")
	require.Contains(t, seen.String(), "s3TraceMsg")
	require.NotContains(t, seen.String(), "canary")
}

// Each request passes its two fault points, by name. // RELIABILITY rule 7
func TestFaultPoints(t *testing.T) {
	down := errors.New("down")
	fail, passed := "", map[string]bool{}
	m := bucket.NewMemory()
	b := bucket.WithFaults(m, func(_ context.Context, point, object string) error {
		passed[point] = true
		if point == fail {
			return fmt.Errorf("%s: %w", object, down)
		}
		return nil
	})
	require.Same(t, m, bucket.WithFaults(m, nil), "no hook, no layer")
	ctx := t.Context()
	for range 2 {
		require.NoError(t, b.Upload(ctx, "o", strings.NewReader("x")))
		rc, err := b.Get(ctx, "o")
		require.NoError(t, err)
		_, err = io.ReadAll(rc)
		require.NoError(t, err)
		_, err = b.GetRange(ctx, "o", 0, 1)
		require.NoError(t, err)
		_, err = b.Exists(ctx, "o")
		require.NoError(t, err)
		_, err = b.Attributes(ctx, "o")
		require.NoError(t, err)
		_, etag, err := b.GetIf(ctx, "o", "")
		require.NoError(t, err)
		_, err = b.PutIf(ctx, "o", []byte("y"), etag)
		require.NoError(t, err)
		require.NoError(t, b.Iter(ctx, "", func(string) error { return nil }))
		require.NoError(t, b.ListSizes(ctx, "", func(bucket.Object) error { return nil }))
		require.NoError(t, b.Copy(ctx, "o", "o"))
		require.NoError(t, b.Delete(ctx, "o"))
	}
	for _, p := range bucket.FaultPoints() {
		require.True(t, passed[p], p)
	}
	require.Len(t, passed, len(bucket.FaultPoints()))

	fail = "bucket/upload/before"
	require.ErrorIs(t, b.Upload(ctx, "never", strings.NewReader("x")), down)
	require.Empty(t, m.Objects())
	fail = "bucket/upload/after"
	require.ErrorIs(t, b.Upload(ctx, "landed", strings.NewReader("x")), down)
	require.Contains(t, m.Objects(), "landed")
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  bucket.Config
		want []string
	}{
		{bucket.Config{MaxConcurrent: 1, Timeout: 1}, nil},
		{bucket.Config{Objstore: "a", ObjstoreFile: "b", MaxRetries: -1}, []string{
			"--objstore.config and --objstore.config-file", "--objstore.max-concurrent-requests=0", "--objstore.max-retries=-1", "--objstore.request-timeout=0s",
		}},
	} {
		err := c.cfg.Validate()
		require.Equal(t, c.want == nil, err == nil)
		for _, w := range c.want {
			require.ErrorContains(t, err, w)
		}
	}
	parts := bucket.Parts{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()}
	_, err := bucket.Open(t.Context(), bucket.Config{}, parts)
	require.ErrorContains(t, err, "--objstore.config-file")
	_, err = bucket.Open(t.Context(), bucket.Config{ObjstoreFile: "/nowhere/o.yaml"}, parts)
	require.ErrorContains(t, err, "/nowhere/o.yaml")
	_, err = bucket.Open(t.Context(), bucket.Config{Objstore: "type: S3\nconfg: {}"}, parts)
	require.ErrorContains(t, err, "--objstore.config: objstore config: line 2: unknown key confg")
}
