package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/s3proxy"
	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
)

// rig is a MinIO behind a fault proxy, and what a test starts beside them.
type rig struct {
	t        *testing.T
	dir      string
	hour     time.Time     // full, at the beginning: blocks of so many hours ago are so long before it
	minio    *minio.Client // past the proxy
	proxy    *s3proxy.Proxy
	objstore string // path of the configuration
	started  int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := bareRig(t)
	addr, err := stack.FreeAddr()
	require.NoError(t, err)
	m, err := stack.StartMinIO(t.Context(), r.dir, addr, stack.Bucket)
	require.NoError(t, err)
	t.Cleanup(m.Kill)
	r.minio, err = m.Client()
	require.NoError(t, err)
	r.proxy, err = s3proxy.Start(s3proxy.Target{Addr: addr, AccessKey: stack.AccessKey, SecretKey: stack.SecretKey})
	require.NoError(t, err)
	t.Cleanup(r.proxy.Close)
	r.objstore = filepath.Join(r.dir, "objstore.yml")
	r.write(r.objstore, stack.ObjstoreYAML(r.proxy.Addr(), stack.Bucket))
	return r
}

func (r *rig) write(path, content string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(r.t, os.Rename(path+".new", path))
}

// prometheus runs one that scrapes itself.
func (r *rig) prometheus(name string, external map[string]string) (*stack.Prometheus, stack.PrometheusConfig) {
	return r.prometheusOf(stack.PrometheusConfig{Name: name, ExternalLabels: external})
}

func (r *rig) prometheusOf(cfg stack.PrometheusConfig) (*stack.Prometheus, stack.PrometheusConfig) {
	r.t.Helper()
	var err error
	cfg.Addr, err = stack.FreeAddr()
	require.NoError(r.t, err)
	if cfg.Targets == nil {
		cfg.Targets = []string{cfg.Addr}
	}
	p, err := stack.StartPrometheus(r.t.Context(), r.dir, cfg)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { p.Kill() })
	return p, cfg
}

// launch runs a component and does not wait until it is ready.
func (r *rig) launch(prefix []string, args ...string) *stack.Firnline {
	r.t.Helper()
	on, err := stack.FreeAddresses()
	require.NoError(r.t, err)
	return r.launchOn(on, prefix, args...)
}

// launchOn is launch on addresses that are given.
func (r *rig) launchOn(on stack.Addresses, prefix []string, args ...string) *stack.Firnline {
	r.t.Helper()
	r.started++
	f, err := stack.LaunchFirnlineOn(r.dir, fmt.Sprintf("%s-%d", args[0], r.started), on, prefix, args...)
	require.NoError(r.t, err)
	r.t.Cleanup(func() {
		f.Kill()
		if r.t.Failed() {
			r.t.Logf("end of %s:\n%s", f.Name, f.Tail(12))
		}
	})
	return f
}

// start runs a component and waits until it is ready.
func (r *rig) start(args ...string) *stack.Firnline {
	r.t.Helper()
	f := r.launch(nil, args...)
	eventually(r.t, time.Minute, func() error { return stack.OK(r.t.Context(), "http://"+f.HTTP+"/-/ready") })
	return f
}

// querier runs one that has time enough for whatever it is asked, on a busy machine, too.
func (r *rig) querier(args ...string) *stack.Firnline {
	r.t.Helper()
	return r.start(append([]string{"query", "--endpoint.info-timeout=1m", "--query.timeout=20m"}, args...)...)
}

func (r *rig) sidecarArgs(p *stack.Prometheus, args ...string) []string {
	return append([]string{"sidecar", "--prometheus.url=" + p.URL, "--tsdb.path=" + p.DataDir, "--objstore.config-file=" + r.objstore,
		"--shipper.interval=1s", "--shipper.max-backoff=2s", "--shipper.lease-ttl=10s", "--prometheus.get_config_interval=1s"}, args...)
}

// cut puts a block of an hour, so many before the test's, into the data folder,
// in three segments; all of it at once, as Prometheus does.
func (r *rig) cut(p *stack.Prometheus, hoursAgo int) ulid.ULID {
	r.t.Helper()
	beside := filepath.Join(r.dir, "cut")
	id := blocktest.Write(r.t, beside, r.series(hoursAgo), labels.EmptyLabels(), blocktest.Options{SegmentBytes: 12_000}).ULID
	require.NoError(r.t, os.Rename(filepath.Join(beside, id.String()), filepath.Join(p.DataDir, id.String())))
	return id
}

