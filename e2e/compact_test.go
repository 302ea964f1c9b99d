package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/s3proxy"
	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
)

// compactor runs the binary until it is killed. The bucket's clock is the real
// one, and readers have a minute to do without a marked block. They look for such each second.
func (r *rig) compactor(dataDir string, args ...string) *stack.Firnline {
	r.t.Helper()
	return r.launch(nil, append([]string{"compact", "--wait", "--data-dir=" + dataDir, "--objstore.config-file=" + r.objstore,
		"--wait-interval=1s", "--compact.cleanup-interval=1s", "--consistency-delay=0s", "--block-gone-delay=3s",
		"--delete-delay=1m", "--compact.lease-ttl=10s"}, args...)...)
}

// forReaders are the flags of a store gateway beside such a compactor.
const forReaders = "--ignore-deletion-marks-delay=2s"

// TestCompactedWhileQueried compacts and deduplicates four days of a real pair
// while queries run, and kills the compactor again and again. No answer ever
// differs from the model's, and what is left in the end is what there is to be.
//
// RELIABILITY C1, C2
func TestCompactedWhileQueried(t *testing.T) {
	t.Parallel()
	h := newHistory(t, 2*time.Hour, 8*time.Hour)
	end := pastStart.Add(4 * day)
	h.past.write(end)
	h.waitShipped(end)
	h.now = end
	h.queriers = []*stack.Firnline{h.querier("--endpoint="+h.store(forReaders).GRPC, "--query.replica-label=replica")}
	ask := func() {
		h.compareSuite(rawQueries, `cluster="eu"`, span{from: pastStart.Add(day), to: end, step: 37 * time.Minute})
	}
	ask()

	killed := make(chan struct{})
	dir := t.TempDir()
	c := h.compactor(dir, "--deduplication.replica-label=replica", "--retention.resolution-raw=0d")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	go func() {
		defer close(killed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		for range 6 {
			time.Sleep(time.Duration(300+rnd.IntN(1500)) * time.Millisecond)
			c.Kill()
			if err := c.Restart(t.Context()); err != nil {
				return // the test has ended
			}
		}
	}()
	asked, settled := 0, errors.New("the compactor is still being killed")
	for end := time.Now().Add(3 * patience); settled != nil; asked++ {
		select {
		case <-killed:
			settled = h.settled()
			time.Sleep(time.Second) // leave something for the compactor
		default:
		}
		ask()
		require.False(t, t.Failed(), "while it was compacted")
		require.True(t, time.Now().Before(end), "never done: %v", settled)
	}
	t.Logf("the suite was asked %d times meanwhile", asked)
	ask()
	h.complete()
}

// settled is nil once there is one block a resolution, and no marked one. It is
// for data so old that windows of all lengths are over.
func (r *rig) settled() error {
	live := map[int64]int{}
	for _, b := range r.blocks() {
		if b.marked {
			return fmt.Errorf("block %s is marked and still there", b.ULID)
		}
		live[b.Resolution()]++
	}
	if want := map[int64]int{block.ResolutionRaw: 1, block.Resolution5m: 1, block.Resolution1h: 1}; !maps.Equal(live, want) {
		return fmt.Errorf("blocks by resolution: %v", live)
	}
	return nil
}

// TestStoppedPastItsLease stops a compactor with SIGSTOP while it holds a job, at
// one step after the other: another takes the job over and finishes it; then the
// first goes on, with its late request first. There is one result of each job, and
// the samples are those that were shipped.
//
// RELIABILITY C3
func TestStoppedPastItsLease(t *testing.T) {
	t.Parallel()
	for step, object := range map[string]string{
		"uploading":      `chunks/000001`,
		"making visible": block.MetaFilename,
		"marking":        block.DeletionMarkFilename,
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			stoppedAt(t, regexp.MustCompile(`^[0-9A-Z]{26}/`+regexp.QuoteMeta(object)+`$`))
		})
	}
}

func stoppedAt(t *testing.T, key *regexp.Regexp) {
	r := newRig(t)
	const hours = 40
	for i := range hours {
		r.upload("x", int(time.Since(pastStart).Hours())-i-1)
	}
	q := r.historian(forReaders)
	answer := func() (out string) {
		for _, f := range []string{"count_over_time", "sum_over_time"} {
			a, err := stack.Ask(t.Context(), "http://"+q.HTTP, "query", url.Values{
				"query": {f + "(shipped[2d])"}, "time": {unix(pastStart.Add(2 * day))}, "partial_response": {"false"},
			})
			require.NoError(t, err)
			r, err := a.Result()
			require.NoError(t, err)
			out += fmt.Sprint(bySeries(t, r))
		}
		return out
	}
	eventually(t, time.Minute, func() error {
		if n := strings.Count(answer(), fmt.Sprintf(`"%d"`, hours*240)); n != 20 {
			return fmt.Errorf("%d of 20 series are whole: %.300s", n, answer())
		}
		return nil
	})
	want := answer()

	reached, late := make(chan struct{}), make(chan struct{})
	r.proxy.Inject(s3proxy.Match{Ops: []s3proxy.Op{s3proxy.Put}, Key: key, Times: 1}, s3proxy.Fault{Reached: func() { close(reached) }, Until: late})
	first := r.compactor(filepath.Join(r.dir, "first"))
	select {
	case <-reached:
	case <-time.After(10 * time.Minute):
		t.Fatal("the first never came so far")
	}
	require.NoError(t, first.Freeze())
	second := r.compactor(filepath.Join(r.dir, "second"))
	eventually(t, 4*time.Minute, r.settled)
	require.Equal(t, want, answer())
	before := r.visibleBlocks()

	close(late)
	require.NoError(t, first.Signal(syscall.SIGCONT))
	for range 20 {
		time.Sleep(time.Second)
		require.Equal(t, want, answer(), "once the first goes on")
	}
	eventually(t, time.Minute, r.settled)
	require.Equal(t, before, r.visibleBlocks(), "the results of the second, and no others")
	r.complete()
	for _, c := range []*stack.Firnline{first, second} {
		require.NotContains(t, c.Tail(10_000), "panic")
	}
}

func (r *rig) visibleBlocks() (out []string) {
	for _, b := range r.blocks() {
		out = append(out, fmt.Sprint(b.ULID, " ", b.Resolution(), " ", b.Stats))
	}
	return out
}
