package plan_test

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

var seed = flag.Uint64("seed", 0, "of the one random run to do; 0: several")

// TestRandomRuns lets blocks arrive, late and out of order too, while workers that
// get killed and workers with stale plans go by what Make says. At each step all
// that policy keeps must be there (RELIABILITY P3, P5, P10, C1, C3, C7), and when
// nothing more comes, work must come to an end.
func TestRandomRuns(t *testing.T) {
	if *seed != 0 {
		randomRun(t, *seed)
		return
	}
	runs := uint64(8)
	if testing.Short() || raced {
		runs = 2
	}
	for n := range runs {
		if !t.Run("", func(t *testing.T) { randomRun(t, n+1) }) {
			t.Fatalf("replay with -run TestRandomRuns -args -seed=%d", n+1)
		}
	}
}

// TestSixtyDays: an HA pair is written for sixty days under a policy whose raw tier
// is as short as is allowed, and downsampling stands still for ten days in between
// (RELIABILITY C7). Raw data is held until it is downsampled, and nothing is lost.
func TestSixtyDays(t *testing.T) {
	cfg := defaultConfig()
	cfg.Dedup, cfg.ReplicaLabels, cfg.MaxIndexBytes = true, []string{"replica"}, 4000
	var err error
	cfg.Policy, err = policy.Parse("f", []byte("rules:\n- selectors: ['{ns=\"dev\"}']\n  raw: 40h\n  5m: 11d\n  1h: 30d\n"),
		policy.Tiers{Raw: 40 * time.Hour, FiveMinutes: 14 * 24 * time.Hour, OneHour: 50 * 24 * time.Hour})
	require.NoError(t, err)
	require.NoError(t, cfg.Policy.Validate())
	s := newSim(t, cfg)
	held := 0
	for s.now = 2 * hour; s.now <= 60*day; s.now += 2 * hour {
		for _, replica := range []string{"a", "b"} {
			s.upload(s.now-2*hour, s.now, 100, "cluster", "eu", "replica", replica)
		}
		if s.now%(12*hour) != 0 {
			continue
		}
		p := s.plan()
		if stands := s.now > 20*day && s.now < 30*day; stands {
			p.Jobs = nil
			held += len(p.Held)
		}
		s.pass(p)
		s.check()
	}
	require.NotZero(t, held)
	s.now += day
	s.settle(40)
	require.Empty(t, s.plan().Held)
	for _, c := range s.plan().Coverage {
		if c.Resolution == block.ResolutionRaw {
			require.Less(t, c.Blocks, 40)
		}
	}
}

// TestHeldForAReason: workers do some of a plan, and now and then nothing for
// days, so that 5m data is in blocks of all lengths when it expires. When there is
// nothing more to do, each block that is held has samples that a coarser tier is
// to keep and hasn't got (RELIABILITY P5, C7).
func TestHeldForAReason(t *testing.T) {
	if *seed != 0 {
		heldForAReason(t, *seed)
		return
	}
	runs := uint64(12)
	if testing.Short() || raced {
		runs = 8
	}
	for n := range runs {
		if !t.Run("", func(t *testing.T) { heldForAReason(t, n+1) }) {
			t.Fatalf("replay with -run TestHeldForAReason -args -seed=%d", n+1)
		}
	}
}

func heldForAReason(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	r := &run{sim: newSim(t, defaultConfig()), rnd: rnd}
	setPolicy(t, &r.cfg, shortPolicy, shortTiers)
	for asleep := int64(0); r.now < 45*day; {
		for range 4 {
			r.now += 8 * hour
			r.upload(r.now-8*hour, r.now, 100, "cluster", "eu")
		}
		if rnd.IntN(6) == 0 {
			asleep = r.now + rnd.Int64N(10*day)
		}
		if r.now < asleep {
			continue
		}
		r.some(r.plan())
		if rnd.IntN(3) == 0 {
			r.settle(60)
			r.needed()
		}
	}
}

// needed fails if a block is held for nothing.
func (r *run) needed() {
	has := map[int64]map[ulid.ULID]bool{block.Resolution5m: {}, block.Resolution1h: {}}
	for id, m := range r.in.Metas {
		for source := range r.content[id] {
			if r.in.Marks[id].Deletion == nil && m.Resolution() > 0 {
				has[m.Resolution()][source] = true
			}
		}
	}
	for _, h := range r.plan().Held {
		reason := false
		for source, series := range r.content[h.Block] {
			for _, resolution := range resolutions[1:] {
				lacks := r.wanted(r.born[source], resolution)&series != 0 && !has[resolution][source]
				reason = reason || resolution > h.Resolution && lacks
			}
		}
		require.True(r.t, reason, "held for nothing at %s: %+v\n%s", r.clock(), h, r.dump(ulid.ULID{}))
	}
}

// shortTiers and shortPolicy are such that 5m data expires while its window of 14
// days fills.
var shortTiers = policy.Tiers{Raw: 6 * 24 * time.Hour, FiveMinutes: 12 * 24 * time.Hour, OneHour: 25 * 24 * time.Hour}

const shortPolicy = "rules:\n- selectors: ['{ns=\"dev\"}']\n  raw: 2d\n  5m: 11d\n"

func setPolicy(t *testing.T, cfg *plan.Config, file string, tiers policy.Tiers) {
	t.Helper()
	var err error
	cfg.Policy, err = policy.Parse("f", []byte(file), tiers)
	require.NoError(t, err)
	require.NoError(t, cfg.Policy.Validate())
}

