package sidecar

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// TestPrometheusDown stops and starts a real Prometheus: the sidecar says so and goes on.
func TestPrometheusDown(t *testing.T) {
	p := newPrometheus(t, testConfig).fill(kinds())
	cfg := testCfg(t, p.url)
	require.NoError(t, cfg.Prometheus.ConfigInterval.Set("1h")) // so that it takes a failed request to notice
	s := run(t, cfg)
	p.eventually("it waits for Prometheus", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), p.url)
	})
	_, err := s.Services().Store.Info(t.Context())
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	_, err = readAll(t, s.Services().Store, selection("float"))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)

	p.start()
	ready(t, s)
	require.NoError(t, s.Ready())
	got, err := readAll(t, s.Services().Store, selection("float"))
	require.NoError(t, err)
	require.Len(t, got, 1)

	p.stop()
	_, err = readAll(t, s.Services().Store, selection("float"))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	p.eventually("it notices", func() bool { return s.Ready() != nil })
	require.Equal(t, "eu-1", s.watcher.labels().Get("cluster"), "blocks on disk are still those of these labels")

	p.start()
	ready(t, s)
}

// TestExternalLabels changes them under a running sidecar.
// RELIABILITY S8
func TestExternalLabels(t *testing.T) {
	p := newPrometheus(t, "global: {}\n").fill(kinds()).start()
	cfg := testCfg(t, p.url)
	cfg.TSDBPath = p.tsdb()
	bkt := bucket.NewMemory()
	s := newShippingSidecar(t, cfg, bkt)
	runIt(t, s)
	p.eventually("it names the setting", func() bool { return strings.Contains(s.Ready().Error(), "global.external_labels") })
	_, err := s.Services().Store.Info(t.Context())
	require.ErrorContains(t, err, "global.external_labels")
	require.True(t, s.watcher.labels().IsEmpty(), "nothing may be shipped")

	for _, cluster := range []string{"eu-1", "eu-2"} {
		p.writeConfig("global: {external_labels: {cluster: " + cluster + "}}\n")
		p.reload()
		p.eventually("labels are taken up", func() bool { return s.watcher.labels().Get("cluster") == cluster })
		p.eventually("it is ready", func() bool { return s.Ready() == nil })
		info, err := s.Services().Store.Info(t.Context())
		require.NoError(t, err)
		require.Equal(t, []labels.Labels{labels.FromStrings("cluster", cluster)}, info.LabelSets)
		got, err := readAll(t, s.Services().Store, selection("float"))
		require.NoError(t, err)
		require.Equal(t, `{__name__="float", cluster="`+cluster+"\"} 1\n", text(got))
	}

	p.writeConfig("global: {}\n")
	p.reload()
	p.eventually("lost labels stop everything", func() bool { return s.watcher.labels().IsEmpty() && s.Ready() != nil })
}

// flaky is a bucket that fails while it is down.
type flaky struct {
	*bucket.Memory
	down atomic.Bool
}

func (f *flaky) open() block.Bucket {
	return bucket.WithFaults(f.Memory, func(context.Context, string, string) error {
		if f.down.Load() {
			return errors.New("bucket is down")
		}
		return nil
	})
}

// TestDelayedCompaction has a Prometheus that compacts as soon as it may, with
// and without the state file, while the bucket is down.
// RELIABILITY S4, S7
func TestDelayedCompaction(t *testing.T) {
	const step, span = 5_000, 12 * 60_000
	start := int64(1_700_006_400_000)
	in := storetest.Series{Labels: labels.FromStrings("__name__", "m")}
	for at := start; at < start+span; at += step {
		in.Samples = append(in.Samples, storetest.Sample{T: at, V: float64(at)})
	}
	prepared := func(args ...string) *promServer {
		args = append(args, "--storage.tsdb.min-block-duration=1m", "--storage.tsdb.max-block-duration=9m", "--web.enable-remote-write-receiver")
		return newPrometheus(t, testConfig, args...).fill([]storetest.Series{in})
	}
	compact := func(p *promServer) { p.write(in.Labels, start+span) } // a commit looks whether there is something to compact

	control := prepared().start()
	compact(control)
	control.eventually("Prometheus compacts at once", func() bool { return highest(t, control.tsdb()) > 1 })

	p := prepared()
	p.args = append(p.args, "--storage.tsdb.delay-compact-file.path="+filepath.Join(p.tsdb(), block.DefaultShipperFilename))
	cfg := testCfg(t, p.url)
	cfg.TSDBPath = p.tsdb()
	require.NoError(t, cfg.Shipper.Interval.Set("1s"))
	bkt := &flaky{Memory: bucket.NewMemory()}
	bkt.down.Store(true)
	s := newShippingSidecar(t, cfg, bkt.open())
	runIt(t, s)
	file := filepath.Join(p.tsdb(), block.DefaultShipperFilename)
	p.eventually("the file is there before Prometheus", func() bool { _, err := os.Stat(file); return err == nil })
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.JSONEq(t, `{"version":1,"uploaded":[]}`, string(text))

	p.start()
	ready(t, s)
	compact(p)
	p.eventually("blocks are cut", func() bool { return len(blocks(t, p.tsdb())) >= 9 })
	compact(p)
	require.Never(t, func() bool { return highest(t, p.tsdb()) > 1 }, 3*time.Second, 100*time.Millisecond, "nothing is compacted before it was shipped")
	got, err := readAll(t, s.Services().Store, selection("m"))
	require.NoError(t, err, "a bucket that fails does not touch queries")
	require.Len(t, got, 1)

	bkt.down.Store(false)
	p.eventually("all is shipped", func() bool {
		for id := range blocks(t, p.tsdb()) {
			if ok, err := bkt.Exists(t.Context(), id.String()+"/meta.json"); err != nil || !ok {
				return false
			}
		}
		return true
	})
}

