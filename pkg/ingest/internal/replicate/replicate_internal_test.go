package replicate

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// RELIABILITY I6: the verdict is what every way the missing answers can turn out leads to.
func TestVerdict(t *testing.T) {
	final := func(v votes) verdict {
		switch {
		case v.ok >= v.quorum:
			return accepted
		case v.owners >= v.quorum && v.refused > v.owners-v.quorum:
			return refused
		}
		return failed
	}
	var twin func(v votes) verdict
	twin = func(v votes) verdict {
		if v.ok+v.refused+v.failed == v.owners {
			return final(v)
		}
		a, b, c := v, v, v
		a.ok++
		b.refused++
		c.failed++
		if x := twin(a); x == twin(b) && x == twin(c) {
			return x
		}
		return open
	}
	n := 0
	for owners := range uint16(6) {
		for quorum := uint16(1); quorum < 4; quorum++ {
			for ok := range owners + 1 {
				for no := range owners - ok + 1 {
					for bad := range owners - ok - no + 1 {
						v := votes{owners, quorum, ok, no, bad}
						require.Equal(t, twin(v), v.verdict(), "%+v", v)
						n++
					}
				}
			}
		}
	}
	require.Greater(t, n, 200)
}

func refusing(reason refuse.Reason, samples int) func(context.Context, *batch.Write) (batch.Result, error) {
	return func(_ context.Context, w *batch.Write) (batch.Result, error) {
		return batch.Result{Refused: []batch.Refused{{Series: w.Only[0], Samples: samples, Err: refuse.Errorf(reason, w.Tenant, "no")}}}, nil
	}
}

// RELIABILITY I6: of a series that owners took in part, each sample is written if
// a quorum took it, refused if none can any more, else to be sent again: as a
// twin counts that knows which samples they were.
func TestOddSeries(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for range 20_000 {
		owners := 1 + r.Intn(4)
		v := votes{owners: uint16(owners), quorum: uint16(owners/2 + 1)}
		all, o := r.Intn(6), oddSeries{}
		took, refused := make([]int, all), make([]int, all) // owners, by sample
		for i := range owners {
			switch r.Intn(5) {
			case 0:
				v.failed++
			case 1:
				v.refused++
				for s := range all {
					refused[s]++
				}
			case 2: // has not answered
			case 3:
				v.ok++
				for s := range all {
					took[s]++
				}
			default: // refuses the first, of which the first for good
				v.ok++
				by := refusedBy{owner: uint16(i), hard: r.Intn(all + 1)}
				by.soft = r.Intn(all + 1 - by.hard)
				o.by = append(o.by, by)
				for s := range all {
					if s < by.hard {
						refused[s]++
					} else if s >= by.hard+by.soft {
						took[s]++
					}
				}
			}
		}
		written, hard, by := o.counts(v, all)
		wantWritten, wantHard := 0, 0
		for s := range all {
			if took[s] >= int(v.quorum) {
				wantWritten++
			}
			if refused[s] > owners-int(v.quorum) {
				wantHard++
			}
		}
		require.Equal(t, []int{wantWritten, wantHard}, []int{written, hard}, "%+v %+v", v, o)
		if hard > 0 && by != nil {
			require.Equal(t, hard, by.hard)
		}
		if int(v.ok+v.refused+v.failed) == owners {
			require.True(t, o.decided(v, all))
		}
	}
}

