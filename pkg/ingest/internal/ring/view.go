package ring

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// View is how the series of one tenant are placed: a snapshot that never changes.
//
// The hashes are cut into ranges, each with a set of owners. A table by a hash's
// top bits leads to the first range that it may be in, so that finding it
// takes the same few steps whatever the number of nodes.
type View struct {
	instances []Instance
	sets      []Set

	mod  uint64   // above 0: range i is the hashes with remainder i
	ends []uint64 // else: last hash of range i, ascending; the last one is the greatest hash
	set  []uint32 // of range i

	first []uint32 // range that the first hash with these top bits is in
	shift uint8
}

// Instances returns the nodes that the sets name. It must not be changed.
func (v *View) Instances() []Instance { return v.instances }

// Sets is how many sets there are.
func (v *View) Sets() int { return len(v.sets) }

// Set returns set n. It must not be changed.
func (v *View) Set(n uint32) Set { return v.sets[n] }

// Owners returns the number of the set that owns a hash.
func (v *View) Owners(hash uint64) uint32 {
	if v.mod > 0 {
		return v.set[hash%v.mod]
	}
	i := v.first[hash>>v.shift]
	for v.ends[i] < hash {
		i++
	}
	return v.set[i]
}

// builder makes a View, range by range.
type builder struct {
	v      *View
	quorum int
	known  map[string]uint32 // sets by their owners
}

func newBuilder(instances []Instance, quorum int) *builder {
	return &builder{v: &View{instances: instances}, quorum: quorum, known: map[string]uint32{}}
}

// setOf returns the number of the set of these owners, in any order.
func (b *builder) setOf(owners []uint16) uint32 {
	owners = slices.Clone(owners)
	slices.Sort(owners)
	var key []byte
	for _, o := range owners {
		key = binary.BigEndian.AppendUint16(key, o)
	}
	n, ok := b.known[string(key)]
	if !ok {
		n = uint32(len(b.v.sets))
		b.known[string(key)] = n
		b.v.sets = append(b.v.sets, Set{Owners: owners, Quorum: b.quorum})
	}
	return n
}

// add appends the range that ends with the hash end.
func (b *builder) add(end uint64, owners []uint16) {
	set := b.setOf(owners)
	if n := len(b.v.ends); n > 0 && b.v.set[n-1] == set {
		b.v.ends[n-1] = end
		return
	}
	b.v.ends = append(b.v.ends, end)
	b.v.set = append(b.v.set, set)
}

// byRanges returns the View of the ranges added.
func (b *builder) byRanges() *View {
	v := b.v
	v.ends[len(v.ends)-1] = math.MaxUint64
	// One or two entries a range: a search then seldom looks at more than two ranges.
	width := bits.Len(uint(len(v.ends)))
	v.shift = uint8(64 - width)
	v.first = make([]uint32, 1<<width)
	i := uint32(0)
	for top := range v.first {
		for v.ends[i] < uint64(top)<<v.shift {
			i++
		}
		v.first[top] = i
	}
	return v
}

// byRemainder returns the View in which the owners of a hash follow from its
// remainder by len(owners).
func (b *builder) byRemainder(owners [][]uint16) *View {
	for _, o := range owners {
		b.v.set = append(b.v.set, b.setOf(o))
	}
	b.v.mod = uint64(len(owners))
	return b.v
}
