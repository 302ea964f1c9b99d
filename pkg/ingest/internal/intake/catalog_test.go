package intake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// TestCatalogAgainstMap: random requests with series that come and go, against a plain map:
// a number always means the same series, and a known one keeps its number.
func TestCatalogAgainstMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	cfg := testConfig()
	cfg.SplitLabel = "tenant"
	in := newIntake(t, cfg, limits.Defaults())
	now := testNow
	in.now = func() time.Time { return now }

	type known struct {
		id   uint64
		last time.Time
	}
	twin := map[int]known{}
	named := map[string]int{} // session and number → series
	first := 0
	for round := range 120 {
		first += r.IntN(60) // old ones leave
		var numbers []int
		for range r.IntN(400) {
			numbers = append(numbers, first+r.IntN(2000))
		}
		var all []labels.Labels
		for _, n := range numbers {
			all = append(all, twinSeries(n))
		}
		b := request(all...)
		parts, tally := take(t, in, "a", b)
		require.NoError(t, tally.Err())
		got := 0
		for _, p := range parts {
			for _, i := range p.Series {
				n, id := numbers[i], b.Series[i].ID
				got++
				name := fmt.Sprint(p.Session, id)
				if before, ok := named[name]; ok {
					require.Equal(t, before, n, "number %d was another series'", id)
				}
				named[name] = n
				if k, ok := twin[n]; ok && now.Sub(k.last) <= time.Duration(cfg.IdleTimeout)-2*tickLength {
					require.Equal(t, k.id, id, "series %d was sent %s ago", n, now.Sub(k.last))
				}
				twin[n] = known{id, now}
				l, err := b.Labels(int(i))
				if err != nil || p.Tenant != twinTenant(n) || b.Series[i].Hash != HashOf(p.Tenant, l) {
					t.Fatalf("series %d: tenant %s, labels %s, err %v", n, p.Tenant, l, err)
				}
			}
		}
		require.Equal(t, len(numbers), got)
		now = now.Add(time.Duration(r.IntN(600)) * time.Second)
		if round%5 == 0 {
			in.sweep(now)
			fresh := int64(0)
			for _, k := range twin {
				if now.Sub(k.last) <= time.Duration(cfg.IdleTimeout)-2*tickLength {
					fresh++
				}
			}
			require.GreaterOrEqual(t, in.live.Load(), fresh)
			require.Less(t, in.live.Load(), fresh+4000)
		}
	}
	now = now.Add(3 * time.Hour)
	in.sweep(now)
	require.Zero(t, in.live.Load())
	require.Empty(t, in.mu.states, "nothing is left of a tenant that sends nothing")
}

func twinTenant(n int) tenant.ID {
	if n%7 == 0 {
		return "b"
	}
	return "a"
}

func twinSeries(n int) labels.Labels {
	if twinTenant(n) == "b" {
		return series("__name__", "m", "n", fmt.Sprint(n), "tenant", "b")
	}
	return series("__name__", "m", "n", fmt.Sprint(n))
}

// TestAtOnce: requests, sweeps and new series at once; each number means one series.
func TestAtOnce(t *testing.T) {
	cfg := testConfig()
	cfg.SplitLabel = "tenant"
	in := newIntake(t, cfg, limits.Defaults())
	var mu sync.Mutex
	now := testNow
	in.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	var named sync.Map
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 1))
			for round := range 40 {
				var numbers []int
				var all []labels.Labels
				for range 200 {
					n := round*50 + r.IntN(1000)
					numbers, all = append(numbers, n), append(all, twinSeries(n))
				}
				b := request(all...)
				var tally refuse.Tally
				parts, err := in.Take(context.Background(), "a", b, &tally)
				// A goroutine that sleeps while the clock runs on by hours finds its series gone.
				if refused := tally.Err(); err != nil || refused != nil && refuse.ReasonOf(refused) != refuse.NotReady {
					t.Errorf("%v %v", err, refused)
					return
				}
				for _, p := range parts {
					for _, i := range p.Series {
						before, _ := named.LoadOrStore(fmt.Sprint(p.Session, b.Series[i].ID), numbers[i])
						if before != numbers[i] {
							t.Errorf("number %d is series %d and %d", b.Series[i].ID, before, numbers[i])
						}
					}
				}
			}
		})
	}
	for range 30 {
		mu.Lock()
		now = now.Add(20 * time.Minute)
		at := now
		mu.Unlock()
		in.sweep(at)
	}
	wg.Wait()
}