// RELIABILITY I6: an owner that takes a series in part is not a quorum of two,
// and what its sender is told asks for the rest again.
func TestPartOfASeries(t *testing.T) {
	old, down := refusing(refuse.SampleTooOld, 2), failing(refuse.Errorf(refuse.Unavailable, "team", "the disk is full"))
	for _, c := range []struct {
		name          string
		nodes         []func(context.Context, *batch.Write) (batch.Result, error)
		refused, left int
	}{
		{"of two one is away", []func(context.Context, *batch.Write) (batch.Result, error){old, down}, 2, 3},
		{"of two the other takes all", []func(context.Context, *batch.Write) (batch.Result, error){old, nil}, 2, 0},
		{"of three one is away", []func(context.Context, *batch.Write) (batch.Result, error){old, old, down}, 2, 0},
		{"of three two refuse different numbers", []func(context.Context, *batch.Write) (batch.Result, error){old, refusing(refuse.SampleTooOld, 4), down}, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := startCluster(t, len(c.nodes), len(c.nodes), testConfig())
			for i, f := range c.nodes {
				cl.nodes[i].set(f)
			}
			w := newRouter("r").write(1000, 7, "first")
			w.Batch.Floats = []batch.Float{{T: 1}, {T: 2}, {T: 3}, {T: 4}, {T: 5}}
			w.Batch.Series[0].Floats.To = 5
			got := map[refuse.Reason]int{}
			tally := cl.send(t, w)
			tally.Each(func(r refuse.Reason, n int, _ *refuse.Error) { got[r] = n })
			want := map[refuse.Reason]int{refuse.SampleTooOld: c.refused}
			if c.left > 0 {
				want[refuse.Unavailable] = c.left
			}
			require.Equal(t, want, got)
			require.Equal(t, c.left > 0, refuse.ReasonOf(tally.Err()).Retry())
		})
	}
}

func failing(err error) func(context.Context, *batch.Write) (batch.Result, error) {
	return func(context.Context, *batch.Write) (batch.Result, error) { return batch.Result{}, err }
}

// RELIABILITY I6: mixed outcomes over replicas and series. In each case the
// first series is what owners differ about; the second goes well where an owner takes anything.
func TestMixedOutcomes(t *testing.T) {
	old := refusing(refuse.SampleTooOld, 1)
	limit := refusing(refuse.SeriesLimit, 1)
	down := failing(refuse.Errorf(refuse.Unavailable, "team", "the disk is full"))
	bug := failing(errors.New("nobody foresaw this"))
	bad := failing(refuse.Errorf(refuse.BadRequest, "team", "bad"))
	type answers []func(context.Context, *batch.Write) (batch.Result, error)
	for _, c := range []struct {
		name    string
		rf      int
		nodes   answers
		reason  refuse.Reason
		refused int // samples
	}{
		{name: "all well", rf: 3, nodes: answers{nil, nil, nil}},
		{name: "one fails", rf: 3, nodes: answers{nil, down, nil}},
		{name: "our own fails", rf: 3, nodes: answers{bug, nil, nil}},
		{name: "one refuses", rf: 3, nodes: answers{nil, old, nil}},
		{name: "two fail", rf: 3, nodes: answers{nil, down, bug}, reason: refuse.Unavailable, refused: 2},
		{name: "two refuse", rf: 3, nodes: answers{old, nil, old}, reason: refuse.SampleTooOld, refused: 1},
		{name: "three refuse", rf: 3, nodes: answers{old, old, old}, reason: refuse.SampleTooOld, refused: 1},
		{name: "one refuses, one fails: the other may come back", rf: 3, nodes: answers{old, down, nil}, reason: refuse.Unavailable, refused: 1},
		{name: "one refuses, two fail", rf: 3, nodes: answers{old, down, down}, reason: refuse.Unavailable, refused: 2},
		{name: "two refuse, one fails: no use to try again", rf: 3, nodes: answers{old, down, old}, reason: refuse.SampleTooOld, refused: 1},
		{name: "limits pass", rf: 3, nodes: answers{limit, limit, nil}, reason: refuse.SeriesLimit, refused: 1},
		{name: "a limit and a failure", rf: 3, nodes: answers{limit, down, nil}, reason: refuse.Unavailable, refused: 1},
		{name: "all refuse the whole", rf: 3, nodes: answers{bad, bad, nil}, reason: refuse.BadRequest, refused: 2},
		{name: "of two both must confirm", rf: 2, nodes: answers{nil, down}, reason: refuse.Unavailable, refused: 2},
		{name: "of two one refuses", rf: 2, nodes: answers{nil, old}, reason: refuse.SampleTooOld, refused: 1},
		{name: "alone", rf: 1, nodes: answers{down}, reason: refuse.Unavailable, refused: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := startCluster(t, c.rf, c.rf, testConfig())
			r := newRouter("r")
			for i, f := range c.nodes {
				cl.nodes[i].set(f)
			}
			tally := cl.send(t, r.write(1000, 7, "first", "second"))
			require.Equal(t, c.reason, reasonOf(tally))
			require.Equal(t, c.refused, tally.Samples())
			for _, n := range cl.nodes {
				n.set(nil)
			}
			require.Eventually(t, func() bool { return cl.send(t, r.write(1000, 7, "first", "second")).Samples() == 0 }, time.Minute, 20*time.Millisecond, "the same again succeeds")
			require.Equal(t, c.rf, cl.copies("second", 1000))
		})
	}
}

