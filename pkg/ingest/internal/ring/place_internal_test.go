package ring

import (
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/tenant"
)

// cluster makes n members in the given number of zones (0: none is named), all in good health.
func cluster(r *rand.Rand, n, zones, tokens int) []Member {
	members := make([]Member, n)
	for i := range members {
		m := Member{ID: fmt.Sprintf("n%02d", i), Addr: fmt.Sprintf("n%02d:1", i), State: Active, Healthy: true}
		if zones > 0 {
			m.Zone = fmt.Sprintf("z%d", i%zones)
		}
		for range tokens {
			m.Tokens = append(m.Tokens, r.Uint32())
		}
		slices.Sort(m.Tokens)
		members[i] = m
	}
	return members
}

// slowOwners is the plain twin of placing: it looks at every token for one hash.
func slowOwners(p *placing, hash uint64) []string {
	key := uint32(hash >> 32)
	start := 0
	for start < len(p.tokens) && p.tokens[start].at <= key {
		start++
	}
	perZone := (p.rf + p.zones - 1) / p.zones
	inZone := map[string]int{}
	var ids []string
	for i := range p.tokens {
		m := p.members[p.tokens[(start+i)%len(p.tokens)].member]
		if len(ids) == p.rf || slices.Contains(ids, m.ID) || m.State != Active || !m.Healthy || inZone[m.Zone] == perZone {
			continue
		}
		inZone[m.Zone]++
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return ids
}

func ids(v *View, hash uint64) []string {
	var out []string
	for _, o := range v.Set(v.Owners(hash)).Owners {
		out = append(out, v.Instances()[o].ID)
	}
	return out
}

// RELIABILITY I5, P10: whatever the ring looks like, a series has its copies on
// different healthy nodes and in different zones, and the fast way finds the
// same ones as the slow.
func TestPlaceProperties(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for range 150 {
		n, zones, rf := 1+r.Intn(12), r.Intn(5), 1+r.Intn(5)
		members := cluster(r, n, zones, 1+r.Intn(40))
		for i := range members {
			switch r.Intn(8) {
			case 0:
				members[i].State = []State{Pending, Joining, Leaving}[r.Intn(3)]
			case 1:
				members[i].Healthy = false
			}
		}
		if r.Intn(10) == 0 {
			members[0].Tokens[0] = 0 // the edges of the ring
		}
		p := newPlacing(members, rf, 0, "")
		v := p.view()
		if v == nil {
			require.Empty(t, p.tokens)
			continue
		}
		hashes := []uint64{0, 1, 1<<32 - 1, 1 << 32, 1<<64 - 1, 1<<63 - 1}
		for range 100 {
			hashes = append(hashes, r.Uint64())
		}
		for _, tok := range p.tokens {
			hashes = append(hashes, uint64(tok.at)<<32, uint64(tok.at)<<32-1)
		}
		for _, h := range hashes {
			got := ids(v, h)
			require.Equal(t, slowOwners(p, h), got, "hash %x", h)
			checkSpread(t, p, v.Set(v.Owners(h)))
		}
	}
}

func checkSpread(t *testing.T, p *placing, s Set) {
	t.Helper()
	require.Equal(t, p.rf/2+1, s.Quorum)
	require.LessOrEqual(t, len(s.Owners), p.rf)
	inZone := map[string]int{}
	for i, o := range s.Owners {
		m := p.members[o]
		require.True(t, m.writable())
		require.True(t, i == 0 || s.Owners[i-1] < o, "owners are distinct")
		inZone[m.Zone]++
	}
	if p.zones < p.rf {
		return
	}
	for zone, n := range inZone {
		require.Equal(t, 1, n, "copies in zone %s", zone) // so a zone that is lost takes one copy
	}
}

// A node that comes takes only what is its own from then on: nothing moves between the others.
func TestPlaceMovesLittle(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for _, zones := range []int{0, 3} {
		members := cluster(r, 12, zones, 128)
		before := newPlacing(members[:9], 3, 0, "").view()
		after := newPlacing(members, 3, 0, "").view()
		moved, hashes := 0, 20_000
		for range hashes {
			h := r.Uint64()
			was := ids(before, h)
			for _, id := range ids(after, h) {
				if slices.Contains(was, id) {
					continue
				}
				moved++
				require.GreaterOrEqual(t, id, "n09", "only a new node gets something new")
			}
		}
		require.InDelta(t, 3.0/12, float64(moved)/float64(3*hashes), 0.05)
	}
}

// A node that is not well hands its ranges on and touches no others.
func TestPlaceExtends(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	members := cluster(r, 6, 0, 64)
	before := newPlacing(members, 3, 0, "").view()
	for _, change := range []func(*Member){
		func(m *Member) { m.Healthy = false },
		func(m *Member) { m.State = Leaving },
		func(m *Member) { m.State = Joining },
	} {
		sick := slices.Clone(members)
		change(&sick[2])
		after := newPlacing(sick, 3, 0, "").view()
		for range 5000 {
			h := r.Uint64()
			was, is := ids(before, h), ids(after, h)
			require.Len(t, is, 3)
			require.NotContains(t, is, "n02")
			if !slices.Contains(was, "n02") {
				require.Equal(t, was, is)
			}
		}
	}
}

func TestAutomaticFactor(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	for _, c := range []struct {
		name         string
		states       []State
		dead         int // of the first
		given, floor int
		rf, quorum   int
	}{
		{name: "alone", states: []State{Active}, rf: 1, quorum: 1},
		{name: "two: both must confirm", states: []State{Active, Active}, rf: 2, quorum: 2},
		{name: "three", states: []State{Active, Active, Active}, rf: 3, quorum: 2},
		{name: "five", states: []State{Active, Active, Active, Active, Active}, rf: 3, quorum: 2},
		{name: "a dead one counts", states: []State{Active, Active, Active}, dead: 1, rf: 3, quorum: 2},
		{name: "so does one that restarts", states: []State{Active, Joining}, rf: 2, quorum: 2},
		{name: "a new one not yet", states: []State{Active, Pending}, rf: 1, quorum: 1},
		{name: "one that goes for good no more", states: []State{Active, Leaving}, rf: 1, quorum: 1},
		{name: "what it was before the restart", states: []State{Active}, floor: 3, rf: 3, quorum: 2},
		{name: "a number given is kept to", states: []State{Active}, given: 3, rf: 3, quorum: 2},
		{name: "a number given is kept to by many", states: []State{Active, Active, Active}, given: 1, rf: 1, quorum: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := cluster(r, len(c.states), 0, 8)
			for i := range members {
				members[i].State, members[i].Healthy = c.states[i], i >= c.dead
			}
			p := newPlacing(members, c.given, c.floor, "")
			require.Equal(t, c.rf, p.rf)
			require.Equal(t, c.quorum, p.view().Set(0).Quorum)
		})
	}
}

