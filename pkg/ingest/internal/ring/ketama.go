package ring

import (
	"cmp"
	"fmt"
	"math/rand"
	"slices"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"github.com/grafana/dskit/ring/shard"

	"github.com/firnline/firnline/pkg/tenant"
)

// sectionsPerNode is how many places each endpoint has on a ketama ring: Thanos' number.
const sectionsPerNode = 1000

// section is a place on a ketama ring: it owns the hashes up to and with its
// own, from the section before it on.
type section struct {
	hash     uint64
	endpoint int
}

// ketamaSections places endpoints: section i, from 1, is at the hash of "address:i".
func ketamaSections(endpoints []endpoint) []section {
	all := make([]section, 0, len(endpoints)*sectionsPerNode)
	for e := range endpoints {
		for i := 1; i <= sectionsPerNode; i++ {
			all = append(all, section{xxhash.Sum64String(endpoints[e].Address + ":" + strconv.Itoa(i)), e})
		}
	}
	slices.SortStableFunc(all, func(a, b section) int { return cmp.Compare(a.hash, b.hash) })
	return all
}

// ketamaReplicas returns who holds the copies of section i: the endpoints that
// follow on the ring, a zone again only when no zone has fewer copies.
func ketamaReplicas(endpoints []endpoint, sections []section, i, rf int) ([]uint16, error) {
	copies := map[string]int{}
	for _, e := range endpoints {
		copies[e.Zone] = 0
	}
	var owners []uint16
	for skipped := 0; len(owners) < rf; i++ {
		if skipped == len(sections) {
			return nil, fmt.Errorf("%d copies can't be spread evenly over %d zones: one of them has too few endpoints", rf, len(copies))
		}
		e := sections[i%len(sections)].endpoint
		if slices.Contains(owners, uint16(e)) || copies[endpoints[e].Zone] > fewest(copies) {
			skipped++
			continue
		}
		skipped = 0
		copies[endpoints[e].Zone]++
		owners = append(owners, uint16(e))
	}
	return owners, nil
}

func fewest(copies map[string]int) int {
	n := -1
	for _, c := range copies {
		if n < 0 || c < n {
			n = c
		}
	}
	return n
}

// ketamaView makes a View of a ketama ring.
func ketamaView(endpoints []endpoint, instances []Instance, rf int) (*View, error) {
	sections := ketamaSections(endpoints)
	b := newBuilder(instances, quorum(rf))
	for i, s := range sections {
		owners, err := ketamaReplicas(endpoints, sections, i, rf)
		if err != nil {
			return nil, err
		}
		b.add(s.hash, owners)
	}
	first, err := ketamaReplicas(endpoints, sections, 0, rf)
	if err != nil {
		return nil, err
	}
	b.add(0, first) // what is above all sections belongs to the first
	return b.byRanges(), nil
}

// ketamaShard returns the endpoints of a tenant's shard, as Thanos since 0.41
// and Cortex choose them: in each zone a walk from random places, with a
// seed made of the tenant's name.
func ketamaShard(h *hashring, id tenant.ID, size int) ([]endpoint, error) {
	zoneOf := func(e endpoint) string {
		if h.Shards.IgnoreZones {
			return ""
		}
		return e.Zone
	}
	nodes := map[string]int{}
	for _, e := range h.Endpoints {
		nodes[zoneOf(e)]++
	}
	byZone := map[string][]section{}
	for _, s := range ketamaSections(h.Endpoints) {
		zone := zoneOf(h.Endpoints[s.endpoint])
		byZone[zone] = append(byZone[zone], s)
	}
	each := shard.ShuffleShardExpectedInstancesPerZone(size, len(nodes))
	chosen := make([]bool, len(h.Endpoints))
	for zone, sections := range byZone {
		if each > nodes[zone] {
			return nil, fmt.Errorf("shard of %d endpoints for tenant %s: zone %q has %d, not the %d that are its part", size, id, zone, nodes[zone], each)
		}
		random := rand.New(rand.NewSource(shard.ShuffleShardSeed(string(id), zone)))
		for range each {
			chooseSection(sections, random.Uint64(), chosen)
		}
	}
	var out []endpoint
	for i, e := range h.Endpoints {
		if chosen[i] {
			out = append(out, e)
		}
	}
	return out, nil
}

// chooseSection marks the first endpoint from a place on that is not chosen yet.
func chooseSection(sections []section, at uint64, chosen []bool) {
	start := sort.Search(len(sections), func(i int) bool { return sections[i].hash >= at })
	for i := range sections {
		if e := sections[(start+i)%len(sections)].endpoint; !chosen[e] {
			chosen[e] = true
			return
		}
	}
}

// hashmodView makes a View of endpoints sorted by address: copy n of a hash is
// at number (hash + n) modulo their count.
func hashmodView(instances []Instance, rf int) *View {
	owners := make([][]uint16, len(instances))
	for i := range owners {
		for n := range rf {
			owners[i] = append(owners[i], uint16((i+n)%len(instances)))
		}
	}
	return newBuilder(instances, quorum(rf)).byRemainder(owners)
}