// A node that knows no numbers any more is told labels within the same call.
func TestUnknownSeriesAreToldAgain(t *testing.T) {
	cfg := testConfig()
	cl := startCluster(t, 3, 3, cfg)
	r := newRouter("r")
	require.Zero(t, cl.send(t, r.write(1, 1, "a", "b")).Samples())
	for _, n := range cl.nodes {
		require.Equal(t, 2, n.asked)
	}
	require.Zero(t, cl.send(t, r.write(2, 1, "a", "b", "c")).Samples())
	for _, n := range cl.nodes {
		require.Equal(t, 3, n.asked, "labels go once")
		n.forget()
	}
	require.Zero(t, cl.send(t, r.write(3, 1, "b", "c")).Samples())
	for at := int64(1); at < 4; at++ {
		require.Equal(t, 3, cl.copies("b", at))
	}
}

// A node that never learns counts as one that failed.
func TestNodeThatNeverLearns(t *testing.T) {
	cl := startCluster(t, 2, 2, testConfig())
	cl.nodes[1].set(func(_ context.Context, w *batch.Write) (batch.Result, error) {
		w.Batch.Labels = func(int) (labels.Labels, error) { return labels.EmptyLabels(), batch.ErrNoLabels }
		return batch.Result{}, nil
	})
	tally := cl.send(t, newRouter("r").write(1, 1, "a"))
	require.Equal(t, refuse.Unavailable, reasonOf(tally))
	require.ErrorContains(t, tally.Err(), "does not know series")
}

// RELIABILITY P8: a node that hangs costs nothing while others make a quorum.
func TestHangingNode(t *testing.T) {
	cl := startCluster(t, 3, 3, testConfig())
	let := make(chan struct{})
	cl.nodes[1].set(func(context.Context, *batch.Write) (batch.Result, error) { <-let; return batch.Result{}, nil })
	var tally refuse.Tally
	freed := make(chan struct{})
	cl.Write(t.Context(), newRouter("r").write(1, 1, "a"), &tally, func() { close(freed) })
	require.Zero(t, tally.Samples())
	select {
	case <-freed:
		require.Fail(t, "the batch is given back while an owner reads it")
	default:
	}
	close(let)
	<-freed
	require.Equal(t, 3, cl.copies("a", 1))
}

// RELIABILITY P8: what hanging nodes hold is given back after their timeout; then
// they are left alone for a while, and tried one request at a time.
func TestHangingNodesAreLeftAlone(t *testing.T) {
	cfg := testConfig()
	cfg.Timeout = model.Duration(500 * time.Millisecond)
	cl := startCluster(t, 3, 3, cfg)
	now := time.Now().UnixNano()
	cl.still.Store(now)
	var asked atomic.Int64
	for _, n := range cl.nodes[1:] {
		n.set(func(ctx context.Context, _ *batch.Write) (batch.Result, error) {
			asked.Add(1)
			<-ctx.Done()
			return batch.Result{}, ctx.Err()
		})
	}
	r := newRouter("r")
	unavailable := func() { require.Equal(t, refuse.Unavailable, reasonOf(cl.send(t, r.write(2, 1, "a")))) }
	unavailable()
	for range 20 {
		unavailable()
	}
	require.LessOrEqual(t, asked.Load(), int64(2), "each once")
	cl.still.Store(now + int64(minBackoff))
	unavailable()
	unavailable()
	require.LessOrEqual(t, asked.Load(), int64(4), "one more try of each")
	for _, n := range cl.nodes {
		n.set(nil)
	}
	require.Eventually(t, func() bool {
		cl.still.Add(int64(cfg.MaxBackoff))
		return cl.send(t, r.write(2, 1, "a")).Samples() == 0
	}, time.Minute, 20*time.Millisecond)
}

