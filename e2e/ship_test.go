package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/s3proxy"
	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
)

func external(cluster string) map[string]string {
	return map[string]string{"cluster": cluster, "replica": "a"}
}

// TestKilledAtEachPut lets each life of a sidecar send one object more than the
// one before, and kills it while the next is under way.
//
// RELIABILITY S1
func TestKilledAtEachPut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.prometheus("prometheus", external("x"))
	ids := []ulid.ULID{r.cut(p, 3), r.cut(p, 2)}
	lives := 0
	for ; r.shipped(p, ids...) != nil; lives++ {
		require.Less(t, lives, 30)
		before := len(r.puts())
		var next atomic.Bool
		heal := r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Put}, Key: blockKeys, After: 1}, s3proxy.Fault{Hang: true, Reached: func() { next.Store(true) }})
		life := r.launch(nil, r.sidecarArgs(p)...)
		eventually(t, time.Minute, func() error {
			if len(r.puts()) > before && next.Load() || r.shipped(p, ids...) == nil {
				return nil
			}
			return errors.New("nothing was sent, or nothing after that")
		})
		life.Kill()
		heal()
		r.complete()
	}
	require.Greater(t, lives, 8, "segments, index and meta.json of two blocks")
	r.sameAsLocal(p, ids...)
	for key, n := range r.puts() {
		require.Equal(t, 1, n, "%s was sent again though its size was right", key)
	}
}

// RELIABILITY S2: meta.json has landed, its answer is lost.
func TestMetaLandedAnswerLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.prometheus("prometheus", external("x"))
	id := r.cut(p, 2)
	heal := r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Put}, Key: regexp.MustCompile(`meta\.json$`)}, s3proxy.Fault{LoseAnswer: true})
	first := r.launch(nil, r.sidecarArgs(p)...)
	eventually(t, time.Minute, func() error {
		if !r.visible(id) {
			return errors.New("not visible")
		}
		return nil
	})
	time.Sleep(time.Second)
	first.Kill()
	heal()
	before := len(r.puts())
	r.launch(nil, r.sidecarArgs(p)...)
	eventually(t, time.Minute, func() error { return r.shipped(p, id) })
	r.sameAsLocal(p, id)
	require.Len(t, r.puts(), before, "the next life sends nothing")
	for _, req := range r.proxy.Log() {
		require.False(t, req.Op == s3proxy.Delete && blockKeys.MatchString(req.Key), "%s was deleted", req.Key)
	}
}

// RELIABILITY S3: 200, and the object is short or absent.
func TestStoreKeepsLess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key   string
		fault s3proxy.Fault
	}{
		"short index":    {`index$`, s3proxy.Fault{StoreLess: 10}},
		"absent segment": {`chunks/000002$`, s3proxy.Fault{StoreNothing: true}},
		"absent meta":    {`meta\.json$`, s3proxy.Fault{StoreNothing: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p, _ := r.prometheus("prometheus", external("x"))
			id := r.cut(p, 2)
			broken := regexp.MustCompile(`^[0-9A-Z]{26}/` + c.key)
			heal := r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Put}, Key: broken}, c.fault)
			f := r.start(r.sidecarArgs(p)...)
			eventually(t, time.Minute, func() error {
				if _, body := get(t, "http://"+f.HTTP+"/metrics"); !regexp.MustCompile(`firnline_shipper_upload_failures_total [1-9]`).MatchString(body) {
					return errors.New("the upload has not been found out")
				}
				return nil
			})
			require.Error(t, r.shipped(p, id))
			require.False(t, r.visible(id))
			heal()
			eventually(t, time.Minute, func() error { return r.shipped(p, id) })
			r.sameAsLocal(p, id)
		})
	}
}

