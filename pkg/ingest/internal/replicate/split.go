package replicate

import (
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/ring"
)

// split is a Write cut into one list of series an owner. It is made by two
// passes over the series, the first of which counts, and keeps its memory
// for the next Write.
type split struct {
	owners []part
	sets   []usedSet
	of     []uint32 // number in sets of each series in Only

	slab      []uint32 // lists of owners
	setNumber []uint32 // by number of the View: 1 + that in sets; all 0 between two uses
	ownerAt   []uint32 // by number of the View: 1 + that in owners; all 0 between two uses
}

// part is what one owner gets.
type part struct {
	instance uint16 // number in the View
	series   []uint32
	sets     []uint32 // numbers in split.sets

	seriesCount, setCount uint32
}

// usedSet is an owner set that at least one series belongs to.
type usedSet struct {
	number uint32 // in the View
	series uint32 // how many
	votes  votes
}

// cut splits the series of a Write. Series of sets that can't have a quorum go to nobody.
func (s *split) cut(v *ring.View, w *batch.Write) {
	s.owners, s.sets = s.owners[:0], s.sets[:0]
	s.setNumber, s.ownerAt = sized(s.setNumber, v.Sets()), sized(s.ownerAt, len(v.Instances()))
	s.count(v, w)
	s.makeRoom(v)
	if len(s.sets) == 1 { // as with three nodes and three copies: all get all
		for i := range s.owners {
			s.owners[i].series = w.Only
		}
	} else {
		for i, n := range w.Only {
			u := &s.sets[s.of[i]]
			if u.votes.verdict() == failed {
				continue
			}
			for _, o := range v.Set(u.number).Owners {
				p := &s.owners[s.ownerAt[o]-1]
				p.series = append(p.series, n)
			}
		}
	}
	for _, u := range s.sets {
		s.setNumber[u.number] = 0
	}
	for _, p := range s.owners {
		s.ownerAt[p.instance] = 0
	}
}

// count finds the sets that are used and how often. What is said of metrics
// without any series goes to the owners of the tenant's name.
func (s *split) count(v *ring.View, w *batch.Write) {
	s.of = slices.Grow(s.of[:0], len(w.Only))[:len(w.Only)]
	for i, n := range w.Only {
		at := s.use(v, w.Batch.Series[n].Hash)
		s.of[i] = at
		s.sets[at].series++
	}
	if len(w.Only) == 0 && len(w.Batch.Families) > 0 {
		s.use(v, xxhash.Sum64String(string(w.Tenant)))
	}
}

// use returns the number in sets of the owners of a hash.
func (s *split) use(v *ring.View, hash uint64) uint32 {
	number := v.Owners(hash)
	if s.setNumber[number] == 0 {
		set := v.Set(number)
		s.sets = append(s.sets, usedSet{number: number, votes: votes{owners: uint16(len(set.Owners)), quorum: uint16(set.Quorum)}})
		s.setNumber[number] = uint32(len(s.sets))
	}
	return s.setNumber[number] - 1
}

// makeRoom finds the owners and gives each of them room in the slab for its
// sets, which it fills in, and for its series.
func (s *split) makeRoom(v *ring.View) {
	s.eachOwner(v, func(p *part, set uint32) {
		p.seriesCount += s.sets[set].series
		p.setCount++
	})
	total := uint32(0)
	for _, p := range s.owners {
		total += p.seriesCount + p.setCount
	}
	s.slab = slices.Grow(s.slab[:0], int(total))[:total]
	rest := s.slab
	for i := range s.owners {
		p := &s.owners[i]
		p.series, rest = rest[:0:p.seriesCount], rest[p.seriesCount:]
		p.sets, rest = rest[:0:p.setCount], rest[p.setCount:]
	}
	s.eachOwner(v, func(p *part, set uint32) { p.sets = append(p.sets, set) })
}

// eachOwner calls f for each owner of each set that can have a quorum.
func (s *split) eachOwner(v *ring.View, f func(p *part, set uint32)) {
	for i := range s.sets {
		u := &s.sets[i]
		if u.votes.verdict() == failed {
			continue
		}
		for _, o := range v.Set(u.number).Owners {
			if s.ownerAt[o] == 0 {
				s.owners = append(s.owners, part{instance: o})
				s.ownerAt[o] = uint32(len(s.owners))
			}
			f(&s.owners[s.ownerAt[o]-1], uint32(i))
		}
	}
}

// sized returns a slice of n zeros; what it held before was zeros.
func sized(s []uint32, n int) []uint32 {
	if cap(s) < n {
		return make([]uint32, n)
	}
	return s[:n]
}
