package ha

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

var (
	_ Store       = kv.Client(nil)
	_ codec.Codec = Codec{}
)

// network is stores that tell each other what changed, late.
type network struct {
	t     testing.TB
	delay time.Duration

	mu     sync.Mutex
	stores []*node
	cut    atomic.Bool // nothing passes
}

// node is the store of one router.
type node struct {
	net     *network
	mu      sync.Mutex
	values  map[string]elections
	watches []func(string, any) bool
}

func (n *network) node() *node {
	s := &node{net: n, values: map[string]elections{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.stores) > 0 { // who joins is told everything
		first := n.stores[0]
		first.mu.Lock()
		defer first.mu.Unlock()
		for k, v := range first.values {
			s.values[k] = v.Clone().(elections)
		}
	}
	n.stores = append(n.stores, s)
	return s
}

func (s *node) List(_ context.Context, prefix string) (keys []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.values {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func (s *node) Get(_ context.Context, key string) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values[key].Clone(), nil
}

func (s *node) CAS(_ context.Context, key string, f func(any) (any, bool, error)) error {
	s.mu.Lock()
	var in any
	if v, ok := s.values[key]; ok {
		in = v.Clone()
	}
	out, _, err := f(in)
	s.mu.Unlock()
	if err != nil || out == nil {
		return err
	}
	change := s.merge(key, out.(elections))
	b, err := Codec{}.Encode(change)
	require.NoError(s.net.t, err)
	s.net.tell(s, key, b)
	return nil
}

func (s *node) merge(key string, with elections) elections {
	s.mu.Lock()
	if s.values[key] == nil {
		s.values[key] = elections{}
	}
	change, err := s.values[key].Merge(with, true)
	require.NoError(s.net.t, err)
	watches, now := s.watches, s.values[key].Clone()
	s.mu.Unlock()
	if change == nil {
		return elections{}
	}
	for _, f := range watches {
		f(key, now)
	}
	return change.(elections)
}

func (n *network) tell(from *node, key string, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.stores {
		if s == from || n.cut.Load() {
			continue
		}
		time.AfterFunc(n.delay, func() {
			v, err := Codec{}.Decode(b)
			require.NoError(n.t, err)
			s.merge(key, v.(elections))
		})
	}
}

func (s *node) WatchPrefix(ctx context.Context, _ string, f func(string, any) bool) {
	s.mu.Lock()
	s.watches = append(s.watches, f)
	s.mu.Unlock()
	<-ctx.Done()
}

var (
	testPair  = Pair{"team", "eu"}
	testRules = Rules{Failover: 30 * time.Second, Update: 10 * time.Second, MaxClusters: 3}
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs a tracker whose clock is wrong by skew.
func start(t testing.TB, store Store, skew time.Duration) (tr *Tracker, stop func()) {
	tr = New(store, quiet(), prometheus.NewRegistry())
	tr.now = func() time.Time { return time.Now().Add(skew) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		require.NoError(t, tr.Run(ctx))
	}()
	return tr, func() { cancel(); <-done }
}

func (t *Tracker) send(replica string) Verdict {
	return t.Take(testPair, replica, testRules, t.now())
}

func TestFailOverAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, stop := start(t, nil, 0)
		defer stop()
		require.Equal(t, Elected, tr.send("a"), "the first that comes")
		require.Equal(t, Standby, tr.send("b"))
		for range 10 {
			time.Sleep(10 * time.Second)
			require.Equal(t, Standby, tr.send("b"))
			require.Equal(t, Elected, tr.send("a"))
		}
		time.Sleep(30 * time.Second)
		require.Equal(t, Standby, tr.send("b"), "silent for no longer than the time-out")
		time.Sleep(time.Second)
		require.Equal(t, Elected, tr.send("b"))
		// The old one comes back: no flapping.
		for range 10 {
			require.Equal(t, Standby, tr.send("a"))
			require.Equal(t, Elected, tr.send("b"))
			time.Sleep(15 * time.Second)
		}
		s := tr.Status()
		require.Len(t, s, 1)
		require.Equal(t, "b", s[0].Replica)
		require.Equal(t, "a", s[0].Standby)
		require.EqualValues(t, 2, s[0].Term)
	})
}

func TestPairsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, stop := start(t, nil, 0)
		defer stop()
		for i := range 3 {
			require.Equal(t, Elected, tr.Take(Pair{"team", fmt.Sprint(i)}, "a", testRules, tr.now()))
		}
		require.Equal(t, TooMany, tr.Take(Pair{"team", "3"}, "a", testRules, tr.now()))
		require.Equal(t, Elected, tr.Take(Pair{"other", "3"}, "a", testRules, tr.now()), "another tenant has its own bound")
		require.Equal(t, Elected, tr.Take(Pair{"team", "0"}, "a", testRules, tr.now()), "known ones go on")

		time.Sleep(2*silentFor + time.Hour)
		require.Empty(t, tr.Status(), "silent ones make room")
		require.Equal(t, Elected, tr.Take(Pair{"team", "3"}, "a", testRules, tr.now()))
	})
}

// TestTwoRoutersAgree: each of two routers gets one sender; clocks may be wrong by hours.
func TestTwoRoutersAgree(t *testing.T) {
	for _, skew := range []time.Duration{0, 2 * time.Hour, -2 * time.Hour} {
		t.Run(fmt.Sprint("skew=", skew), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := &network{t: t, delay: time.Second}
				one, stopOne := start(t, net.node(), 0)
				defer stopOne()
				two, stopTwo := start(t, net.node(), skew)
				defer stopTwo()

				// Both elect before they know of each other, and agree soon after.
				require.Equal(t, Elected, one.send("a"))
				require.Equal(t, Elected, two.send("b"))
				time.Sleep(3 * time.Second)
				elected := one.Status()[0].Replica
				require.Equal(t, elected, two.Status()[0].Replica)
				took := map[string]*Tracker{"a": one, "b": two}
				standby := map[string]string{"a": "b", "b": "a"}[elected]

				// As long as the elected one sends, the other stays out, though its router never sees the elected one.
				for range 40 {
					time.Sleep(5 * time.Second)
					require.Equal(t, Elected, took[elected].send(elected))
					require.Equal(t, Standby, took[standby].send(standby))
				}
				told := took[elected].Status()[0].Term

				// Then it is silent.
				var since time.Duration
				for took[standby].send(standby) == Standby {
					time.Sleep(time.Second)
					since += time.Second
				}
				require.Greater(t, since, 17*time.Second)
				require.LessOrEqual(t, since, 32*time.Second)
				time.Sleep(3 * time.Second)
				require.Equal(t, Standby, took[elected].send(elected), "it comes back too late")
				require.Equal(t, told+1, took[elected].Status()[0].Term)
			})
		})
	}
}

// TestNewRouterJoins: it hears first, and does not overrule what is elected.
func TestNewRouterJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &network{t: t, delay: time.Second}
		one, stopOne := start(t, net.node(), 0)
		defer stopOne()
		one.send("a")
		time.Sleep(time.Minute)
		two, stopTwo := start(t, net.node(), -time.Hour)
		defer stopTwo()
		synctest.Wait()
		for range 20 {
			require.Equal(t, Elected, one.send("a"))
			require.Equal(t, Standby, two.send("b"))
			time.Sleep(5 * time.Second)
		}
	})
}

// TestCutOff: both sides take a sender while they don't see each other, and one of them afterwards.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := &network{t: t, delay: time.Second}
		one, stopOne := start(t, net.node(), 0)
		defer stopOne()
		two, stopTwo := start(t, net.node(), 0)
		defer stopTwo()
		both := func(rounds int) (a, b Verdict) {
			for range rounds {
				a, b = one.send("a"), two.send("b")
				time.Sleep(5 * time.Second)
			}
			return a, b
		}
		both(5)
		net.cut.Store(true)
		a, b := both(20)
		require.Equal(t, []Verdict{Elected, Elected}, []Verdict{a, b})
		net.cut.Store(false)
		a, b = both(20)
		require.Equal(t, 1, int(a)+int(b), "one Elected, one Standby")
	})
}