// RELIABILITY S6: two real Prometheus servers with equal external labels.
func TestEqualExternalLabels(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, _ := r.prometheus("first", external("x"))
	second, _ := r.prometheus("second", external("x"))
	one, two := r.cut(first, 3), r.cut(second, 2)
	const lease = "--shipper.lease-ttl=1m" // far more than the first may stand still
	a := r.start(r.sidecarArgs(first, lease)...)
	eventually(t, time.Minute, func() error { return r.shipped(first, one) })
	b := r.launch(nil, r.sidecarArgs(second, lease)...)
	eventually(t, time.Minute, func() error { return unready(t, b, "another shipper has the same external labels", "external_labels") })
	_, metrics := get(t, "http://"+b.HTTP+"/metrics")
	require.Contains(t, metrics, "firnline_shipper_held 1\n")
	require.Error(t, r.shipped(second, two))
	require.False(t, r.visible(two))

	q := r.querier("--endpoint=" + b.GRPC)
	eventually(t, time.Minute, func() error { return servesLive(t, q) })

	a.Kill()
	eventually(t, time.Minute, func() error { return r.shipped(second, two) })
	r.sameAsLocal(second, two)
	eventually(t, time.Minute, func() error { return stack.OK(t.Context(), "http://"+b.HTTP+"/-/ready") })
}

// servesLive is nil when a querier answers from its sidecar.
func servesLive(t *testing.T, q *stack.Firnline) error {
	a, err := stack.Ask(t.Context(), "http://"+q.HTTP, "labels", map[string][]string{"partial_response": {"false"}})
	if err != nil {
		return err
	}
	if a.Status != "success" || !strings.Contains(string(a.Data), `"cluster"`) {
		return fmt.Errorf("%s %s", a.Error, a.Data)
	}
	return nil
}

// RELIABILITY S7: the bucket refuses everything for a while; then its
// credentials are wrong, until the file has others.
func TestBucketFailsForAWhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.prometheus("prometheus", external("x"))
	f := r.start(r.sidecarArgs(p)...)
	q := r.querier("--endpoint=" + f.GRPC)
	eventually(t, time.Minute, func() error { return servesLive(t, q) })
	heal := r.proxy.Inject(s3proxy.Match{}, s3proxy.Fault{Status: http.StatusServiceUnavailable})
	ids := []ulid.ULID{r.cut(p, 2), r.cut(p, 5), r.cut(p, 3)} // not in the order of their data
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		require.NoError(t, servesLive(t, q), "queries are unaffected")
	}
	require.Error(t, r.shipped(p, ids[0]))
	heal()
	eventually(t, time.Minute, func() error { return r.shipped(p, ids...) })
	r.sameAsLocal(p, ids...)
	// The oldest data first: 1, 2, 0. A pass that was under way when the bucket
	// came back may send the end of that before the next one sends the rest, and
	// may have begun before the last was cut.
	require.Contains(t, [][]ulid.ULID{{ids[1], ids[2], ids[0]}, {ids[2], ids[0], ids[1]}, {ids[0], ids[1], ids[2]}, {ids[1], ids[0], ids[2]}}, r.metaOrder())

	good, err := os.ReadFile(r.objstore)
	require.NoError(t, err)
	r.write(r.objstore, strings.Replace(string(good), stack.SecretKey, "expired", 1))
	eventually(t, time.Minute, func() error { // until it is in use
		if !slices.ContainsFunc(r.proxy.Log(), func(req s3proxy.Request) bool { return req.Status == http.StatusForbidden }) {
			_ = r.cut(p, 30+int(time.Now().Unix()%1000)) // something to ask the bucket for
			time.Sleep(2 * time.Second)
			return errors.New("the old credentials are still used")
		}
		return nil
	})
	id := r.cut(p, 10)
	r.write(r.objstore, string(good))
	eventually(t, time.Minute, func() error { return r.shipped(p, id) })
	r.sameAsLocal(p, id)
}

// metaOrder returns the blocks in the order in which they became visible.
func (r *rig) metaOrder() (out []ulid.ULID) {
	for _, req := range r.proxy.Log() {
		id, rel, ok := block.SplitName(req.Key)
		if ok && rel == block.MetaFilename && req.Op == s3proxy.Put && req.Status == http.StatusOK {
			out = append(out, id)
		}
	}
	return out
}

