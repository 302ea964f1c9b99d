package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

func infoOf(component string) storeapi.Info {
	return storeapi.Info{
		Component: component, LabelSets: []labels.Labels{labels.FromStrings("cluster", component)}, Mint: 5, Maxt: math.MaxInt64,
		Services: storeapi.ServiceSet{Store: true},
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve serves a store and returns where, and what stops it. The address is the test's until it ends.
func serve(t *testing.T, store storeapi.Store, opts ...grpc.ServerOption) (string, func()) {
	t.Helper()
	address := proctest.Addr(t)
	return address, serveAt(t, address, store, opts...)
}

// serveAt serves a store at an address at which serve did before.
func serveAt(t *testing.T, address string, store storeapi.Store, opts ...grpc.ServerOption) (stop func()) {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	require.NoError(t, err)
	return serveOn(t, lis, store, opts...)
}

func serveOn(t *testing.T, lis net.Listener, store storeapi.Store, opts ...grpc.ServerOption) (stop func()) {
	t.Helper()
	srv := grpc.NewServer(append(storeapi.ServerOptions(), opts...)...)
	storeapi.Register(srv, storeapi.Services{Store: store}, quiet())
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(lis) })
	stop = func() { srv.Stop(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// start runs a Set until the test ends.
func start(t *testing.T, change func(*Config)) *Set {
	t.Helper()
	s := build(t, change)
	run(t, s)
	return s
}

// build makes a Set whose endpoints have all the time to answer, and are asked often.
func build(t *testing.T, change func(*Config), dial ...grpc.DialOption) *Set {
	t.Helper()
	cfg, err := defaults(t)
	require.NoError(t, err)
	cfg.InfoTimeout, cfg.InfoInterval = model.Duration(time.Minute), model.Duration(50*time.Millisecond)
	cfg.DNSInterval = model.Duration(time.Millisecond)
	change(&cfg)
	require.NoError(t, cfg.Validate())
	s, err := New(cfg, nil, quiet(), prometheus.NewRegistry(), dial...)
	require.NoError(t, err)
	return s
}

func run(t *testing.T, s *Set) {
	t.Helper()
	require.Error(t, s.Ready())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, s.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	require.Eventually(t, func() bool { return s.Ready() == nil }, 2*time.Minute, time.Millisecond)
}

// rounds waits until a Set with one endpoint has found and checked it from the
// beginning, all of it after now.
func rounds(t *testing.T, s *Set) {
	t.Helper()
	for range 2 { // the first may have begun before
		last := s.Endpoints()[0].LastCheck
		eventually(t, "a round", func() bool { return s.Endpoints()[0].LastCheck.After(last) })
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 2*time.Minute, 5*time.Millisecond, what)
}

func TestEndpointGoesAndComes(t *testing.T) {
	address, stop := serve(t, storetest.NewFake(nil, infoOf("sidecar")))
	s := start(t, func(c *Config) { c.Addresses = []string{address} })
	st := s.Endpoints()[0]
	require.Empty(t, st.LastError)
	require.Equal(t, "sidecar", st.Component)
	require.Equal(t, `[{cluster="sidecar"}]`, labelsOf(st))
	require.Equal(t, []int64{5, math.MaxInt64}, []int64{st.MinTime, st.MaxTime})
	require.WithinDuration(t, time.Now(), st.LastCheck, time.Minute)
	require.NoError(t, s.Peers()[0].Down)

	stop()
	eventually(t, "down", func() bool { return s.Peers()[0].Down != nil })
	p := s.Peers()[0]
	require.ErrorIs(t, p.Down, storeapi.ErrUnavailable)
	require.Equal(t, "sidecar", p.Info.Component, "what it last told")
	require.NotContains(t, s.Endpoints()[0].LastError, address+": "+address, "named once")

	serveAt(t, address, storetest.NewFake(nil, infoOf("store")))
	eventually(t, "up again", func() bool { return s.Peers()[0].Down == nil })
	require.Equal(t, "store", s.Peers()[0].Info.Component)
}

func labelsOf(st Status) string {
	var parts []string
	for _, l := range st.LabelSets {
		parts = append(parts, l.String())
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func TestStrictEndpointIsAsked(t *testing.T) {
	address, stop := serve(t, storetest.NewFake(nil, infoOf("sidecar")))
	s := start(t, func(c *Config) { c.Strict = []string{address} })
	stop()
	eventually(t, "failing", func() bool { return s.Endpoints()[0].LastError != "" })
	p := s.Peers()[0]
	require.NoError(t, p.Down)
	require.Equal(t, "sidecar", p.Info.Component)
}

// RELIABILITY Q1 and bad input: what is no StoreAPI or sends garbage is named with
// what is wrong with it, and costs the others nothing.
func TestNotAnEndpoint(t *testing.T) {
	good, _ := serve(t, storetest.NewFake(nil, infoOf("store")))
	web := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Hour}
	for name, c := range map[string]struct {
		address string
		want    []string
	}{
		"nobody there": {"127.0.0.1:1", []string{"nothing listens there; ", "? connection refused"}},
		"junk":         {listen(t, sendJunk), []string{"not a gRPC endpoint"}},
		"hangs up":     {listen(t, func(net.Conn) {}), []string{"not a gRPC endpoint"}},
		"HTTP":         {listenHTTP(t, web), []string{"not a gRPC endpoint: it answers HTTP/1"}},
		"other gRPC":   {serveNothing(t), []string{"not a StoreAPI endpoint"}},
		"not ready":    {refusing(t, errors.New("still loading")), []string{"still loading"}},
		"blind":        {refusing(t, fmt.Errorf("%w: dial Prometheus: connection refused", storeapi.ErrUnavailable)), []string{"dial Prometheus: connection refused"}},
		"overloaded":   {refusing(t, fmt.Errorf("%w: too many streams", storeapi.ErrLimit)), []string{"limit exceeded: too many streams"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(cfg *Config) { cfg.Addresses = []string{good, c.address} })
			states := map[string]Status{}
			eventually(t, "it costs the other nothing", func() bool {
				for _, st := range s.Endpoints() {
					states[st.Name] = st
				}
				return states[good].LastError == "" && states[c.address].LastError != ""
			})
			for _, want := range c.want {
				require.Contains(t, states[c.address].LastError, want)
			}
			if name == "blind" {
				require.NotContains(t, states[c.address].LastError, "nothing listens", "the endpoint itself has answered")
			}
			require.Equal(t, "unknown", states[c.address].Component)
			for _, p := range s.Peers() {
				require.Equal(t, p.Name == c.address, p.Down != nil)
				require.NotErrorIs(t, p.Down, storeapi.ErrLimit, "no request has met it")
			}
		})
	}
}

// RELIABILITY Q1: one that takes connections and says nothing is named, too, by the
// time that it had. The clock is the test's, so that nobody else is late.
func TestHangingEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, hangs := bufconn.Listen(1<<16), bufconn.Listen(1<<16)
		serveOn(t, good, storetest.NewFake(nil, infoOf("store")))
		treat(t, hangs, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		s := build(t, func(c *Config) {
			c.Addresses, c.InfoTimeout = []string{"good:1", "hangs:1"}, model.Duration(3*time.Second)
		}, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return map[string]*bufconn.Listener{"good:1": good, "hangs:1": hangs}[address].DialContext(ctx)
		}))
		began := time.Now()
		run(t, s)
		require.WithinDuration(t, began.Add(3*time.Second), time.Now(), time.Millisecond, "one timeout for all")
		for _, st := range s.Endpoints() {
			if st.Name == "good:1" {
				require.Empty(t, st.LastError)
				continue
			}
			require.Contains(t, st.LastError, "no answer to a health check within 3s")
			require.Equal(t, "unknown", st.Component)
		}
		for _, p := range s.Peers() {
			require.Equal(t, p.Name == "hangs:1", p.Down != nil)
		}
	})
}

