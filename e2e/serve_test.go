package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/s3proxy"
	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
)

// upload puts a block of an hour into the bucket, past the proxy.
func (r *rig) upload(cluster string, hoursAgo int) block.Meta {
	r.t.Helper()
	bkt := r.direct()
	defer bkt.Close()
	dir := r.t.TempDir()
	m := blocktest.Write(r.t, dir, r.series(hoursAgo), labels.FromStrings("cluster", cluster), blocktest.Options{SegmentBytes: 12_000})
	return blocktest.Upload(r.t, bkt, dir, m)
}

// direct is the bucket, past the proxy.
func (r *rig) direct() *bucket.Handle {
	r.t.Helper()
	bkt, err := bucket.Open(context.Background(), bucket.Config{
		Objstore: stack.ObjstoreYAML(r.minio.EndpointURL().Host, stack.Bucket), MaxConcurrent: 4, MaxRetries: 3, Timeout: 60_000_000_000,
	}, bucket.Parts{Log: quiet(), Metrics: prometheus.NewRegistry()})
	require.NoError(r.t, err)
	return bkt
}

// historian is a store gateway through the proxy and a querier over it.
func (r *rig) historian(args ...string) *stack.Firnline {
	s := r.store(args...)
	return r.start("query", "--endpoint="+s.GRPC)
}

func (r *rig) store(args ...string) *stack.Firnline {
	return r.start(append([]string{"store", "--data-dir=" + r.t.TempDir(), "--objstore.config-file=" + r.objstore,
		"--sync-block-duration=1s", "--index-cache-size=0"}, args...)...)
}

// count asks how many samples of each series there are in the last hours.
func count(t *testing.T, q *stack.Firnline, hours int, partial bool) *stack.Answer {
	t.Helper()
	a, err := stack.Ask(t.Context(), "http://"+q.HTTP, "query", url.Values{
		"query":            {fmt.Sprintf("sum by (cluster) (count_over_time(shipped[%dh]))", hours)},
		"partial_response": {fmt.Sprint(partial)},
	})
	require.NoError(t, err)
	return a
}

func hasCount(a *stack.Answer, cluster string, want int) error {
	result, err := a.Result()
	if err != nil {
		return err
	}
	for _, s := range result.Result {
		if s.Metric["cluster"] == cluster && s.Value[1] == fmt.Sprint(want) {
			return nil
		}
	}
	return fmt.Errorf("%s has not %d samples: %s", cluster, want, a.Data)
}

const hourOfSamples = 20 * 240

// TestBrokenReads cuts and flips what a store gateway reads: once, which must
// not show, and for good, which must be an error or a warning that names the object.
//
// RELIABILITY B1
func TestBrokenReads(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	broken := r.upload("x", 5)
	r.upload("y", 5)
	q := r.historian()
	eventually(t, time.Minute, func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) })
	for name, c := range map[string]struct {
		object string
		fault  s3proxy.Fault
	}{
		"chunks cut":     {`chunks/000002`, s3proxy.Fault{CutAfter: 100}},
		"chunks flipped": {`chunks/000002`, s3proxy.Fault{FlipAt: 200}},
		"index flipped":  {`index`, s3proxy.Fault{FlipAt: 30}},
		"index cut":      {`index`, s3proxy.Fault{CutAfter: 10}},
	} {
		key := regexp.MustCompile("^" + broken.ULID.String() + "/" + c.object + "$")
		match := s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Get, s3proxy.GetRange}, Key: key}

		match.Times = 1
		heal := r.proxy.Inject(match, c.fault)
		require.NoError(t, hasCount(count(t, q, 24, false), "x", hourOfSamples), "%s once", name)
		heal()

		match.Times = 0
		heal = r.proxy.Inject(match, c.fault)
		a := count(t, q, 24, false)
		require.Equal(t, "error", a.Status, "%s: %s", name, a.Data)
		require.Contains(t, a.Error, broken.ULID.String(), name)
		require.Contains(t, a.Error, c.object, name)
		a = count(t, q, 24, true)
		require.NoError(t, hasCount(a, "y", hourOfSamples), name)
		require.Contains(t, strings.Join(a.Warnings, "\n"), broken.ULID.String(), name)
		heal()
		eventually(t, 2*time.Minute, func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) })
	}
}

