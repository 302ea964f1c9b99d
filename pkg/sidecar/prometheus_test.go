package sidecar

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// promServer is a real Prometheus.
type promServer struct {
	t      *testing.T
	binary string
	dir    string // of TSDB and configuration
	config string // path
	url    string
	args   []string
	cmd    *exec.Cmd
	log    *os.File
}

const testConfig = "global:\n  external_labels: {cluster: eu-1, monitor: k8s, replica: a}\n"

// newPrometheus prepares a Prometheus with its configuration and an empty TSDB; start starts it.
func newPrometheus(t *testing.T, config string, args ...string) *promServer {
	t.Helper()
	p := &promServer{t: t, binary: prometheusBinary(t), dir: t.TempDir()}
	p.config = filepath.Join(p.dir, "prometheus.yml")
	p.writeConfig(config)
	require.NoError(t, os.Mkdir(p.tsdb(), 0o755))
	address := proctest.Addr(t)
	p.url = "http://" + address
	p.args = append([]string{
		"--config.file=" + p.config, "--storage.tsdb.path=" + p.tsdb(), "--web.listen-address=" + address,
		"--storage.tsdb.retention.time=100y", "--web.enable-lifecycle", "--log.level=warn",
	}, args...)
	return p
}

func prometheusBinary(t *testing.T) string {
	t.Helper()
	root := os.Getenv("FIRNLINE_PEERS")
	if root == "" {
		cache, err := os.UserCacheDir()
		require.NoError(t, err)
		root = filepath.Join(cache, "firnline")
	}
	path := filepath.Join(root, "prometheus-v0.316.0", "bin", "prometheus")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Prometheus at %s: run make deps", path)
	}
	return path
}

func (p *promServer) tsdb() string { return filepath.Join(p.dir, "data") }

func (p *promServer) writeConfig(text string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.config, []byte(text), 0o644))
}

// start starts Prometheus and waits until it is ready. The test's end stops it.
func (p *promServer) start() *promServer {
	p.t.Helper()
	var err error
	p.log, err = os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(p.t, err)
	p.cmd = exec.Command(p.binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = p.log, p.log, p.dir
	require.NoError(p.t, p.cmd.Start())
	p.t.Cleanup(p.stop)
	p.eventually("Prometheus is ready", func() bool {
		resp, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// stop stops Prometheus gracefully, which is all right when it has been already.
func (p *promServer) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
	p.cmd = nil
	_ = p.log.Close()
	if p.t.Failed() {
		out, _ := os.ReadFile(p.log.Name())
		p.t.Logf("log of Prometheus:\n%s", out)
	}
}

func (p *promServer) reload() {
	p.t.Helper()
	resp, err := http.Post(p.url+"/-/reload", "", nil)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	require.Equal(p.t, http.StatusOK, resp.StatusCode, "%s", body)
}

// write sends a sample by remote write (--web.enable-remote-write-receiver).
func (p *promServer) write(lset labels.Labels, at int64) {
	p.t.Helper()
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: prompb.FromLabels(lset, nil), Samples: []prompb.Sample{{Timestamp: at, Value: 1}},
	}}}).Marshal()
	require.NoError(p.t, err)
	req, err := http.NewRequest(http.MethodPost, p.url+"/api/v1/write", bytes.NewReader(snappy.Encode(nil, raw)))
	require.NoError(p.t, err)
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	require.Equal(p.t, 2, resp.StatusCode/100)
}

func (p *promServer) eventually(what string, ok func() bool) {
	p.t.Helper()
	require.Eventually(p.t, ok, 3*time.Minute, 50*time.Millisecond, what)
}

// fill writes series into the WAL of a Prometheus that isn't running.
func (p *promServer) fill(series []storetest.Series) *promServer {
	p.t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = int64(100 * 365 * 24 * time.Hour / time.Millisecond)
	db, err := tsdb.Open(p.tsdb(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), opts, nil)
	require.NoError(p.t, err)
	type point struct {
		lset   labels.Labels
		sample storetest.Sample
	}
	var points []point
	for _, s := range series {
		for _, sample := range s.Samples {
			points = append(points, point{s.Labels, sample})
		}
	}
	slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.sample.T, b.sample.T) })
	app := db.Appender(p.t.Context())
	for _, pt := range points {
		if pt.sample.H == nil && pt.sample.FH == nil {
			_, err = app.Append(0, pt.lset, pt.sample.T, pt.sample.V)
		} else {
			_, err = app.AppendHistogram(0, pt.lset, pt.sample.T, copyOf(pt.sample.H), copyOfFloat(pt.sample.FH))
		}
		require.NoError(p.t, err, "%s at %d", pt.lset, pt.sample.T)
	}
	require.NoError(p.t, app.Commit())
	require.NoError(p.t, db.Close())
	return p
}

func copyOf(h *histogram.Histogram) *histogram.Histogram {
	if h == nil {
		return nil
	}
	return h.Copy()
}

func copyOfFloat(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if h == nil {
		return nil
	}
	return h.Copy()
}

// testCfg returns a valid configuration for a Prometheus at an address, with short intervals.
func testCfg(t testing.TB, address string) Config {
	t.Helper()
	cfg := defaults(t)
	cfg.Prometheus.URL = address
	require.NoError(t, cfg.Prometheus.ConfigInterval.Set("100ms"))
	require.NoError(t, cfg.Prometheus.ConfigTimeout.Set("5m"))
	require.NoError(t, cfg.Prometheus.LabelsTTL.Set("0s"))
	cfg.TSDBPath = t.TempDir()
	return cfg
}

// run starts a Sidecar, which the test's end stops and waits for.
func run(t testing.TB, cfg Config) *Sidecar {
	t.Helper()
	s := newSidecar(t, cfg)
	runIt(t, s)
	return s
}

func newSidecar(t testing.TB, cfg Config) *Sidecar {
	t.Helper()
	return newShippingSidecar(t, cfg, nil)
}

func newShippingSidecar(t testing.TB, cfg Config, bkt block.Bucket) *Sidecar {
	t.Helper()
	require.NoError(t, cfg.Validate())
	s, err := New(cfg, bkt, slog.New(slog.NewTextHandler(testWriter{t}, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	return s
}

func runIt(t testing.TB, s *Sidecar) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// ready waits until a Sidecar knows its Prometheus.
func ready(t testing.TB, s *Sidecar) *Sidecar {
	t.Helper()
	require.Eventually(t, func() bool { _, err := s.watcher.current(); return err == nil }, 3*time.Minute, 10*time.Millisecond, "Prometheus is known")
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}