// TestForgottenMakesRoom: pages and index shrink, and what comes back is learned anew.
func TestForgottenMakesRoom(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	now := testNow
	in.now = func() time.Time { return now }
	keys := func(from, n int) *batch.Batch { return request(many(from, n)...) }
	take(t, in, "a", keys(0, 20_000))
	cat := in.mu.states["a"].cat
	full := cat.bytes()
	now = now.Add(90 * time.Minute)
	take(t, in, "a", keys(19_000, 1000)) // the end stays
	now = now.Add(90 * time.Minute)
	in.sweep(now)
	require.Same(t, cat, in.mu.states["a"].cat)
	require.EqualValues(t, 1000, in.live.Load())
	require.Less(t, cat.bytes(), full/5)
	b := keys(18_999, 2)
	take(t, in, "a", b)
	require.Equal(t, []uint64{20_001, 19_001}, ids(b), "no number is given out twice")
}

// TestRoll: after many numbers for few series they begin anew.
func TestRoll(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	b := request(many(0, 10)...)
	before, _ := take(t, in, "a", b)
	cat := in.mu.states["a"].cat
	cat.mu.last += rollSlack
	in.sweep(testNow)
	require.Same(t, cat, in.mu.states["a"].cat)
	cat.mu.last += 100
	in.sweep(testNow)
	require.NotSame(t, cat, in.mu.states["a"].cat)
	b = request(many(0, 10)...)
	after, _ := take(t, in, "a", b)
	require.NotEqual(t, before[0].Session, after[0].Session)
	require.Equal(t, uint64(1), b.Series[0].ID)
}

// TestGuessesFollowTheSender: when the order changes, the next request in the new order is expected.
func TestGuessesFollowTheSender(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	all := many(0, 500)
	take(t, in, "a", request(all...))
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	b := request(all...)
	take(t, in, "a", b)
	dir := in.mu.states["a"].cat.entries.load()
	for i := range len(all) - 1 {
		word := at(dir, uint32(b.Series[i].ID)).word.Load()
		require.EqualValues(t, b.Series[i+1].ID, word>>nextAt)
	}
}

// TestIndex: extendible hashing against a map, with tags that share their upper bits too.
func TestIndex(t *testing.T) {
	for _, mask := range []uint64{0, 0xffff << 48, 0xff << 56} {
		x, p, twin := newIndex(), &pages{}, map[batch.Key]uint32{}
		r := rand.New(rand.NewPCG(1, mask))
		for id := uint32(1); id <= 20_000; id++ {
			k := batch.Key{Hi: r.Uint64() | mask, Lo: r.Uint64()}
			e := at(p.grow(id), id)
			e.lo.Store(k.Lo)
			e.hi.Store(k.Hi)
			x.add(k, id)
			twin[k] = id
		}
		for k, want := range twin {
			if got, e := x.find(k, p.load()); got != want || e == nil {
				t.Fatalf("%d instead of %d", got, want)
			}
		}
		got, _ := x.find(batch.Key{Hi: 1, Lo: 2}, p.load())
		require.Zero(t, got)

		gone := func(id uint32) bool { return id%3 != 0 }
		for n, more := 0, true; more; {
			n, more = x.drop(n, gone)
		}
		for k, id := range twin {
			want := map[bool]uint32{true: 0, false: id}[gone(id)]
			if got, _ := x.find(k, p.load()); got != want {
				t.Fatalf("%d instead of %d", got, want)
			}
		}
	}
}

func TestConfigBounds(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"series": func(c *Config) { c.MaxSeries = 0 }, "tenants": func(c *Config) { c.MaxTenants = 0 },
		"idle": func(c *Config) { c.IdleTimeout = model.Duration(7 * time.Hour) }, "active": func(c *Config) { c.ActiveWindow = model.Duration(3 * time.Hour) },
	} {
		c := testConfig()
		require.NoError(t, c.Validate())
		change(&c)
		require.Error(t, c.Validate(), name)
	}
}