// What an endpoint says of itself can't break the page of metrics.
func TestConnectionsOfOddEndpoint(t *testing.T) {
	odd := infoOf("store\xff\xff")
	odd.LabelSets = []labels.Labels{labels.FromStrings("a\xff", "b\xff")}
	address, _ := serve(t, storetest.NewFake(nil, odd))
	s := start(t, func(cfg *Config) { cfg.Addresses = []string{address} })
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(newConnections(s, nil))
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Len(t, families, 1)
	require.Equal(t, "store\uFFFD", families[0].Metric[0].Label[1].GetValue())
}

func sendJunk(c net.Conn) {
	_, _ = c.Write([]byte(strings.Repeat("junk", 100)))
	_, _ = io.Copy(io.Discard, c)
}

// doored is a listener that hangs up on everybody until it is opened.
type doored struct {
	net.Listener
	open atomic.Bool
}

func (d *doored) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil || d.open.Load() {
			return conn, err
		}
		_ = conn.Close()
	}
}

// listen treats each connection in its own way, then closes it.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	treat(t, lis, handle)
	return lis.Addr().String()
}

func treat(t *testing.T, lis net.Listener, handle func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				handle(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() { _ = lis.Close(); wg.Wait() })
}

func listenHTTP(t *testing.T, srv *http.Server) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(lis) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return lis.Addr().String()
}

// serveNothing serves gRPC without any service.
func serveNothing(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := grpc.NewServer()
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(lis) })
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	return lis.Addr().String()
}

// refusing serves an endpoint whose health checks end in err.
func refusing(t *testing.T, err error) string {
	t.Helper()
	f := storetest.NewFake(nil, infoOf("store"))
	f.Behave(storetest.Behaviour{Err: err})
	address, _ := serve(t, f)
	return address
}

// names is a DNS whose answers a test sets.
type names struct {
	mu      sync.Mutex
	answers map[string][]string
	err     error
	asked   int
}

func (n *names) Resolve(_ context.Context, name string, _ dns.QType) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	return n.answers[name], n.err
}

func (n *names) lookups() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// used waits until an answer that is given from now on has been gone by.
func (n *names) used(t *testing.T) {
	t.Helper()
	before := n.lookups()
	eventually(t, "another lookup", func() bool { return n.lookups() >= before+2 })
}

