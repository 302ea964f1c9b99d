package bucket_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/bucket/buckettest"
	"github.com/firnline/firnline/pkg/proctest"
)

// open opens a bucket as the command line does, with all its layers.
func open(t *testing.T, yaml string, args ...string) *bucket.Handle {
	t.Helper()
	var cfg bucket.Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	if yaml != "" {
		args = append(args, "--objstore.config="+yaml)
	}
	require.NoError(t, fs.Parse(args))
	require.NoError(t, cfg.Validate())
	h, err := bucket.Open(t.Context(), cfg, bucket.Parts{
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Tracers: noop.NewTracerProvider(),
	})
	require.NoError(t, err)
	return h
}

func s3YAML(endpoint, name string) string {
	return fmt.Sprintf(`
type: S3
prefix: some/prefix
config:
  bucket: %s
  endpoint: %s
  region: us-east-1
  insecure: true
  access_key: minioadmin
  secret_key: minioadmin
  bucket_lookup_type: path
`, name, endpoint)
}

// fakeS3 starts an S3 in this process and returns its address.
func fakeS3(t *testing.T, buckets ...string) (endpoint string) {
	backend := s3mem.New()
	for _, b := range buckets {
		require.NoError(t, backend.CreateBucket(b))
	}
	handler := gofakes3.New(backend).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength <= 0 { // the fake wants the header of an empty body too
			r.Header.Set("Content-Length", "0")
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestFakeS3(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		return open(t, s3YAML(fakeS3(t, "metrics"), "metrics"))
	})
}

func TestFileSystem(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		return open(t, "type: FILESYSTEM\nprefix: p\nconfig: {directory: "+t.TempDir()+"}")
	})
}

// minioBinary returns the path of the real MinIO, which `make deps` builds.
func minioBinary(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("FIRNLINE_PEERS")
	if dir == "" {
		cache, err := os.UserCacheDir()
		require.NoError(t, err)
		dir = filepath.Join(cache, "firnline")
	}
	found, err := filepath.Glob(filepath.Join(dir, "minio-*", "bin", "minio"))
	require.NoError(t, err)
	require.NotEmpty(t, found, "no MinIO under %s: run make deps", dir)
	return found[len(found)-1]
}

// startMinIO runs a MinIO until the test ends and returns its address and a client for it.
func startMinIO(t *testing.T) (endpoint string, admin *minio.Client) {
	t.Helper()
	binary := minioBinary(t)
	endpoint = proctest.Addr(t)
	cmd := exec.Command(binary, "server", "--quiet", "--address", endpoint, "--console-address", proctest.Addr(t), t.TempDir())
	cmd.Env = append(os.Environ(), "MINIO_UPDATE=off", "MINIO_BROWSER=off", "MINIO_SITE_REGION=us-east-1", "MINIO_ROOT_USER=minioadmin", "MINIO_ROOT_PASSWORD=minioadmin", "HOME="+t.TempDir())
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // reports the kill
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + endpoint + "/minio/health/live")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK
	}, 5*time.Minute, 50*time.Millisecond, "MinIO does not start")
	admin, err := minio.New(endpoint, &minio.Options{Creds: credentials.NewStaticV4("minioadmin", "minioadmin", "")})
	require.NoError(t, err)
	return endpoint, admin
}

func TestMinIO(t *testing.T) {
	endpoint, admin := startMinIO(t)
	n := 0
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		n++
		name := fmt.Sprintf("metrics-%d", n)
		require.NoError(t, admin.MakeBucket(context.Background(), name, minio.MakeBucketOptions{}))
		return open(t, s3YAML(endpoint, name))
	})
}

// fakeGCS starts a GCS in this process and returns the YAML of a bucket on it.
// The YAML has no way to go without credentials, so a token is issued here too.
func fakeGCS(t *testing.T, name string) (yaml string) {
	front := httptest.NewUnstartedServer(nil)
	t.Cleanup(front.Close)
	address := front.Listener.Addr().String()
	srv, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, Scheme: "http", ExternalURL: "http://" + address, PublicHost: address,
	})
	require.NoError(t, err)
	front.Config.Handler = srv.HTTPHandler()
	front.Start()
	srv.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: name})
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}`))
	}))
	t.Cleanup(tokens.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", address)

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "p", "private_key_id": "k", "client_id": "1",
		"client_email": "firnline@example.com", "token_uri": tokens.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	require.NoError(t, err)
	return fmt.Sprintf("type: GCS\nprefix: p\nconfig:\n  bucket: %s\n  service_account: |-\n    %s\n", name, account)
}

func TestFakeGCS(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return open(t, fakeGCS(t, "metrics")) })
}
