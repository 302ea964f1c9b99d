package fanout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// fixed is a list of peers that doesn't change.
type fixed []endpoint.Peer

func (f fixed) Peers() []endpoint.Peer { return f }

func config() Config {
	return Config{MaxBufferedFrames: 2, MaxHops: 8}
}

func newFanout(cfg Config, peers ...endpoint.Peer) *Fanout {
	return New(cfg, fixed(peers), labels.EmptyLabels(), parser.NewParser(parser.Options{}), prometheus.NewRegistry())
}

// peerOf returns an endpoint in this process.
func peerOf(name string, store storeapi.Store) endpoint.Peer {
	info := everything()
	return endpoint.Peer{Name: name, Known: true, Info: info, Services: storeapi.Services{Store: store}}
}

func everything() storeapi.Info {
	return storeapi.Info{
		Mint: math.MinInt64, Maxt: math.MaxInt64, SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{Store: true},
	}
}

// fake returns a store of n series, with one sample each.
func fake(t testing.TB, from, n int, extra ...string) *storetest.Fake {
	t.Helper()
	return storetest.NewFake(seriesOf(t, from, n, extra...), everything())
}

func seriesOf(t testing.TB, from, n int, extra ...string) (out []storeapi.Series) {
	t.Helper()
	for i := range n {
		out = append(out, storeapi.Series{
			Labels: labels.FromStrings(append([]string{"__name__", "up", "i", fmt.Sprintf("%05d", from+i)}, extra...)...),
			Chunks: storetest.Chunks(t, []storetest.Sample{{T: int64(from + i), V: 1}}, false, 0),
		})
	}
	return out
}

func all(partial bool) storeapi.Selection {
	return storeapi.Selection{
		Mint: math.MinInt64, Maxt: math.MaxInt64, PartialResponse: partial,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")},
	}
}

// read returns all series of a selection with its warnings and error.
func read(ctx context.Context, s storeapi.Store, sel storeapi.Selection) (names []string, warnings []string, err error) {
	set, err := s.Series(ctx, sel)
	if err != nil {
		return nil, nil, err
	}
	defer set.Close()
	for set.Next() {
		names = append(names, set.At().Labels.Get("i"))
	}
	return names, set.Report().Warnings, set.Err()
}

func TestMergesAllEndpoints(t *testing.T) {
	f := newFanout(config(), peerOf("a", fake(t, 0, 1000)), peerOf("b", fake(t, 500, 1000)), peerOf("c", fake(t, 0, 0)))
	names, warnings, err := read(context.Background(), f, all(false))
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Len(t, names, 1500)
	require.True(t, slices.IsSorted(names))

	limited := all(false)
	limited.Limit = 7
	names, _, err = read(context.Background(), f, limited)
	require.NoError(t, err)
	require.Len(t, names, 7)

	values, report, err := f.LabelValues(context.Background(), "i", limited)
	require.NoError(t, err)
	require.Empty(t, report.Warnings)
	require.Equal(t, names, values, "the first ones")
	labelNames, _, err := f.LabelNames(context.Background(), all(false))
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "i"}, labelNames)
}

// One endpoint that fails: a warning that names it, or an error, in each call.
func TestPartialResponse(t *testing.T) {
	for name, misbehave := range map[string]storetest.Behaviour{
		"at once":    {Err: errors.New("endpoint bad: disk on fire")},
		"mid-stream": {StreamErr: errors.New("endpoint bad: disk on fire"), FailAfter: 100},
	} {
		t.Run(name, func(t *testing.T) {
			bad := fake(t, 0, 1000)
			bad.Behave(misbehave)
			f := newFanout(config(), peerOf("good", fake(t, 5000, 1000)), peerOf("bad", bad))
			names, warnings, err := read(context.Background(), f, all(true))
			require.NoError(t, err)
			require.Equal(t, []string{"endpoint bad: disk on fire"}, warnings)
			require.GreaterOrEqual(t, len(names), 1000)
			_, _, err = read(context.Background(), f, all(false))
			require.ErrorIs(t, err, storeapi.ErrPartial)
			require.ErrorContains(t, err, "endpoint bad: disk on fire")
			if misbehave.Err == nil {
				return
			}
			_, report, err := f.LabelNames(context.Background(), all(true))
			require.NoError(t, err)
			require.Equal(t, []string{"endpoint bad: disk on fire"}, report.Warnings)
			_, _, err = f.LabelValues(context.Background(), "i", all(false))
			require.ErrorIs(t, err, storeapi.ErrPartial)
		})
	}
}