// A writer that goes away gets an answer at once; its owners go on.
func TestWriterGoesAway(t *testing.T) {
	cl := startCluster(t, 3, 3, testConfig())
	let := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, n := range cl.nodes {
		n.set(func(context.Context, *batch.Write) (batch.Result, error) { cancel(); <-let; return batch.Result{}, nil })
	}
	var tally refuse.Tally
	freed := make(chan struct{})
	cl.Write(ctx, newRouter("r").write(1, 1, "a"), &tally, func() { close(freed) })
	require.Equal(t, refuse.Unavailable, reasonOf(&tally))
	close(let)
	<-freed
	require.Equal(t, 3, cl.copies("a", 1))
}

// RELIABILITY I5, I10: while nodes fail, forget, hang and restart, and senders
// send again and again in any order, all that was acknowledged is held by a
// quorum, and nothing else is there.
func TestSetUnderFaults(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	cfg := testConfig()
	cfg.Timeout = model.Duration(100 * time.Millisecond)
	cfg.MaxBackoff = model.Duration(50 * time.Millisecond)
	cfg.MaxFrameBytes = 2000 // so that requests go in parts
	cfg.Compression = "snappy"
	cl := startCluster(t, 5, 3, cfg)
	routers := []*router{newRouter("one"), newRouter("two")}
	acked, sent := map[string][]int64{}, map[string]bool{}
	steps, total := int64(0), 0
	for ; steps < 150 || total <= 100; steps++ { // a slow machine takes more for all that answers in time
		n := cl.nodes[r.Intn(len(cl.nodes))]
		switch r.Intn(12) {
		case 0:
			if n != cl.nodes[0] {
				n.restart(t, cfg)
			}
		case 1:
			n.forget()
		case 2:
			n.set(failing(errors.New("no")))
		case 3:
			n.set(func(ctx context.Context, _ *batch.Write) (batch.Result, error) {
				<-ctx.Done()
				return batch.Result{}, ctx.Err()
			})
		default:
			n.set(nil)
		}
		at := steps
		if r.Intn(3) == 0 {
			at = r.Int63n(steps + 1) // an old one again, or late
		}
		series := names(r, 1+r.Intn(60), 100)
		for _, s := range series {
			sent[fmt.Sprint(s, at)] = true
		}
		if cl.send(t, routers[r.Intn(2)].write(at, 1, series...)).Samples() == 0 {
			for _, s := range series {
				acked[s] = append(acked[s], at)
			}
			total += len(series)
		}
	}
	t.Logf("%d samples acknowledged in %d steps", total, steps)
	for s, times := range acked {
		for _, at := range times {
			require.GreaterOrEqual(t, cl.copies(s, at), 2, "series %s at %d", s, at)
		}
	}
	for s := range 100 {
		for at := range steps {
			name := fmt.Sprintf("m%d", s)
			if !sent[fmt.Sprint(name, at)] {
				require.Zero(t, cl.copies(name, at))
			}
		}
	}
}

// Splitting gives each owner the series of its sets, in their order.
func TestSplit(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	var s split
	for _, nodes := range []int{3, 5, 9} {
		cl := startCluster(t, nodes, 3, testConfig())
		v, err := cl.parts.Ring.View("team")
		require.NoError(t, err)
		for range 20 {
			w := newRouter("r").write(1, 1, names(r, r.Intn(200), 1000)...)
			w.Only = slices.DeleteFunc(w.Only, func(uint32) bool { return r.Intn(4) == 0 })
			want := map[uint16][]uint32{}
			for _, n := range w.Only {
				for _, o := range v.Set(v.Owners(w.Batch.Series[n].Hash)).Owners {
					want[o] = append(want[o], n)
				}
			}
			s.cut(v, w)
			got := map[uint16][]uint32{}
			for _, p := range s.owners {
				got[p.instance] = p.series
			}
			require.Equal(t, want, got)
		}
	}
}

