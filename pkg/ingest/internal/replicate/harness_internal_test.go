package replicate

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// heads is a plain Owner: it knows series by session and number, and keeps all samples.
type heads struct {
	mu      sync.Mutex
	names   map[batch.Session]map[uint64]string
	samples map[string]map[int64]float64 // by tenant and labels, and time
	writes  int
	asked   int  // for labels
	nothing bool // all goes well, and nothing is kept
	// before is called first, and may fail or refuse; nil: all goes well.
	before func(ctx context.Context, w *batch.Write) (batch.Result, error)
}

func (h *heads) Append(ctx context.Context, w *batch.Write) (batch.Result, error) {
	if h.nothing {
		return batch.Result{}, nil
	}
	h.mu.Lock()
	before := h.before
	h.mu.Unlock()
	var res batch.Result
	if before != nil {
		var err error
		if res, err = before(ctx, w); err != nil {
			return batch.Result{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	if h.names == nil {
		h.names, h.samples = map[batch.Session]map[uint64]string{}, map[string]map[int64]float64{}
	}
	if h.names[w.Session] == nil {
		h.names[w.Session] = map[uint64]string{}
	}
	for _, n := range w.Only {
		if containsSeries(res.Refused, n) {
			continue
		}
		s := &w.Batch.Series[n]
		name, ok := h.names[w.Session][s.ID]
		if !ok {
			h.asked++
			ls, err := w.Batch.Labels(int(n))
			if errors.Is(err, batch.ErrNoLabels) {
				res.Unknown = append(res.Unknown, n)
				continue
			}
			if err != nil {
				return batch.Result{}, err
			}
			name = string(w.Tenant) + ls.String()
			h.names[w.Session][s.ID] = name
		}
		if h.samples[name] == nil {
			h.samples[name] = map[int64]float64{}
		}
		for _, x := range w.Batch.Floats[s.Floats.From:s.Floats.To] {
			h.samples[name][x.T] = x.V
		}
	}
	return res, nil
}

func containsSeries(all []batch.Refused, n uint32) bool {
	for _, x := range all {
		if x.Series == n {
			return true
		}
	}
	return false
}

// forget makes h what it would be after a restart: it has its samples and knows no numbers.
func (h *heads) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.names)
}

func (h *heads) set(before func(ctx context.Context, w *batch.Write) (batch.Result, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = before
}

// node is an owner behind gRPC.
type node struct {
	*heads
	addr string
	stop func()
}

func serve(t testing.TB, addr string, h Owner, cfg Config) (string, func()) {
	t.Helper()
	return serveAdmitting(t, addr, h, cfg, unbounded)
}

func serveAdmitting(t testing.TB, addr string, h Owner, cfg Config, admit Admission) (string, func()) {
	t.Helper()
	var l net.Listener
	require.Eventually(t, func() bool { var err error; l, err = net.Listen("tcp", addr); return err == nil }, time.Minute, 10*time.Millisecond)
	s := grpc.NewServer(storeapi.ServerOptions()...)
	NewServer(cfg, h, admit).Register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			s.Stop()
			if err := <-done; !errors.Is(err, grpc.ErrServerStopped) { // so soon that it had not begun
				require.NoError(t, err)
			}
		})
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// unbounded admits all.
func unbounded(int64) (Place, error) { return noPlace{}, nil }

type noPlace struct{}

func (noPlace) Grow(int64) error { return nil }
func (noPlace) Leave()           {}

func startNode(t testing.TB, cfg Config) *node {
	t.Helper()
	n := &node{heads: &heads{}}
	n.addr, n.stop = serve(t, proctest.Addr(t), n.heads, cfg)
	return n
}

func (n *node) restart(t testing.TB, cfg Config) {
	t.Helper()
	n.stop()
	n.forget()
	_, n.stop = serve(t, n.addr, n.heads, cfg)
}

func testConfig() Config {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	cfg.Timeout = model.Duration(time.Minute) // no test waits for it
	return cfg
}

// cluster is a Replicator and the nodes it writes to; the first is its own process.
type cluster struct {
	*Replicator
	nodes []*node
	cfg   Config
	still atomic.Int64 // what its clock shows, Unix ns; 0: it goes
}

func startCluster(t testing.TB, n, rf int, cfg Config) *cluster {
	t.Helper()
	c := &cluster{cfg: cfg}
	var addrs []string
	for range n {
		c.nodes = append(c.nodes, startNode(t, cfg))
		addrs = append(addrs, fmt.Sprintf("%q", c.nodes[len(c.nodes)-1].addr))
	}
	r, err := ring.NewStatic(ring.Config{ReplicationFactor: rf, Static: ring.StaticConfig{
		Hashrings: fmt.Sprintf(`[{"endpoints":[%s],"algorithm":"ketama"}]`, strings.Join(addrs, ",")), LocalEndpoint: c.nodes[0].addr,
	}}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	c.Replicator = New(cfg, Parts{
		Ring: r, Local: c.nodes[0].heads, Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Now: c.clock,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { // before the nodes stop
		cancel()
		require.NoError(t, <-done)
	})
	return c
}

func (c *cluster) clock() time.Time {
	if still := c.still.Load(); still != 0 {
		return time.Unix(0, still)
	}
	return time.Now()
}

// router makes writes of one tenant, with numbers for its series.
type router struct {
	session batch.Session
	ids     map[string]uint64
}

func newRouter(name string) *router {
	r := &router{ids: map[string]uint64{}}
	copy(r.session[:], name)
	return r
}

// write makes a Write of one sample at t, of value v, for each series.
func (r *router) write(t int64, v float64, series ...string) *batch.Write {
	b := &batch.Batch{}
	var all []labels.Labels
	w := &batch.Write{Tenant: "team", Session: r.session, Batch: b}
	for i, name := range series {
		ls := labels.FromStrings("__name__", name, "job", "test")
		all = append(all, ls)
		if r.ids[name] == 0 {
			r.ids[name] = uint64(len(r.ids) + 1)
		}
		b.Series = append(b.Series, batch.Series{ID: r.ids[name], Hash: xxhash.Sum64String(name), Floats: batch.Span{From: uint32(i), To: uint32(i + 1)}})
		b.Floats = append(b.Floats, batch.Float{T: t, V: v})
		w.Only = append(w.Only, uint32(i))
	}
	b.Labels = func(i int) (labels.Labels, error) { return all[i], nil }
	return w
}

// send writes and waits until the Batch is free. It returns what was refused.
func (c *cluster) send(t testing.TB, w *batch.Write) *refuse.Tally {
	t.Helper()
	var tally refuse.Tally
	freed := make(chan struct{})
	c.Write(context.Background(), w, &tally, func() { close(freed) })
	select {
	case <-freed:
	case <-time.After(5 * time.Minute):
		require.FailNow(t, "the batch is still held")
	}
	return &tally
}

func reasonOf(t *refuse.Tally) refuse.Reason {
	if err := t.Err(); err != nil {
		return refuse.ReasonOf(err)
	}
	return ""
}

// copies counts the nodes that have a sample.
func (c *cluster) copies(series string, at int64) int {
	n := 0
	name := "team" + labels.FromStrings("__name__", series, "job", "test").String()
	for _, x := range c.nodes {
		x.mu.Lock()
		if _, ok := x.samples[name][at]; ok {
			n++
		}
		x.mu.Unlock()
	}
	return n
}

func names(r *rand.Rand, n, of int) []string {
	var out []string
	for _, i := range r.Perm(of)[:n] {
		out = append(out, fmt.Sprintf("m%d", i))
	}
	return out
}
