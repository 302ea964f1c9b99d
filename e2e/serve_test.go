package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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
	return r.querier("--endpoint=" + s.GRPC)
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

// RELIABILITY B2: under a storm of 503 a store gateway asks once a second, although
// it is asked all the time, and answers again when it is over.
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
			_, _ = stack.Ask(ctx, "http://"+q.HTTP, "query", url.Values{"query": {"count_over_time(shipped[24h])"}})
		}
	}()
	eventually(t, time.Minute, func() error {
		if r.pauses(5) == nil {
			return errors.New("it pauses while all is well")
		}
		return nil
	})
	heal := r.proxy.Inject(s3proxy.Match{}, s3proxy.Fault{Status: http.StatusServiceUnavailable})
	eventually(t, time.Minute, func() error { return r.pauses(5) })
	before := len(r.proxy.Log())
	eventually(t, time.Minute, func() error {
		if n := len(r.proxy.Log()) - before; n < 5 {
			return fmt.Errorf("%d more requests", n)
		}
		return nil
	})
	require.NoError(t, r.pauses(len(r.proxy.Log())-before), "nor does it rise again while the storm lasts")
	stop()
	<-done
	heal()
	eventually(t, 2*time.Minute, func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) })
}

// pauses is nil if each of the last requests, so many, came a pause after the one before.
func (r *rig) pauses(last int) error {
	log := r.proxy.Log()
	slices.SortFunc(log, func(a, b s3proxy.Request) int { return a.Start.Compare(b.Start) })
	if len(log) <= last {
		return fmt.Errorf("%d requests", len(log))
	}
	for i, req := range log[len(log)-last:] {
		const least = 900 * time.Millisecond // a second by the clock of another process
		if gap := req.Start.Sub(log[len(log)-last+i-1].Start); gap < least {
			return fmt.Errorf("%s of %q %s after another request", req.Op, req.Key, gap)
		}
	}
	return nil
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
	r.whileListed(func() { require.NoError(t, whole(), "an empty listing is a fault") })
	heal()
	heal = r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.List}}, s3proxy.Fault{HideKeys: regexp.MustCompile(gone.ULID.String())})
	r.whileListed(func() { require.NoError(t, whole(), "a direct read finds it") })
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

// whileListed does something each second, for six seconds and until the bucket was
// listed as often.
func (r *rig) whileListed(do func()) {
	r.t.Helper()
	const times = 6
	before, done := r.lists(), 0
	eventually(r.t, time.Minute, func() error {
		time.Sleep(time.Second)
		do()
		done++
		if n := r.lists() - before; n < times || done < times {
			return fmt.Errorf("the bucket was listed %d times", n)
		}
		return nil
	})
}

// lists counts the listings of the bucket that were answered.
func (r *rig) lists() (n int) {
	for _, req := range r.proxy.Log() {
		if req.Op == s3proxy.List && req.Key == "" {
			n++
		}
	}
	return n
}

// RELIABILITY Q1: a frozen sidecar costs its response timeout, and its series alone.
// RELIABILITY Q2: with all endpoints dead the answer is an error.
func TestFrozenAndDeadEndpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var sidecars []*stack.Firnline
	args := []string{"query", "--store.response-timeout=5s", "--endpoint.info-timeout=5s", "--query.timeout=30m"}
	for _, name := range []string{"x", "y"} {
		p, _ := r.prometheus(name, external(name))
		s := r.start("sidecar", "--prometheus.url="+p.URL, "--tsdb.path="+p.DataDir)
		sidecars = append(sidecars, s)
		args = append(args, "--endpoint="+s.GRPC)
	}
	q := r.start(args...)
	up := func(partial string) *stack.Answer {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		a, err := stack.Ask(ctx, "http://"+q.HTTP, "query", url.Values{"query": {"sum by (cluster) (up)"}, "partial_response": {partial}})
		require.NoError(t, err, "the response timeout is five seconds, the query's own half an hour")
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
	eventually(t, time.Minute, func() error { // where little gets done the other one can be late, too
		a := up("true")
		require.Contains(t, strings.Join(a.Warnings, "\n")+a.Error, sidecars[1].GRPC)
		if a.Status != "success" || !strings.Contains(string(a.Data), `"x"`) {
			return fmt.Errorf("%s %s %s", a.Status, a.Error, a.Data)
		}
		return nil
	})
	eventually(t, time.Minute, func() error {
		a := up("false")
		require.Equal(t, "error", a.Status)
		return names(a, sidecars[1].GRPC)
	})
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
	eventually(t, time.Minute, func() error {
		a := up("true")
		require.Equal(t, "error", a.Status)
		return names(a, sidecars[0].GRPC)
	})
}

// names is nil if an answer's error or one of its warnings has these words.
func names(a *stack.Answer, words string) error {
	if said := strings.Join(append([]string{a.Error}, a.Warnings...), "\n"); !strings.Contains(said, words) {
		return fmt.Errorf("%q is not in: %s", words, said)
	}
	return nil
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
	low := r.querier("--endpoint="+leaf.GRPC, "--endpoint="+stays.GRPC)
	mid := r.querier("--endpoint=" + low.GRPC)
	top := r.querier("--endpoint=" + mid.GRPC)
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
	eventually(t, time.Minute, func() error {
		a := ask(top)
		require.NotEmpty(t, a.Error+strings.Join(a.Warnings, ""), "something is missing: %s", a.Data)
		if !strings.Contains(string(a.Data), `"y"`) {
			return fmt.Errorf("no y in %s %s", a.Data, a.Error)
		}
		return names(a, fmt.Sprintf("endpoint %s: endpoint %s: endpoint %s: ", mid.GRPC, low.GRPC, leaf.GRPC))
	})

	back, err := stack.FreeAddresses()
	require.NoError(t, err)
	one := r.querier("--endpoint="+back.GRPC, "--endpoint="+stays.GRPC)
	two, err := stack.StartFirnline(t.Context(), r.dir, "cycle", back, "query", "--endpoint="+one.GRPC)
	require.NoError(t, err)
	t.Cleanup(two.Kill)
	eventually(t, time.Minute, func() error {
		return names(ask(one), "cycle")
	})
}