// What an endpoint warns of is passed on with its name, or is an error where all is wanted.
func TestWarningsKeepTheirPath(t *testing.T) {
	below := fake(t, 0, 1)
	below.Behave(storetest.Behaviour{Report: storeapi.Report{Warnings: []string{"endpoint q: endpoint s: gone"}}})
	f := newFanout(config(), peerOf("q", below))
	_, warnings, err := read(context.Background(), f, all(true))
	require.NoError(t, err)
	require.Equal(t, []string{"endpoint q: endpoint s: gone"}, warnings)
	_, _, err = read(context.Background(), f, all(false))
	require.ErrorIs(t, err, storeapi.ErrPartial)
}

// An endpoint known to be down is told of without being asked.
func TestDownEndpoint(t *testing.T) {
	store := fake(t, 0, 1)
	down := peerOf("down", store)
	down.Down = fmt.Errorf("%w since noon", storeapi.ErrUnavailable)
	f := newFanout(config(), peerOf("good", fake(t, 5, 1)), down)
	names, warnings, err := read(context.Background(), f, all(true))
	require.NoError(t, err)
	require.Equal(t, []string{"00005"}, names)
	require.Equal(t, []string{"endpoint down: unavailable since noon"}, warnings)
	require.Empty(t, store.Selections())
	_, _, err = read(context.Background(), f, all(false))
	require.ErrorIs(t, err, storeapi.ErrPartial)
	_, _, _, err = rules(f)
	require.NoError(t, err, "a store without rules leaves no hole among them")
}

func rules(f *Fanout) ([]storeapi.RuleGroup, []string, int, error) {
	groups, warnings, err := f.Rules(context.Background(), storeapi.RulesRequest{}, false)
	return groups, warnings, len(groups), err
}

// RELIABILITY Q2
func TestAllEndpointsDead(t *testing.T) {
	dead := fake(t, 0, 1)
	dead.Behave(storetest.Behaviour{Err: errors.New("endpoint dead: no")})
	down := peerOf("down", fake(t, 0, 1))
	down.Down = errors.New("since noon")
	f := newFanout(config(), peerOf("dead", dead), down)
	_, _, err := read(context.Background(), f, all(true))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	require.ErrorContains(t, err, "endpoint dead: no; endpoint down: since noon")
	_, _, err = f.LabelNames(context.Background(), all(true))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	_, _, err = f.Metadata(context.Background(), "", -1, true)
	require.NoError(t, err, "neither serves metadata")

	refusing := fake(t, 0, 1)
	refusing.Behave(storetest.Behaviour{Err: fmt.Errorf("%w: what?", storeapi.ErrBadRequest)})
	_, _, err = read(context.Background(), newFanout(config(), peerOf("r", refusing)), all(true))
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
	require.NotErrorIs(t, err, storeapi.ErrUnavailable)
}

func TestNoEndpoints(t *testing.T) {
	f := newFanout(config())
	_, _, err := read(context.Background(), f, all(false))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
	require.ErrorContains(t, err, "--endpoint")
	_, warnings, err := read(context.Background(), f, all(true))
	require.NoError(t, err)
	require.Len(t, warnings, 1)
}

// RELIABILITY Q1: one that hangs before it answers, one that hangs mid-stream and
// one that drips are cut; the rest is complete.
func TestHangingEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		b        storetest.Behaviour
		response time.Duration // --store.response-timeout
		timeout  time.Duration // of the request
		wantText string
	}{
		"before headers":            {storetest.Behaviour{Delay: time.Hour}, 100 * time.Millisecond, time.Minute, "--store.response-timeout"},
		"mid-stream":                {storetest.Behaviour{SeriesDelay: time.Hour}, 100 * time.Millisecond, time.Minute, "--store.response-timeout"},
		"before headers, unlimited": {storetest.Behaviour{Delay: time.Hour}, 0, 3 * time.Second, "nine tenths"},
		"drips":                     {storetest.Behaviour{SeriesDelay: 20 * time.Millisecond}, time.Second, 3 * time.Second, "nine tenths"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := inBubble()
				hanging := fake(t, 0, 1000)
				hanging.Behave(c.b)
				cfg := config()
				cfg.ResponseTimeout = model.Duration(c.response)
				f := newFanout(cfg, peerOf("good", fake(t, 5000, 1000)), peerOf("hanging", hanging))
				ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
				defer cancel()
				names, warnings, err := read(ctx, f, all(true))
				require.NoError(t, err)
				require.Len(t, warnings, 1)
				require.Contains(t, warnings[0], "endpoint hanging: ")
				require.Contains(t, warnings[0], c.wantText)
				require.Equal(t, 1000, len(slices.DeleteFunc(names, func(n string) bool { return n < "05000" })))
				require.NoError(t, ctx.Err(), "time is left")
				if c.b.Delay > 0 {
					ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
					defer cancel()
					_, report, err := f.LabelNames(ctx, all(true))
					require.NoError(t, err)
					require.Len(t, report.Warnings, 1)
				}
				require.Zero(t, hanging.Open())
				synctest.Wait()
				require.Equal(t, base, inBubble(), "nothing goes on below")
			})
		})
	}
}

