package bucket_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
)

// Run looks at the file by itself, and ends with its context. // RELIABILITY K1
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "objstore.yaml")
		good := "type: FILESYSTEM\nconfig: {directory: " + filepath.Join(dir, "bucket") + "}\n"
		write := func(yaml string) { require.NoError(t, os.WriteFile(file, []byte(yaml), 0o600)) }
		write(good)
		reg := prometheus.NewRegistry()
		cfg := bucket.Config{ObjstoreFile: file, MaxConcurrent: 4, Timeout: 6e10}
		h, err := bucket.Open(t.Context(), cfg, bucket.Parts{Log: slog.New(slog.DiscardHandler), Metrics: reg})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()

		reloads := func() (ok, failed float64) {
			time.Sleep(11 * time.Second)
			return value(t, reg, "firnline_objstore_config_reloads_total"), value(t, reg, "firnline_objstore_config_reload_failures_total")
		}
		for _, step := range []struct {
			yaml       string
			ok, failed float64
		}{
			{good, 0, 0}, {"", 0, 1}, {"type: [", 0, 2}, {"type: [", 0, 2}, {good, 1, 2}, {good, 1, 2}, {good + "# a comment\n", 2, 2},
		} {
			write(step.yaml)
			ok, failed := reloads()
			require.Equal(t, []float64{step.ok, step.failed}, []float64{ok, failed}, "%q", step.yaml)
			_, err := h.Exists(t.Context(), "o")
			require.NoError(t, err)
		}
		require.NoError(t, os.Remove(file))
		_, failed := reloads()
		require.InDelta(t, 3, failed, 0, "a file that is gone")
		_, failed = reloads()
		require.InDelta(t, 3, failed, 0, "is told once")
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, h.Close())
	})
}

// Objects above part_size go up in parts, from files and from streams.
func TestMinIOMultipart(t *testing.T) {
	endpoint, admin := startMinIO(t)
	require.NoError(t, admin.MakeBucket(context.Background(), "metrics", minio.MakeBucketOptions{}))
	h := open(t, s3YAML(endpoint, "metrics")+"  part_size: 5242880\n")
	content := make([]byte, 12<<20)
	_, _ = rand.Read(content) // never fails
	file := filepath.Join(t.TempDir(), "index")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	for name, r := range map[string]io.Reader{
		"file": f, "bytes": bytes.NewReader(content), "stream": io.LimitReader(bytes.NewReader(content), 1<<40),
	} {
		if name == "stream" {
			r = io.MultiReader(r) // of no known size
		}
		require.NoError(t, h.Upload(t.Context(), name, r), name)
		rc, err := h.Get(t.Context(), name)
		require.NoError(t, err)
		got, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		require.True(t, bytes.Equal(content, got), name)
		rc, err = h.GetRange(t.Context(), name, 6<<20, 1000)
		require.NoError(t, err)
		got, err = io.ReadAll(rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		require.True(t, bytes.Equal(content[6<<20:6<<20+1000], got), name)
	}
	sizes := ""
	require.NoError(t, h.ListSizes(t.Context(), "", func(o bucket.Object) error {
		sizes += fmt.Sprintf("%s %d\n", o.Name, o.SizeBytes)
		return nil
	}))
	require.Equal(t, "bytes 12582912\nfile 12582912\nstream 12582912\n", sizes)
}