type run struct {
	*sim
	rnd   *rand.Rand
	stale []plan.Plan
}

func randomRun(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	r := &run{sim: newSim(t, randomConfig(t, rnd)), rnd: rnd}
	days := int64(6 + rnd.IntN(26))
	replicas := []string{"a", "b"}[:1+rnd.IntN(2)]
	step := []int64{2, 6, 24}[rnd.IntN(3)] * hour
	for r.now = 2 * hour; r.now < days*day; r.now += 2 * hour {
		for _, replica := range replicas {
			if rnd.IntN(40) > 0 { // else a hole
				r.upload(r.now-2*hour, r.now, 100, "cluster", "eu", "replica", replica)
			}
			if rnd.IntN(60) == 0 {
				late := r.now - rnd.Int64N(min(r.now, 20*day))/hour*hour
				r.upload(late, late+[]int64{1, 2, 5, 20, 40}[rnd.IntN(5)]*hour, 50, "cluster", "eu", "replica", replica)
			}
		}
		if rnd.IntN(300) == 0 {
			r.request()
		}
		if r.now%step == 0 {
			r.work()
		}
	}
	r.now += 20 * day
	r.settle(60)
	require.Equal(t, r.plan(), plan.Make(r.cfg, r.shuffled(rnd), r.clock()))
	for _, h := range r.plan().Held {
		t.Fatalf("held for ever: %+v\n%s", h, r.dump(r.in.Metas[h.Block].Compaction.Sources[0]))
	}
	r.now += 60 * day
	r.settle(60)
	for _, d := range r.in.Deletes {
		require.Equal(t, block.DeleteDone, d.State)
	}
}

func randomConfig(t *testing.T, rnd *rand.Rand) plan.Config {
	cfg := defaultConfig()
	cfg.Dedup, cfg.ReplicaLabels = rnd.IntN(2) == 0, []string{"replica"}
	cfg.MaxInputs = []int{0, 5, 30, 400}[rnd.IntN(4)]
	if rnd.IntN(2) == 0 {
		cfg.MaxIndexBytes = 700 + rnd.Int64N(4000)
	}
	if rnd.IntN(3) > 0 {
		defaults := policy.Tiers{Raw: 4 * 24 * time.Hour, FiveMinutes: 20 * 24 * time.Hour, OneHour: 0}
		switch rnd.IntN(3) {
		case 0:
			defaults = policy.Tiers{Raw: 30 * 24 * time.Hour, FiveMinutes: 12 * 24 * time.Hour}
		case 1:
			defaults = shortTiers
		}
		file := ""
		if rnd.IntN(2) == 0 {
			file = "rules:\n- selectors: ['{ns=\"dev\"}']\n  raw: 2d\n  5m: 11d\n  1h: 40d\n"
		}
		setPolicy(t, &cfg, file, defaults)
	}
	return cfg
}

// work does some of a plan, killed here and there, and some of plans of old.
func (r *run) work() {
	p := r.plan()
	if r.rnd.IntN(10) == 0 {
		require.Equal(r.t, p, plan.Make(r.cfg, r.shuffled(r.rnd), r.clock()), "the order of the maps counts")
	}
	if r.rnd.IntN(8) == 0 {
		r.stale = append(r.stale, p)
	}
	if n := len(r.stale); n > 0 && r.rnd.IntN(6) == 0 {
		i := r.rnd.IntN(n)
		r.some(r.stale[i])
		r.stale = append(r.stale[:i], r.stale[i+1:]...)
	}
	r.some(p)
	if r.rnd.IntN(3) > 0 {
		r.pass(r.plan())
		r.check()
	}
}

func (r *run) some(p plan.Plan) {
	for _, j := range p.Jobs {
		switch r.rnd.IntN(4) {
		case 0:
		case 1:
			r.do(j, r.rnd.IntN(len(j.Outputs)+len(j.Inputs)+1))
			r.maybeCheck()
		default:
			r.do(j, 1<<20)
			r.maybeCheck()
		}
	}
	for _, m := range p.Garbage {
		if r.rnd.IntN(3) > 0 {
			r.collect([]plan.Mark{m})
			r.maybeCheck()
		}
	}
	for _, m := range p.Expired {
		if r.rnd.IntN(3) > 0 {
			r.mark(m.Block)
			r.maybeCheck()
		}
	}
	if r.rnd.IntN(2) == 0 {
		r.remove(p.Remove)
	}
	r.finish(p.DeletesDone)
	r.check()
}

// maybeCheck looks between two steps, now and then: it takes its time.
func (r *run) maybeCheck() {
	if r.rnd.IntN(6) == 0 {
		r.check()
	}
}

// request asks for a series to go, in whole days.
func (r *run) request() {
	to := r.now / day * day
	from := max(0, to-int64(r.rnd.IntN(6))*day)
	d := &block.DeleteRequest{
		Selectors: []string{[]string{`{k="03"}`, `{ns="dev",cluster="eu"}`, `{cluster="us"}`, `{k="05",replica="a"}`}[r.rnd.IntN(4)]},
		MinTime:   from, MaxTime: to + 2*day, Created: r.clock(), State: block.DeletePending,
	}
	binary.BigEndian.PutUint64(d.ID[8:], uint64(len(r.in.Deletes)+1))
	require.NoError(r.t, d.ID.SetTime(uint64(r.now)))
	r.in.Deletes = append(r.in.Deletes, d)
	for id, m := range r.born {
		r.deleted[id] |= deletedCells(d, m)
	}
}