// What a sender says of metrics reaches owners though no series is with it, and
// is not repeated to those who have heard it.
func TestFamiliesAlone(t *testing.T) {
	cl := startCluster(t, 3, 3, testConfig())
	heard := make([]int, 3)
	for i, n := range cl.nodes {
		n.set(func(_ context.Context, w *batch.Write) (batch.Result, error) {
			heard[i] += len(w.Batch.Families)
			return batch.Result{}, nil
		})
	}
	w := &batch.Write{Tenant: "team", Batch: &batch.Batch{Families: []batch.Family{{Name: "up"}, {Name: "down"}}}}
	for range 2 {
		require.Zero(t, cl.send(t, w).Samples())
	}
	require.Equal(t, []int{4, 2, 2}, heard, "the first is this process")
	for _, n := range cl.nodes {
		n.set(failing(errors.New("no")))
	}
	require.Equal(t, refuse.Unavailable, reasonOf(cl.send(t, w)))
}

// RELIABILITY P7, P8: a node that has no room for a frame says so, and is neither
// taken for sick nor left with anything.
func TestFramesAreAdmitted(t *testing.T) {
	cfg := testConfig()
	cfg.Compression = "snappy"
	var room, held atomic.Int64
	admit := func(bytes int64) (Place, error) {
		p := &countedPlace{room: &room, held: &held}
		if err := p.Grow(bytes); err != nil {
			return nil, err
		}
		return p, nil
	}
	cl := startCluster(t, 2, 2, cfg)
	cl.nodes[1].stop()
	h := cl.nodes[1].heads
	_, stop := serveAdmitting(t, cl.nodes[1].addr, h, cfg, admit)
	defer stop()
	r := newRouter("r")
	series := names(rand.New(rand.NewSource(1)), 500, 1000)
	for _, most := range []int64{10, 6000} { // too little for the frame, and for what it inflates to
		room.Store(most)
		require.Eventually(t, func() bool {
			return reasonOf(cl.send(t, r.write(1, 1, series...))) == refuse.Overloaded
		}, time.Minute, 20*time.Millisecond)
		require.Zero(t, h.writes)
	}
	room.Store(1 << 20)
	require.Zero(t, cl.send(t, r.write(1, 1, series...)).Samples(), "at once: it is not left alone")
	require.Zero(t, held.Load())
}

// countedPlace is one among those that share some room.
type countedPlace struct {
	room, held *atomic.Int64
	own        int64
}

func (p *countedPlace) Grow(bytes int64) error {
	if p.held.Load()+bytes > p.room.Load() {
		return refuse.Errorf(refuse.Overloaded, "", "full")
	}
	p.held.Add(bytes)
	p.own += bytes
	return nil
}

func (p *countedPlace) Leave() { p.held.Add(-p.own) }

func TestLocal(t *testing.T) {
	cl := startCluster(t, 3, 3, testConfig())
	var tally refuse.Tally
	cl.Local(t.Context(), newRouter("r").write(1, 1, "a"), &tally, func() {})
	require.Zero(t, tally.Samples())
	require.Equal(t, 1, cl.copies("a", 1))
}

func BenchmarkWrite(b *testing.B) {
	for _, series := range []int{100, 2000} {
		b.Run(fmt.Sprintf("series=%d", series), func(b *testing.B) {
			cl := startCluster(b, 3, 3, testConfig())
			for _, n := range cl.nodes {
				n.nothing = true
			}
			r := newRouter("r")
			var all []string
			for i := range series {
				all = append(all, fmt.Sprintf("m%d", i))
			}
			w := r.write(1, 1, all...)
			b.ReportAllocs()
			for b.Loop() {
				var tally refuse.Tally
				freed := make(chan struct{})
				cl.Write(b.Context(), w, &tally, func() { close(freed) })
				<-freed
				if tally.Samples() > 0 {
					b.Fatal(tally.Err())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*series), "ns/sample")
		})
	}
}
