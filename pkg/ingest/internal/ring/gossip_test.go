package ring_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/tenant"
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil { // nodes that stop mostly wait
		panic(err)
	}
	// A connection that comes while dskit stops is handed to nobody, and stays.
	proctest.Main(m, goleak.IgnoreTopFunction("github.com/grafana/dskit/kv/memberlist.(*TCPTransport).handleConnection"))
}

// node is a Gossip ring that runs.
type node struct {
	*ring.Gossip
	stop  func()
	ahead atomic.Int64 // its clock, ns
}

// heartbeatTimeout is longer than any test: who is dead is told by clocks that are put forward.
const heartbeatTimeout = time.Hour

type nodeOptions struct {
	id, dir string
	join    []string
	router  bool
	bind    string // "": a port that the system chooses
	wait    time.Duration
	shard   func(tenant.ID) int
	log     slog.Handler // nil: nothing is logged
}

// nobody is at this address.
const nobody = "127.0.0.1:1"

// gossip is where a node that runs listens.
func (n *node) gossip(t testing.TB) string {
	t.Helper()
	require.Eventually(t, func() bool { return n.Port() > 0 }, limit, time.Millisecond)
	return fmt.Sprintf("127.0.0.1:%d", n.Port())
}

// newNode is a Gossip ring that does not run yet.
func newNode(t testing.TB, o nodeOptions) *node {
	t.Helper()
	var cfg ring.Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	if o.bind == "" {
		o.bind = "127.0.0.1:0"
	}
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	cfg.Gossip.ID, cfg.Gossip.Tokens = o.id, 64
	cfg.Gossip.Bind = o.bind
	cfg.Gossip.Join = o.join
	cfg.Gossip.JoinWait = model.Duration(o.wait)
	cfg.Gossip.HeartbeatPeriod = model.Duration(time.Second)
	cfg.Gossip.HeartbeatTimeout = model.Duration(heartbeatTimeout)
	cfg.Gossip.ForgetAfter = model.Duration(1000 * heartbeatTimeout)
	require.NoError(t, cfg.Validate())
	if o.log == nil {
		o.log = slog.DiscardHandler
	}
	n := &node{}
	g, err := ring.NewGossip(cfg, ring.Parts{
		Address: "127.0.0.1:10901", Dir: o.dir, Router: o.router, ShardSize: o.shard,
		Log: slog.New(o.log), Reg: prometheus.NewRegistry(), Now: func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) },
	})
	require.NoError(t, err)
	n.Gossip = g
	return n
}

func startNode(t testing.TB, o nodeOptions) *node {
	t.Helper()
	n := newNode(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			began := time.Now()
			require.NoError(t, <-done)
			t.Logf("%s stopped in %s", o.id, time.Since(began))
		}
	}
	t.Cleanup(n.stop)
	return n
}