// RELIABILITY B2: under a storm of 503 a store gateway asks less, and answers
// again when it is over.
func TestStormOf503(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.upload("x", 5)
	q := r.historian()
	eventually(t, time.Minute, func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = stack.Ask(ctx, "http://"+q.HTTP, "query", url.Values{"query": {"shipped"}, "time": {"now"}, "timeout": {"5s"}})
			_, _ = stack.Ask(ctx, "http://"+q.HTTP, "query", url.Values{"query": {"count_over_time(shipped[24h])"}, "timeout": {"5s"}})
		}
	}()
	asked := func(d time.Duration) int {
		before := len(r.proxy.Log())
		time.Sleep(d)
		return len(r.proxy.Log()) - before
	}
	calm := asked(4 * time.Second)
	heal := r.proxy.Inject(s3proxy.Match{}, s3proxy.Fault{Status: http.StatusServiceUnavailable})
	asked(2 * time.Second)
	storm := asked(4 * time.Second)
	later := asked(4 * time.Second)
	t.Logf("requests in 4 s: %d before, %d and %d in the storm", calm, storm, later)
	require.Less(t, storm, calm/10)
	require.Less(t, later, calm/10, "nor does it rise again while the storm lasts")
	stop()
	<-done
	heal()
	eventually(t, 2*time.Minute, func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) })
}

// RELIABILITY B3: a listing that lacks blocks takes nothing away, and neither
// does one 404; what was really removed goes after it was seen gone twice.
func TestListingHidesBlocks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gone := r.upload("x", 5)
	for i := range 6 {
		r.upload("y", 6+i)
	}
	q := r.historian("--block-gone-delay=3s")
	whole := func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) }
	eventually(t, time.Minute, whole)
	heal := r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.List}}, s3proxy.Fault{HideKeys: regexp.MustCompile(`.`)})
	for range 6 {
		time.Sleep(time.Second)
		require.NoError(t, whole(), "an empty listing is a fault")
	}
	heal()
	heal = r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.List}}, s3proxy.Fault{HideKeys: regexp.MustCompile(gone.ULID.String())})
	for range 6 {
		time.Sleep(time.Second)
		require.NoError(t, whole(), "a direct read finds it")
	}
	heal()
	for name := range r.objects() {
		if strings.HasPrefix(name, gone.ULID.String()) {
			require.NoError(t, r.minio.RemoveObject(t.Context(), stack.Bucket, name, minio.RemoveObjectOptions{}))
		}
	}
	eventually(t, time.Minute, func() error {
		a := count(t, q, 24, false)
		if a.Status != "success" || strings.Contains(string(a.Data), `"x"`) {
			return errors.New("the block is still known")
		}
		return hasCount(a, "y", 6*hourOfSamples)
	})
}