// RELIABILITY S8: external labels are missing, come, and change.
func TestExternalLabelsLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, cfg := r.prometheus("prometheus", nil)
	old := r.cut(p, 3)
	f := r.launch(nil, r.sidecarArgs(p)...)
	eventually(t, time.Minute, func() error { return unready(t, f, "external_labels") })
	time.Sleep(2 * time.Second)
	require.False(t, r.visible(old))

	set := func(cluster string) {
		cfg.ExternalLabels = external(cluster)
		require.NoError(t, p.Configure(cfg))
		resp, err := http.Post(p.URL+"/-/reload", "", nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		eventually(t, time.Minute, func() error {
			return r.shipped(p, old)
		})
	}
	set("x")
	require.Equal(t, "x", r.clusterOf(old))
	set("y")
	eventually(t, time.Minute, func() error { // the sidecar has noted that there are others from now on
		own, err := os.ReadFile(filepath.Join(p.DataDir, "firnline.shipper.json"))
		if err == nil && !regexp.MustCompile(`"cluster": ?"y"`).Match(own) {
			err = fmt.Errorf("its state is %s", own)
		}
		return err
	})
	later := r.cut(p, 2)
	eventually(t, time.Minute, func() error { return r.shipped(p, later) })
	require.Equal(t, "y", r.clusterOf(later))
	require.Equal(t, "x", r.clusterOf(old), "what was cut before keeps its labels")
}

func (r *rig) clusterOf(id ulid.ULID) string {
	r.t.Helper()
	m, err := block.ParseMeta(id, r.object(block.Name(id, block.MetaFilename)))
	require.NoError(r.t, err)
	return m.Thanos.Labels["cluster"]
}

// TestCrashPoints kills a sidecar at its first fsync or rename of each file it
// keeps, or has that fail for want of space; the next life goes on.
//
// RELIABILITY S9, S1
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace on this machine")
	}
	r := newRig(t)
	p, _ := r.prometheus("prometheus", external("x"))
	id := r.cut(p, 2)
	kills := 0
	for _, inject := range []string{"fsync:signal=KILL:when=1", "fsync:signal=KILL:when=2", "/^rename:signal=KILL:when=1", "fsync:error=ENOSPC:when=1"} {
		for _, path := range []string{"", block.DefaultShipperFilename + ".tmp", block.DefaultShipperFilename, "firnline.shipper.json.tmp", "firnline.shipper.json"} {
			r.forget(p)
			life := r.launch([]string{strace, "-f", "-qq", "-o", "/dev/null", "-P", filepath.Join(p.DataDir, path),
				"-e", "trace=fsync,/^rename", "-e", "inject=" + inject}, r.sidecarArgs(p)...)
			eventually(t, time.Minute, func() error {
				select {
				case <-life.Done():
					return nil
				default:
				}
				if strings.Contains(life.Tail(20), "no space left on device") {
					return nil
				}
				return r.shipped(p, id)
			})
			if r.shipped(p, id) != nil {
				kills++
			}
			life.Kill()
			r.complete()
			life = r.launch(nil, r.sidecarArgs(p)...)
			eventually(t, time.Minute, func() error { return r.shipped(p, id) })
			life.Kill()
			r.sameAsLocal(p, id)
		}
	}
	t.Logf("%d lives ended before the block was listed", kills)
	require.Greater(t, kills, 4, "lives that ended before the block was listed")
}

// forget empties the bucket and removes the shipper's state.
func (r *rig) forget(p *stack.Prometheus) {
	r.t.Helper()
	for name := range r.objects() {
		require.NoError(r.t, r.minio.RemoveObject(r.t.Context(), stack.Bucket, name, minio.RemoveObjectOptions{}))
	}
	for _, name := range []string{block.DefaultShipperFilename, "firnline.shipper.json"} {
		if err := os.Remove(filepath.Join(p.DataDir, name)); !errors.Is(err, os.ErrNotExist) {
			require.NoError(r.t, err)
		}
	}
}