// sees waits until a node sees members in these states.
func (n *node) sees(t testing.TB, want map[string]ring.State) {
	t.Helper()
	require.Eventually(t, func() bool {
		got := map[string]ring.State{}
		for _, m := range n.Members() {
			if m.Healthy {
				got[m.ID] = m.State
			}
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	}, limit, 10*time.Millisecond, "want %v", want)
}

// limit is on what may take as long as it likes.
const limit = 2 * time.Minute

// RELIABILITY I5, P10: three nodes and a router agree on who owns what while
// one of them is restarted and another leaves for good.
func TestGossip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := startNode(t, nodeOptions{id: "a"})
	join := []string{a.gossip(t)}
	b := startNode(t, nodeOptions{id: "b", join: join, wait: time.Hour})
	c := startNode(t, nodeOptions{id: "c", join: join, wait: time.Hour, dir: dir})
	r := startNode(t, nodeOptions{id: "r", join: join, wait: time.Hour, router: true})
	_, err := r.View("x")
	require.Equal(t, refuse.NotReady, refuse.ReasonOf(err))
	for _, n := range []*node{a, b, c} {
		require.NoError(t, n.Activate(t.Context()))
	}
	all := map[string]ring.State{"a": ring.Active, "b": ring.Active, "c": ring.Active}
	began := time.Now()
	for _, n := range []*node{a, b, c, r} {
		n.sees(t, all)
	}
	t.Logf("converged %s after the last became active", time.Since(began))
	requireSame(t, a, b, c, r)
	set := viewOf(t, r).Set(0)
	require.Len(t, set.Owners, 3)
	require.Equal(t, 2, set.Quorum)
	tokens := memberOf(a, "c").Tokens
	require.Equal(t, "127.0.0.1:10901", memberOf(a, "c").Addr)

	c.stop() // a restart: its place is kept, and it is not written to
	a.sees(t, map[string]ring.State{"a": ring.Active, "b": ring.Active, "c": ring.Joining})
	set = viewOf(t, a).Set(0)
	require.Len(t, set.Owners, 2)
	require.Equal(t, 2, set.Quorum)
	c = startNode(t, nodeOptions{id: "c", join: join, wait: time.Hour, dir: dir})
	a.sees(t, map[string]ring.State{"a": ring.Active, "b": ring.Active, "c": ring.Joining})
	require.NoError(t, c.Activate(t.Context()))
	for _, n := range []*node{a, b, c, r} {
		n.sees(t, all)
	}
	require.Equal(t, tokens, memberOf(a, "c").Tokens, "it has the tokens it had")
	requireSame(t, a, b, c, r)

	require.NoError(t, b.Leave(t.Context(), true))
	a.sees(t, map[string]ring.State{"a": ring.Active, "b": ring.Leaving, "c": ring.Active})
	require.Len(t, a.Instances(), 3, "its data are still read")
	require.Equal(t, 2, viewOf(t, a).Set(0).Quorum)
	b.stop()
	a.sees(t, map[string]ring.State{"a": ring.Active, "c": ring.Active})
	require.Len(t, a.Instances(), 2)
	status := a.Status()
	require.Equal(t, 2, status.ReplicationFactor)
	require.InDelta(t, 100, status.Instances[0].OwnsPercent, 0.1)
	for _, n := range []*node{a, c, r} {
		n.stop()
	}
}

func viewOf(t testing.TB, n *node) *ring.View {
	t.Helper()
	v, err := n.View("x")
	require.NoError(t, err)
	return v
}

func memberOf(n *node, id string) ring.Member {
	for _, m := range n.Members() {
		if m.ID == id {
			return m
		}
	}
	return ring.Member{}
}

func requireSame(t testing.TB, nodes ...*node) {
	t.Helper()
	first := viewOf(t, nodes[0])
	for _, n := range nodes[1:] {
		v := viewOf(t, n)
		for i := range 1000 {
			h := uint64(i) * 0x9e3779b97f4a7c15
			require.Equal(t, owners(first, h), owners(v, h))
		}
	}
}

// A node that finds nobody works alone, once it has waited; one that was one of
// three takes nothing meanwhile, and after that nothing with less than its quorum.
func TestGossipAlone(t *testing.T) {
	t.Parallel()
	first := startNode(t, nodeOptions{id: "first"})
	require.NoError(t, first.Activate(t.Context()))
	first.sees(t, map[string]ring.State{"first": ring.Active})
	require.Equal(t, 1, viewOf(t, first).Set(0).Quorum)
	first.stop()

	lone := startNode(t, nodeOptions{id: "lone", join: []string{nobody}, wait: 500 * time.Millisecond})
	require.NoError(t, lone.Activate(t.Context()))
	require.Eventually(t, func() bool { v, err := lone.View("x"); return err == nil && len(v.Set(0).Owners) == 1 }, limit, 10*time.Millisecond)
	lone.stop()

	dir := t.TempDir()
	a := startNode(t, nodeOptions{id: "a"})
	join := []string{a.gossip(t)}
	b := startNode(t, nodeOptions{id: "b", join: join, dir: dir, wait: time.Hour})
	for _, n := range []*node{a, b} {
		require.NoError(t, n.Activate(t.Context()))
	}
	b.sees(t, map[string]ring.State{"a": ring.Active, "b": ring.Active})
	b.stop()
	a.stop()
	b = startNode(t, nodeOptions{id: "b", join: join, dir: dir})
	require.NoError(t, b.Activate(t.Context()))
	require.Eventually(t, func() bool { v, err := b.View("x"); return err == nil && v.Set(0).Quorum == 2 }, limit, 10*time.Millisecond)
	b.stop()
}

