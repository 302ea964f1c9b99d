package ring

import (
	"cmp"
	"math/rand"
	"slices"
	"sort"

	"github.com/grafana/dskit/ring/shard"

	"github.com/firnline/firnline/pkg/tenant"
)

// maxAutomatic is the replication factor when enough nodes are there and none is given.
const maxAutomatic = 3

// token is one place of a member on the ring.
type token struct {
	at     uint32
	member int
}

// placing are members on the ring, ready to be made a View of.
type placing struct {
	members []Member // by ID
	local   string   // ID of this process' member
	tokens  []token  // by place
	rf      int
	zones   int // that members are in
}

// newPlacing takes members sorted by ID. A replication factor of 0 is the
// automatic one, which is at least floor.
func newPlacing(members []Member, rf, floor int, local string) *placing {
	p := &placing{members: members, local: local, rf: rf}
	zones := map[string]bool{}
	known := 0
	for i := range members {
		m := &members[i]
		if m.State == Pending {
			continue
		}
		zones[m.Zone] = true
		if m.counts() {
			known++
		}
		for _, t := range m.Tokens {
			p.tokens = append(p.tokens, token{t, i})
		}
	}
	slices.SortFunc(p.tokens, func(a, b token) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.member, b.member))
	})
	p.zones = len(zones)
	if rf == 0 {
		p.rf = max(1, min(maxAutomatic, max(known, floor)))
	}
	return p
}

// view returns the View of the tokens of p.
//
// A hash belongs to the first token above its upper half, and the copies to
// the members next on the ring: each in a zone of its own where there are
// enough zones, else spread evenly. Members that can't be written to are passed over, so
// that their ranges extend to those behind them.
func (p *placing) view() *View {
	if len(p.tokens) == 0 {
		return nil
	}
	b := newBuilder(p.instances(), quorum(p.rf))
	w := walk{p: p, seen: make([]int, len(p.members)), inZone: map[string]int{}}
	for i, t := range p.tokens {
		if t.at == 0 || i > 0 && t.at == p.tokens[i-1].at {
			continue // nothing is below it
		}
		b.add(uint64(t.at)<<32-1, w.from(i))
	}
	b.add(0, w.from(0)) // what is above all tokens belongs to the first
	return b.byRanges()
}

func (p *placing) instances() []Instance {
	all := make([]Instance, len(p.members))
	for i, m := range p.members {
		all[i] = Instance{ID: m.ID, Addr: m.Addr, Zone: m.Zone, Local: m.ID == p.local}
	}
	return all
}

// walk goes round the ring, once from each token.
type walk struct {
	p      *placing
	round  int
	seen   []int // round in which a member was last met
	inZone map[string]int
	owners []uint16
}

// from returns the owners of what belongs to token i. The result is overwritten by the next call.
func (w *walk) from(i int) []uint16 {
	w.round++
	clear(w.inZone)
	w.owners = w.owners[:0]
	perZone := (w.p.rf + w.p.zones - 1) / w.p.zones
	for n := 0; n < len(w.p.tokens) && len(w.owners) < w.p.rf; n++ {
		at := w.p.tokens[(i+n)%len(w.p.tokens)].member
		m := &w.p.members[at]
		if w.seen[at] == w.round {
			continue
		}
		w.seen[at] = w.round
		if !m.writable() || w.inZone[m.Zone] >= perZone {
			continue
		}
		w.inZone[m.Zone]++
		w.owners = append(w.owners, uint16(at))
	}
	return w.owners
}

// shard returns the part of the ring that a tenant's series are spread over:
// size members, as many in each zone, chosen by the tenant's name so that
// one node more or less changes at most one of them. Members come in
// or leave with their state, never with their health.
func (p *placing) shard(id tenant.ID, size int) *placing {
	byZone := map[string][]token{}
	for _, t := range p.tokens {
		if m := &p.members[t.member]; m.counts() {
			byZone[m.Zone] = append(byZone[m.Zone], t)
		}
	}
	chosen := make([]bool, len(p.members))
	each := shard.ShuffleShardExpectedInstancesPerZone(max(size, p.rf), max(1, len(byZone)))
	for zone, tokens := range byZone {
		choose(tokens, each, rand.New(rand.NewSource(shard.ShuffleShardSeed(string(id), zone))), chosen)
	}
	s := *p
	s.tokens = slices.DeleteFunc(slices.Clone(p.tokens), func(t token) bool { return !chosen[t.member] })
	return &s
}

// choose marks the members of n tokens that the random numbers lead to.
func choose(tokens []token, n int, random *rand.Rand, chosen []bool) {
	for range n {
		at := random.Uint32()
		start := sort.Search(len(tokens), func(i int) bool { return tokens[i].at > at })
		for i := range tokens {
			t := tokens[(start+i)%len(tokens)]
			if !chosen[t.member] {
				chosen[t.member] = true
				break
			}
		}
	}
}