func (n *names) set(name string, err error, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers = map[string][]string{name: addresses}
	n.err = err
}

func TestDNS(t *testing.T) {
	a, _ := serve(t, storetest.NewFake(nil, infoOf("a")))
	b, _ := serve(t, storetest.NewFake(nil, infoOf("b")))
	fake := &names{}
	fake.set("stores:1", nil, a, b)
	s := build(t, func(c *Config) { c.Addresses, c.UnhealthyTimeout = []string{"dns+stores:1"}, model.Duration(time.Hour) })
	s.resolver.dns = fake
	run(t, s)
	require.Len(t, s.Peers(), 2)

	fake.set("stores:1", errors.New("server misbehaving"))
	fake.used(t)
	require.Len(t, s.Peers(), 2, "the last good answer stays")

	fake.set("stores:1", nil, b)
	eventually(t, "one left", func() bool { return len(s.Peers()) == 1 })
	require.Equal(t, b, s.Peers()[0].Name)

	fake.set("stores:1", nil)
	eventually(t, "a hole is told of", func() bool {
		peers := s.Peers()
		return len(peers) == 1 && peers[0].Name == "dns+stores:1" && peers[0].Down != nil
	})
	require.Contains(t, s.Endpoints()[0].LastError, "DNS has no addresses for this name")
}

// An address that discovery lists but that has long been silent leaves the list;
// it comes back when it answers.
func TestStaleEndpoint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sd.json")
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	door := &doored{Listener: lis}
	serveOn(t, door, storetest.NewFake(nil, infoOf("store")))
	address := lis.Addr().String()
	require.NoError(t, os.WriteFile(file, []byte(`[{"targets":["`+address+`"]}]`), 0o600))
	s := build(t, func(c *Config) {
		c.Files = []string{file}
		c.UnhealthyTimeout = model.Duration(time.Hour)
	})
	var silent atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(silent.Load())) }
	run(t, s)
	require.Len(t, s.Peers(), 1)
	silent.Store(int64(time.Hour))
	eventually(t, "stale", func() bool { return len(s.Peers()) == 0 && len(s.Endpoints()) == 0 })
	door.open.Store(true)
	eventually(t, "back", func() bool { return len(s.Peers()) == 1 })
	require.NoError(t, os.WriteFile(file, []byte(`[]`), 0o600))
	eventually(t, "gone", func() bool { return len(s.Peers()) == 0 })
}

// RELIABILITY K1: a bad configuration leaves the old one in force.
func TestReload(t *testing.T) {
	a, _ := serve(t, storetest.NewFake(nil, infoOf("a")))
	b, _ := serve(t, storetest.NewFake(nil, infoOf("b")))
	file := filepath.Join(t.TempDir(), "endpoints.yaml")
	write := func(content string) { require.NoError(t, os.WriteFile(file, []byte(content), 0o600)) }
	write("endpoints:\n- address: " + a + "\n")
	s := start(t, func(c *Config) { c.SDConfigFile = file })
	require.Equal(t, a, s.Peers()[0].Name)
	_, first := s.LastReload()
	for _, bad := range []string{"", "endpoints: [", "endpoints:\n- adress: x:1\n"} {
		write(bad)
		require.ErrorContains(t, s.Reload(), "endpoints.yaml")
		ok, at := s.LastReload()
		require.False(t, ok)
		require.Equal(t, first, at)
		rounds(t, s)
		require.Equal(t, a, s.Peers()[0].Name)
	}
	write("endpoints:\n- address: " + b + "\n")
	require.NoError(t, s.Reload())
	eventually(t, "the new one", func() bool { p := s.Peers(); return len(p) == 1 && p[0].Name == b })
	cfg, err := defaults(t, "--endpoint.sd-config-file=/nonexistent")
	require.NoError(t, err)
	_, err = New(cfg, nil, quiet(), prometheus.NewRegistry())
	require.ErrorContains(t, err, "--endpoint.sd-config-file")
}

// A group is one endpoint; its members are asked in turn, and one that is gone is left out.
func TestGroup(t *testing.T) {
	one, two := storetest.NewFake(nil, infoOf("ingest")), storetest.NewFake(nil, infoOf("ingest"))
	a, stopA := serve(t, one)
	b, _ := serve(t, two)
	fake := &names{}
	fake.set("group:1", nil, a, b)
	s := build(t, func(c *Config) { c.Groups = []string{"dns+group:1"} })
	s.resolver.dns = fake
	run(t, s)
	ask := func() error {
		_, _, err := s.Peers()[0].Services.Store.LabelNames(context.Background(), storeapi.Selection{Maxt: 1})
		return err
	}
	require.Len(t, s.Peers(), 1)
	eventually(t, "both asked", func() bool {
		require.NoError(t, ask())
		return len(one.Selections()) > 0 && len(two.Selections()) > 0
	})
	stopA()
	for range 5 {
		require.NoError(t, ask())
	}
	fake.set("group:1", nil, b)
	fake.used(t)
	require.NoError(t, ask())
}