// TestGossipLeaveBeforeRun: a process that ends before it has begun waits for nobody.
func TestGossipLeaveBeforeRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // there is nothing to wait for
	for _, forGood := range []bool{false, true} {
		require.NoError(t, newNode(t, nodeOptions{id: "a"}).Leave(ctx, forGood))
	}
}

// RELIABILITY I5: a node that dies without a word is passed over after the
// heartbeat timeout, still read, and gone only when it is forgotten.
func TestGossipDeath(t *testing.T) {
	t.Parallel()
	a := startNode(t, nodeOptions{id: "a"})
	join := []string{a.gossip(t)}
	b := startNode(t, nodeOptions{id: "b", join: join, wait: time.Hour})
	require.NoError(t, a.Activate(t.Context()))
	require.NoError(t, b.Activate(t.Context()))
	both := map[string]ring.State{"a": ring.Active, "b": ring.Active}
	a.sees(t, both)
	require.ErrorContains(t, a.Forget(t.Context(), "b"), "alive")
	require.ErrorContains(t, a.Forget(t.Context(), "z"), "no such node")
	b.stop()
	require.Eventually(t, func() bool { // its last heartbeat may come after its end
		if memberOf(a, "b").Healthy {
			a.ahead.Add(int64(heartbeatTimeout + time.Second))
		}
		return !memberOf(a, "b").Healthy && memberOf(a, "a").Healthy
	}, limit, time.Second)
	require.Len(t, a.Instances(), 2)
	v := viewOf(t, a)
	require.Less(t, len(v.Set(v.Owners(1)).Owners), v.Set(v.Owners(1)).Quorum, "of two both must confirm")
	require.NoError(t, a.Forget(t.Context(), "b"))
	require.Eventually(t, func() bool { return len(a.Members()) == 1 }, limit, 10*time.Millisecond)
	require.Equal(t, 1, viewOf(t, a).Set(0).Quorum)
	a.stop()
}

// TestGossipQuiet: the starts and stops of two nodes are worth no warning.
func TestGossipQuiet(t *testing.T) {
	t.Parallel()
	var out lockedBuffer
	log := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})
	atB := proctest.Addr(t)
	b := startNode(t, nodeOptions{id: "b", bind: atB, log: log})
	_ = b.gossip(t)
	b.stop()
	a := startNode(t, nodeOptions{id: "a", join: []string{atB}, log: log})
	join := []string{a.gossip(t)}
	require.NoError(t, a.Activate(t.Context()))
	b = startNode(t, nodeOptions{id: "b", bind: atB, join: join, log: log})
	require.NoError(t, b.Activate(t.Context()))
	both := map[string]ring.State{"a": ring.Active, "b": ring.Active}
	a.sees(t, both)
	b.stop()
	b = startNode(t, nodeOptions{id: "b", bind: atB, join: join, log: log})
	require.NoError(t, b.Activate(t.Context()))
	a.sees(t, both)
	require.NoError(t, b.Leave(t.Context(), true))
	b.stop()
	a.sees(t, map[string]ring.State{"a": ring.Active})
	a.stop()
	for line := range strings.Lines(out.String()) {
		if !slow.MatchString(line) {
			t.Error(line)
		}
	}
}

// slow are the warnings of a machine that has no time for its nodes.
var slow = regexp.MustCompile("timeout|deadline exceeded|probes failed")

// lockedBuffer keeps what several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