func (r *rig) series(hoursAgo int) (out []blocktest.Series) {
	start := r.hour.Add(-time.Duration(hoursAgo) * time.Hour).UnixMilli()
	for i := range 20 {
		out = append(out, blocktest.Series{
			Labels:  labels.FromStrings("__name__", "shipped", "pod", fmt.Sprint(i)),
			Samples: blocktest.Floats(start, start+3_600_000, 15_000, func(t int64) float64 { return float64(t%100_003) / 7 * float64(i+1) }),
		})
	}
	return out
}

// objects lists the bucket by name, with sizes.
func (r *rig) objects() map[string]int64 {
	r.t.Helper()
	out := map[string]int64{}
	for o := range r.minio.ListObjects(context.Background(), stack.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		require.NoError(r.t, o.Err)
		out[o.Key] = o.Size
	}
	return out
}

func (r *rig) object(key string) []byte {
	r.t.Helper()
	b, there := r.read(key)
	require.True(r.t, there, "no %s", key)
	return b
}

// read returns an object, and whether there is one.
func (r *rig) read(key string) ([]byte, bool) {
	r.t.Helper()
	o, err := r.minio.GetObject(context.Background(), stack.Bucket, key, minio.GetObjectOptions{})
	require.NoError(r.t, err)
	defer o.Close()
	b, err := io.ReadAll(o)
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil, false
	}
	require.NoError(r.t, err, key)
	return b, true
}

func (r *rig) visible(id ulid.ULID) bool {
	_, there := r.objects()[block.Name(id, block.MetaFilename)]
	return there
}

// shipped is nil once Prometheus is told that all blocks have been shipped.
func (r *rig) shipped(p *stack.Prometheus, ids ...ulid.ULID) error {
	list := r.listed(p)
	for _, id := range ids {
		if !list[id.String()] {
			return fmt.Errorf("block %s is not listed as shipped", id)
		}
	}
	return nil
}

func (r *rig) listed(p *stack.Prometheus) map[string]bool {
	data, err := os.ReadFile(filepath.Join(p.DataDir, block.DefaultShipperFilename))
	if err != nil {
		return nil
	}
	var list struct{ Uploaded []string }
	require.NoError(r.t, json.Unmarshal(data, &list), "the list is replaced by rename: %s", data)
	out := map[string]bool{}
	for _, id := range list.Uploaded {
		out[id] = true
	}
	return out
}

// sameAsLocal compares index and chunks in the bucket with the local ones, byte for byte.
func (r *rig) sameAsLocal(p *stack.Prometheus, ids ...ulid.ULID) {
	r.t.Helper()
	for _, id := range ids {
		files, err := filepath.Glob(filepath.Join(p.DataDir, id.String(), "chunks", "*"))
		require.NoError(r.t, err)
		require.NotEmpty(r.t, files)
		for _, f := range append(files, filepath.Join(p.DataDir, id.String(), "index")) {
			local, err := os.ReadFile(f)
			require.NoError(r.t, err)
			key, err := filepath.Rel(p.DataDir, f)
			require.NoError(r.t, err)
			require.True(r.t, string(local) == string(r.object(filepath.ToSlash(key))), "%s differs", key)
		}
		_, err = block.ParseMeta(id, r.object(block.Name(id, block.MetaFilename)))
		require.NoError(r.t, err)
	}
}

// complete checks that whatever is visible is whole.
func (r *rig) complete() {
	r.t.Helper()
	objects := r.objects()
	for name := range objects {
		id, rel, ok := block.SplitName(name)
		if !ok || rel != block.MetaFilename {
			continue
		}
		m, err := block.ParseMeta(id, r.object(name))
		require.NoError(r.t, err)
		for _, f := range m.Thanos.Files {
			if f.RelPath != block.MetaFilename {
				require.Equal(r.t, f.SizeBytes, objects[block.Name(id, f.RelPath)], "%s of a visible block", f.RelPath)
			}
		}
	}
}

// blockKeys are objects of blocks, as opposed to leases.
var blockKeys = regexp.MustCompile(`^[0-9A-Z]{26}/`)

// puts counts the PUTs that were answered, by key.
func (r *rig) puts() map[string]int {
	out := map[string]int{}
	for _, req := range r.proxy.Log() {
		if req.Op == s3proxy.Put && req.Status == 200 && blockKeys.MatchString(req.Key) {
			out[req.Key]++
		}
	}
	return out
}

// get returns status and body; status 0 where there is no answer.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// unready is nil once a component is not ready and says all of these words.
func unready(t *testing.T, f *stack.Firnline, words ...string) error {
	t.Helper()
	status, body := get(t, "http://"+f.HTTP+"/-/ready")
	if status != http.StatusServiceUnavailable {
		return fmt.Errorf("status %d: %s", status, body)
	}
	for _, w := range words {
		if !strings.Contains(body, w) {
			return fmt.Errorf("%q is missing in: %s", w, body)
		}
	}
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