// RELIABILITY Q1: a frozen sidecar costs its response timeout, and its series alone.
// RELIABILITY Q2: with all endpoints dead the answer is an error.
func TestFrozenAndDeadEndpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var sidecars []*stack.Firnline
	args := []string{"query", "--store.response-timeout=5s", "--endpoint.info-timeout=5s"}
	for _, name := range []string{"x", "y"} {
		p, _ := r.prometheus(name, external(name))
		s := r.start("sidecar", "--prometheus.url="+p.URL, "--tsdb.path="+p.DataDir)
		sidecars = append(sidecars, s)
		args = append(args, "--endpoint="+s.GRPC)
	}
	q := r.start(args...)
	up := func(partial string) *stack.Answer {
		a, err := stack.Ask(t.Context(), "http://"+q.HTTP, "query", url.Values{"query": {"sum by (cluster) (up)"}, "partial_response": {partial}})
		require.NoError(t, err)
		return a
	}
	clusters := func(want ...string) error {
		a := up("true")
		for _, c := range want {
			if !strings.Contains(string(a.Data), `"`+c+`"`) {
				return fmt.Errorf("no %s in %s %s", c, a.Data, a.Error)
			}
		}
		return nil
	}
	eventually(t, time.Minute, func() error { return clusters("x", "y") })

	require.NoError(t, sidecars[1].Freeze())
	began := time.Now()
	a := up("true")
	require.Less(t, time.Since(began), 100*time.Second, "the response timeout is five seconds, the query's own two minutes")
	require.Contains(t, string(a.Data), `"x"`, a.Error)
	require.Contains(t, strings.Join(a.Warnings, "\n"), sidecars[1].GRPC)
	a = up("false")
	require.Equal(t, "error", a.Status)
	require.Contains(t, a.Error, sidecars[1].GRPC)
	require.NoError(t, sidecars[1].Signal(syscall.SIGCONT))
	eventually(t, time.Minute, func() error {
		if a := up("false"); a.Status != "success" {
			return errors.New(a.Error)
		}
		return clusters("x", "y")
	})

	for _, s := range sidecars {
		s.Kill()
	}
	a = up("true")
	require.Equal(t, "error", a.Status)
	require.Contains(t, a.Error, sidecars[0].GRPC)
}

// RELIABILITY Q3: what is missing two queriers down is told at the top, with its path.
// RELIABILITY Q4: queriers that ask each other end with an error that says so.
func TestQueriersOverQueriers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.prometheus("x", external("x"))
	other, _ := r.prometheus("y", external("y"))
	leaf := r.start("sidecar", "--prometheus.url="+p.URL, "--tsdb.path="+p.DataDir)
	stays := r.start("sidecar", "--prometheus.url="+other.URL, "--tsdb.path="+other.DataDir)
	low := r.start("query", "--endpoint="+leaf.GRPC, "--endpoint="+stays.GRPC)
	mid := r.start("query", "--endpoint="+low.GRPC)
	top := r.start("query", "--endpoint="+mid.GRPC)
	ask := func(q *stack.Firnline) *stack.Answer {
		a, err := stack.Ask(t.Context(), "http://"+q.HTTP, "query", url.Values{"query": {"sum by (cluster) (up)"}, "partial_response": {"true"}})
		require.NoError(t, err)
		return a
	}
	eventually(t, time.Minute, func() error {
		if a := ask(top); !strings.Contains(string(a.Data), `"x"`) || !strings.Contains(string(a.Data), `"y"`) {
			return fmt.Errorf("%s %s", a.Data, a.Error)
		}
		return nil
	})
	leaf.Kill()
	a := ask(top)
	require.Contains(t, string(a.Data), `"y"`, a.Error)
	require.Contains(t, strings.Join(a.Warnings, "\n"), fmt.Sprintf("endpoint %s: endpoint %s: endpoint %s: ", mid.GRPC, low.GRPC, leaf.GRPC))

	back, err := stack.FreeAddresses()
	require.NoError(t, err)
	one := r.start("query", "--endpoint="+back.GRPC, "--endpoint="+stays.GRPC)
	two, err := stack.StartFirnline(t.Context(), r.dir, "cycle", back, "query", "--endpoint="+one.GRPC)
	require.NoError(t, err)
	t.Cleanup(two.Kill)
	eventually(t, time.Minute, func() error {
		if a := ask(one); !strings.Contains(a.Error+strings.Join(a.Warnings, "\n"), "cycle") {
			return fmt.Errorf("%s %s %v", a.Data, a.Error, a.Warnings)
		}
		return nil
	})
}