// A shard has as many nodes of each zone, is the same whoever computes it, and
// changes by at most one node when one comes.
func TestShards(t *testing.T) {
	r := rand.New(rand.NewSource(4))
	members := cluster(r, 18, 3, 64)
	chosen := func(m []Member, id tenant.ID, size int) map[string]bool {
		s := newPlacing(m, 3, 0, "").shard(id, size)
		in := map[string]bool{}
		for _, tok := range s.tokens {
			in[s.members[tok.member].ID] = true
		}
		return in
	}
	different := map[string]bool{}
	for i := range 50 {
		id := tenant.ID(fmt.Sprintf("tenant-%d", i))
		small, before := chosen(members, id, 1), chosen(members[:17], id, 6)
		require.Len(t, small, 3, "never fewer than copies")
		after := chosen(members, id, 6)
		require.Len(t, after, 6)
		zones, lost := map[byte]int{}, 0
		for id := range after {
			zones[id[2]%3]++
		}
		for id := range before {
			if !after[id] {
				lost++
			}
		}
		require.LessOrEqual(t, lost, 1)
		for id := range small {
			require.True(t, after[id], "a larger shard contains the smaller")
		}
		different[fmt.Sprint(after)] = true
	}
	require.Greater(t, len(different), 30)
}

func BenchmarkOwners(b *testing.B) {
	for _, nodes := range []int{3, 50} {
		r := rand.New(rand.NewSource(1))
		v := newPlacing(cluster(r, nodes, 3, 512), 3, 0, "").view()
		hashes := make([]uint64, 1<<16)
		for i := range hashes {
			hashes[i] = r.Uint64()
		}
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				v.Owners(hashes[i&(1<<16-1)])
				i++
			}
		})
	}
}

func BenchmarkPlace(b *testing.B) {
	members := cluster(rand.New(rand.NewSource(1)), 50, 3, 512)
	b.ReportAllocs()
	for b.Loop() {
		newPlacing(members, 3, 0, "").view()
	}
}

// TestJoinNeedsAPort: a name that could never be dialled is told at the start.
func TestJoinNeedsAPort(t *testing.T) {
	for addr, good := range map[string]bool{"a:7946": true, "dns+a:7946": true, "dnssrv+_gossip._tcp.a": true, "a": false, "dns+a": false} {
		var c Config
		c.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
		c.Gossip.Join = []string{addr}
		require.Equal(t, good, c.Validate() == nil, addr)
	}
}