// inBubble are the goroutines in the caller's bubble, itself among them. Others of the process come and go.
func inBubble() int {
	stacks := make([]byte, 1<<20)
	own := bytes.SplitN(stacks[:runtime.Stack(stacks, false)], []byte("\n"), 2)[0]
	bubble := own[bytes.LastIndex(own, []byte("synctest bubble ")):] // to the end of the line
	n := 0
	for line := range bytes.Lines(stacks[:runtime.Stack(stacks, true)]) {
		if bytes.HasPrefix(line, []byte("goroutine ")) && bytes.Contains(line, bytes.TrimSpace(bubble)) {
			n++
		}
	}
	return n
}

// A consumer that takes its time is not the endpoint's fault, and what is read
// ahead for it is bounded.
func TestSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var produced atomic.Int64
		cfg := config()
		cfg.ResponseTimeout = model.Duration(500 * time.Millisecond)
		f := newFanout(cfg, peerOf("a", &counted{Store: fake(t, 0, 2000), n: &produced}))
		set, err := f.Series(context.Background(), all(false))
		require.NoError(t, err)
		defer set.Close()
		require.True(t, set.Next())
		time.Sleep(time.Second)
		synctest.Wait()
		require.LessOrEqual(t, produced.Load(), int64((cfg.MaxBufferedFrames+2)*batchSeries))
		n := 1
		for set.Next() {
			n++
		}
		require.NoError(t, set.Err())
		require.Equal(t, 2000, n)
	})
}

// counted counts the series that are read of a store.
type counted struct {
	storeapi.Store
	n *atomic.Int64
}

func (c *counted) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	set, err := c.Store.Series(ctx, sel)
	return &countedSet{set, c.n}, err
}

type countedSet struct {
	storeapi.SeriesSet
	n *atomic.Int64
}

func (s *countedSet) Next() bool {
	s.n.Add(1)
	return s.SeriesSet.Next()
}

// RELIABILITY Q7: when the client leaves, everything below stops, without blame.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := fake(t, 0, 1000)
		slow.Behave(storetest.Behaviour{SeriesDelay: time.Hour})
		f := newFanout(config(), peerOf("slow", slow))
		ctx, cancel := context.WithCancel(context.Background())
		const leaves = 50 * time.Millisecond
		time.AfterFunc(leaves, cancel)
		began := time.Now()
		_, warnings, err := read(ctx, f, all(true))
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, warnings)
		require.Equal(t, leaves, time.Since(began))
		require.Zero(t, slow.Open())

		set, err := f.Series(context.Background(), all(true))
		require.NoError(t, err)
		set.Close()
		set.Close()
		require.False(t, set.Next())
		require.Zero(t, slow.Open())
	})
}

// RELIABILITY P7: over a limit the request fails, also where parts may be missing.
func TestLimits(t *testing.T) {
	cfg := config()
	cfg.SeriesLimit = 9
	_, _, err := read(context.Background(), newFanout(cfg, peerOf("a", fake(t, 0, 10))), all(true))
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.ErrorContains(t, err, "--store.limits.request-series")
	cfg = config()
	cfg.SampleLimit = 9
	_, _, err = read(context.Background(), newFanout(cfg, peerOf("a", fake(t, 0, 10))), all(true))
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.ErrorContains(t, err, "--store.limits.request-samples")
	cfg.SampleLimit = 10
	_, _, err = read(context.Background(), newFanout(cfg, peerOf("a", fake(t, 0, 10))), all(true))
	require.NoError(t, err)

	below := fake(t, 0, 1)
	below.Behave(storetest.Behaviour{StreamErr: fmt.Errorf("endpoint a: %w: too much (--x)", storeapi.ErrLimit)})
	_, _, err = read(context.Background(), newFanout(config(), peerOf("a", below), peerOf("b", fake(t, 0, 1))), all(true))
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.ErrorContains(t, err, "endpoint a: ")
}

