package intake

import (
	"sync/atomic"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

const (
	minSegment = 64      // slots
	maxSegment = 1 << 12 // slots: filling a new one takes some 50 µs
	maxDepth   = 20
)

// index finds IDs by key: extendible hashing, so that it grows by a few slots
// at a time and never stops anybody. A slot is
//
//	4 bytes  tag, of the key │ 4 bytes  ID, 0: the slot is empty
//
// The upper bits of a tag choose its segment, the lower ones the slot there,
// from which it goes on to the next empty one. Readers take no lock; there is
// one writer at a time. A reader may miss what is being added, and then asks
// again under the writers' lock.
type index struct {
	dir atomic.Pointer[directory]
}

type directory struct {
	depth    uint8
	segments []atomic.Pointer[segment] // 1<<depth
}

type segment struct {
	depth uint8 // how many upper bits of their tags its slots share
	used  int   // of the writer
	slots []atomic.Uint64
}

func newIndex() *index {
	x := &index{}
	d := &directory{segments: make([]atomic.Pointer[segment], 1)}
	d.segments[0].Store(&segment{slots: make([]atomic.Uint64, minSegment)})
	x.dir.Store(d)
	return x
}

// tagOf takes the hash that a key is: decoders seed it, so that nobody outside can choose keys that meet.
func tagOf(k batch.Key) uint32 { return uint32(k.Hi >> 32) }

func (d *directory) of(tag uint32) *segment { return d.segments[tag>>(32-d.depth)].Load() }

// find returns the ID and entry of a key, 0 if it is not known.
func (x *index) find(k batch.Key, entries []pageRef) (uint32, *entry) {
	tag := tagOf(k)
	slots := x.dir.Load().of(tag).slots
	mask := uint32(len(slots) - 1)
	for i := tag & mask; ; i = (i + 1) & mask {
		v := slots[i].Load()
		if v == 0 {
			return 0, nil
		}
		if uint32(v>>32) == tag {
			if e := at(entries, uint32(v)); e != nil && e.is(k) {
				return uint32(v), e
			}
		}
	}
}

// add makes a key known. Its entry is written before.
func (x *index) add(k batch.Key, id uint32) {
	tag := tagOf(k)
	s := x.dir.Load().of(tag)
	for s.used+1 > len(s.slots)/8*7 {
		x.widen(tag, s)
		s = x.dir.Load().of(tag)
	}
	s.put(uint64(tag)<<32 | uint64(id))
}

func (s *segment) put(v uint64) {
	mask := uint32(len(s.slots) - 1)
	i := uint32(v>>32) & mask
	for s.slots[i].Load() != 0 {
		i = (i + 1) & mask
	}
	s.slots[i].Store(v)
	s.used++
}

// widen gives the slots of s more room: a larger segment, or two.
func (x *index) widen(tag uint32, s *segment) {
	d := x.dir.Load()
	if len(s.slots) < maxSegment || s.depth == maxDepth {
		d.replace(tag, s.depth, s.copied(2*len(s.slots), func(uint64) bool { return true }))
		return
	}
	if s.depth == d.depth {
		wider := &directory{depth: d.depth + 1, segments: make([]atomic.Pointer[segment], 2*len(d.segments))}
		for i := range wider.segments {
			wider.segments[i].Store(d.segments[i/2].Load())
		}
		d = wider
		x.dir.Store(d)
	}
	bit := uint64(1) << (63 - s.depth)
	for _, side := range []uint64{0, bit} {
		half := s.copied(len(s.slots), func(v uint64) bool { return v&bit == side })
		half.depth++
		d.replace(tag&^uint32(bit>>32)|uint32(side>>32), half.depth, half)
	}
}

// copied is a segment with those slots of s that keep names.
func (s *segment) copied(slots int, keep func(uint64) bool) *segment {
	c := &segment{depth: s.depth, slots: make([]atomic.Uint64, slots)}
	for i := range s.slots {
		if v := s.slots[i].Load(); v != 0 && keep(v) {
			c.put(v)
		}
	}
	return c
}

// replace puts s in all places that share the upper depth bits of tag.
func (d *directory) replace(tag uint32, depth uint8, s *segment) {
	n := 1 << (d.depth - depth)
	from := int(tag>>(32-d.depth)) &^ (n - 1)
	for i := range n {
		d.segments[from+i].Store(s)
	}
}

// each calls f for each segment, with a tag that leads to it.
func (d *directory) each(f func(tag uint32, s *segment)) {
	for i := 0; i < len(d.segments); {
		s := d.segments[i].Load()
		f(uint32(i)<<(32-d.depth), s)
		i += 1 << (d.depth - s.depth)
	}
}

// drop leaves out those slots of segment n whose entry is gone, and returns the
// number of the segment behind it. There are no more if it returns false.
func (x *index) drop(n int, gone func(id uint32) bool) (next int, more bool) {
	d := x.dir.Load()
	if n >= len(d.segments) {
		return 0, false
	}
	s := d.segments[n].Load()
	left := 0
	for i := range s.slots {
		if v := s.slots[i].Load(); v != 0 && !gone(uint32(v)) {
			left++
		}
	}
	if left < s.used {
		size := minSegment
		for left+1 > size/8*6 {
			size *= 2
		}
		d.replace(uint32(n)<<(32-d.depth), s.depth, s.copied(size, func(v uint64) bool { return !gone(uint32(v)) }))
	}
	size := 1 << (d.depth - s.depth)
	return n&^(size-1) + size, true
}

// bytes is the memory that the index takes.
func (x *index) bytes() int {
	d := x.dir.Load()
	n := 8 * len(d.segments)
	d.each(func(_ uint32, s *segment) { n += 8*len(s.slots) + 40 })
	return n
}