// TestUpdatesAreRare: signs of life are told once an interval, however often samples come.
func TestUpdatesAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := (&network{t: t}).node()
		tr, stop := start(t, store, 0)
		defer stop()
		began := time.Now()
		for time.Since(began) < 100*time.Second {
			tr.send("a")
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		require.LessOrEqual(t, testutil.ToFloat64(tr.metrics.told), 11.0)
		require.GreaterOrEqual(t, testutil.ToFloat64(tr.metrics.told), 8.0)
	})
}

// TestElectionsMerge: in whatever order and how often news comes, all end with the same.
func TestElectionsMerge(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	random := func() elections {
		e := elections{}
		for range r.IntN(4) {
			e[fmt.Sprint(r.IntN(3))] = Election{Replica: []string{"", "a", "b"}[r.IntN(3)], Term: r.Uint64N(3), Since: r.Int64N(3), Beat: r.Int64N(3)}
		}
		return e
	}
	merged := func(all ...elections) elections {
		out := elections{}
		for _, e := range all {
			_, err := out.Merge(e.Clone(), false)
			require.NoError(t, err)
		}
		return out
	}
	for range 2000 {
		a, b, c := random(), random(), random()
		require.Equal(t, merged(a, b), merged(b, a))
		require.Equal(t, merged(merged(a, b), c), merged(a, merged(b, c)))
		both := merged(a, b)
		change, err := both.Merge(b, false)
		require.NoError(t, err)
		require.Nil(t, change, "the same again is no change")
		before := a.Clone()
		change, err = a.Merge(b, false)
		require.NoError(t, err)
		if change != nil {
			require.Equal(t, a, merged(before.(elections), change.(elections)), "the change alone is enough for others")
		}
	}
}

func TestTombstones(t *testing.T) {
	e := elections{"old": {Term: 3, Since: 1000}, "new": {Term: 3, Since: 9000}, "taken": {Replica: "a", Since: 1}}
	total, removed := e.Clone().RemoveTombstones(time.Time{})
	require.Equal(t, []int{2, 0}, []int{total, removed}, "they are not hidden")
	total, removed = e.RemoveTombstones(time.UnixMilli(5000))
	require.Equal(t, []int{1, 1}, []int{total, removed})
	require.Equal(t, []string{"new", "taken"}, e.MergeContent())
}

func FuzzCodec(f *testing.F) {
	good, err := Codec{}.Encode(elections{"eu": {Replica: "a", Term: 1, Since: 2, Beat: 3}})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"pairs":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Codec{}.Decode(b)
		if err != nil {
			return
		}
		again, err := Codec{}.Encode(v)
		require.NoError(t, err)
		back, err := Codec{}.Decode(again)
		require.NoError(t, err)
		require.Equal(t, v, back)
	})
}

// TestMemberlist: what we tell goes by dskit's gossip store as it is.
func TestMemberlist(t *testing.T) {
	store := gossipStore(t)
	rules := testRules
	rules.Failover = time.Hour // the clock is a real one: nobody is silent for that long
	one, stopOne := start(t, store, 0)
	defer stopOne()
	require.Equal(t, Elected, one.Take(testPair, "a", rules, one.now()))
	two, stopTwo := start(t, store, 0)
	defer stopTwo()
	require.Eventually(t, func() bool {
		s := two.Status()
		return len(s) == 1 && s[0].Replica == "a"
	}, 2*time.Minute, 10*time.Millisecond)
	require.Equal(t, Standby, two.Take(testPair, "b", rules, two.now()))

	v, err := store.Get(t.Context(), keyPrefix+"team")
	require.NoError(t, err)
	require.Equal(t, "a", v.(elections)["eu"].Replica)
	require.Implements(t, (*memberlist.Mergeable)(nil), v)
}