// TestHeld has two sidecars of equal external labels: the second says who is in
// its way, and serves live data.
// RELIABILITY S6
func TestHeld(t *testing.T) {
	bkt := bucket.NewMemory()
	sidecars := make([]*Sidecar, 2)
	for i := range sidecars {
		p := newPrometheus(t, testConfig, "--storage.tsdb.min-block-duration=1m", "--storage.tsdb.max-block-duration=1m", "--web.enable-remote-write-receiver")
		in := storetest.Series{Labels: labels.FromStrings("__name__", "m")}
		for at := int64(1_700_006_400_000); at < 1_700_006_700_000; at += 5000 {
			in.Samples = append(in.Samples, storetest.Sample{T: at, V: 1})
		}
		p.fill([]storetest.Series{in}).start().write(in.Labels, 1_700_006_700_000)
		p.eventually("blocks are cut", func() bool { return len(blocks(t, p.tsdb())) > 0 })
		cfg := testCfg(t, p.url)
		cfg.TSDBPath = p.tsdb()
		require.NoError(t, cfg.Shipper.Interval.Set("1s"))
		s := newShippingSidecar(t, cfg, bkt)
		runIt(t, s)
		ready(t, s)
		sidecars[i] = s
		if i == 0 {
			p.eventually("the first ships", func() bool { return s.shipping.shipper.Status().LastSuccess.Unix() > 0 })
			continue
		}
		p.eventually("the second is held", func() bool {
			err := s.Ready()
			return err != nil && strings.Contains(err.Error(), "another shipper has the same external labels")
		})
		_, err := readAll(t, s.Services().Store, selection("m"))
		require.NoError(t, err)
	}
	require.NoError(t, sidecars[0].Ready())
}

// blocks returns the compaction levels of the blocks in a TSDB's folder.
func blocks(t *testing.T, dir string) map[ulid.ULID]int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := map[ulid.ULID]int{}
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil {
			continue
		}
		if b, err := tsdb.OpenBlock(nil, filepath.Join(dir, e.Name()), nil, nil); err == nil {
			out[id] = b.Meta().Compaction.Level
			require.NoError(t, b.Close())
		}
	}
	return out
}

func highest(t *testing.T, dir string) int {
	most := 0
	for _, level := range blocks(t, dir) {
		most = max(most, level)
	}
	return most
}

// TestTSDBFolder: a folder that isn't right is named, and live data is served all the same.
func TestTSDBFolder(t *testing.T) {
	p := newFakeProm(t)
	p.onRead(streaming(frame(t, labels.FromStrings("__name__", "a"), chunkAt(t, 0, 3))))
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct{ name, dir, want string }{
		{"missing", filepath.Join(t.TempDir(), "absent"), "does not exist: --tsdb.path"},
		{"a file", file, "is no folder: --tsdb.path"},
		{"empty", t.TempDir(), "has neither blocks nor a WAL: --tsdb.path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testCfg(t, p.URL)
			cfg.TSDBPath = c.dir
			s := newShippingSidecar(t, cfg, bucket.NewMemory())
			runIt(t, s)
			ready(t, s)
			require.ErrorContains(t, s.Ready(), c.want)
			require.ErrorContains(t, s.Ready(), c.dir)
			got, err := readAll(t, s.Services().Store, selection("a"))
			require.NoError(t, err)
			require.Len(t, got, 1)
		})
	}
}

// TestNotPrometheus asks what is no Prometheus.
func TestNotPrometheus(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"not found":   {http.NotFound, "does --prometheus.url lead to a Prometheus"},
		"web page":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "answer can't be read"},
		"credentials": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, "--prometheus.http-client"},
		"redirect":    {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, "status 302"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"a":"`))
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat("x", 1<<16))); err != nil {
					return
				}
			}
		}, "--prometheus.max-response-bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newServer(t, c.h)
			cfg := testCfg(t, srv)
			cfg.Prometheus.MaxResponseBytes = 1 << 20
			s := run(t, cfg)
			require.Eventually(t, func() bool { return strings.Contains(s.Ready().Error(), c.want) }, 3*time.Minute, 10*time.Millisecond, "%v", s.Ready())
		})
	}
}