// What an endpoint can't do is done here.
func TestReworksForSimpleEndpoints(t *testing.T) {
	series := append(seriesOf(t, 0, 50, "replica", "a"), seriesOf(t, 0, 50, "replica", "b")...)
	simple := everything()
	simple.SupportsSharding, simple.SupportsWithoutReplicaLabels = false, false
	able, unable := storetest.NewFake(series, everything()), storetest.NewFake(series, simple)
	sel := all(false)
	sel.WithoutReplicaLabels = []string{"replica"}
	sel.Shard = &storeapi.Shard{Index: 1, Total: 3}
	want, _, err := read(context.Background(), newFanout(config(), peerOf("able", able)), sel)
	require.NoError(t, err)
	p := peerOf("unable", unable)
	p.Info = simple
	f := newFanout(config(), p)
	got, _, err := read(context.Background(), f, sel)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NotEmpty(t, got)
	require.Less(t, len(got), 50)

	names, _, err := f.LabelNames(context.Background(), sel)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "i"}, names)
	values, _, err := f.LabelValues(context.Background(), "replica", sel)
	require.NoError(t, err)
	require.Empty(t, values)
}

// An endpoint whose series are out of order is named, and costs only its own.
func TestUnsortedEndpoint(t *testing.T) {
	series := seriesOf(t, 0, 10)
	slices.Reverse(series)
	f := newFanout(config(), peerOf("good", fake(t, 5000, 3)), peerOf("bad", sliceStore{series: series}))
	names, warnings, err := read(context.Background(), f, all(true))
	require.NoError(t, err)
	require.Len(t, names, 4)
	require.Len(t, warnings, 1)
	require.True(t, strings.HasPrefix(warnings[0], "endpoint bad: corrupt data: series "), warnings[0])
}

// sliceStore answers every selection with the same series, as they are.
type sliceStore struct {
	storeapi.Store // the rest, not called
	series         []storeapi.Series
}

func (s sliceStore) Series(context.Context, storeapi.Selection) (storeapi.SeriesSet, error) {
	return storeapi.SliceSet(s.series, storeapi.Report{}), nil
}

func TestSelectorLabels(t *testing.T) {
	store := fake(t, 0, 3)
	f := New(config(), fixed{peerOf("a", store)}, labels.FromStrings("region", "eu"), parser.NewParser(parser.Options{}), prometheus.NewRegistry())
	region := func(v string) storeapi.Selection {
		sel := all(false)
		sel.Matchers = append(sel.Matchers, labels.MustNewMatcher(labels.MatchEqual, "region", v))
		return sel
	}
	names, _, err := read(context.Background(), f, region("eu"))
	require.NoError(t, err)
	require.Len(t, names, 3)
	names, _, err = read(context.Background(), f, region("us"))
	require.NoError(t, err)
	require.Empty(t, names)
	sel := region("eu")
	sel.Matchers = sel.Matchers[1:]
	_, _, err = read(context.Background(), f, sel)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
	_, _, err = read(context.Background(), f, storeapi.Selection{})
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
}

// The conformance suite over an endpoint of ours.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, in storetest.Input) storeapi.Store {
		store := storetest.NewFakeOf(t, in)
		info, err := store.Info(context.Background())
		require.NoError(t, err)
		return newFanout(config(), endpoint.Peer{Name: "a", Known: true, Info: info, Services: storeapi.Services{Store: store}})
	})
}

// Allocations of merging grow with series, not with samples.
func BenchmarkMerge(b *testing.B) {
	for _, c := range []struct{ endpoints, series, samples int }{{2, 1000, 120}, {2, 1000, 1200}, {16, 1000, 120}} {
		b.Run(fmt.Sprintf("endpoints=%d,series=%d,samples=%d", c.endpoints, c.series, c.samples), func(b *testing.B) {
			var peers []endpoint.Peer
			for e := range c.endpoints {
				peers = append(peers, peerOf(fmt.Sprint(e), sliceStore{series: benchSeries(b, e, c.series, c.samples)}))
			}
			f := newFanout(config(), peers...)
			b.ReportAllocs()
			for b.Loop() {
				set, err := f.Series(context.Background(), all(false))
				require.NoError(b, err)
				for set.Next() {
				}
				require.NoError(b, set.Err())
				set.Close()
			}
		})
	}
}

func benchSeries(b *testing.B, endpoint, series, samples int) []storeapi.Series {
	var list []storetest.Sample
	for i := range samples {
		list = append(list, storetest.Sample{T: int64(i) * 15_000, V: float64(i * endpoint)})
	}
	chunks := storetest.Chunks(b, list, false, 0)
	var out []storeapi.Series
	for i := range series {
		out = append(out, storeapi.Series{Labels: labels.FromStrings("__name__", "up", "i", fmt.Sprintf("%05d", i)), Chunks: chunks})
	}
	return out
}
