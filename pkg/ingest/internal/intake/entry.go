package intake

import (
	"sync/atomic"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// entry is what is known of one series: 32 bytes without pointers. Its place is
// its ID, so that the series of a request, which came in the same order the
// last time, stand one behind the other in memory.
//
//	8 bytes  first half of the key   │ both 0: empty
//	8 bytes  second half             │
//	8 bytes  hash for the ring
//	4 bytes  the ID that followed this one the last time
//	23 bits  class: what shall become of it
//	1 bit    plain: taken, tenant's own, no pair: the class need not be looked at
//	1 byte   tick at which it was last seen, mod 256
//
// Readers take no lock: key and class never change once they are written, an ID
// is never used again, and what follows is only a guess.
type entry struct {
	hi, lo, hash, word atomic.Uint64
}

const (
	seenBits  = 0xff
	plainBit  = 1 << 8
	classAt   = 9
	maxClass  = 1<<23 - 1
	nextAt    = 32
	pageBits  = 8
	pageSize  = 1 << pageBits
	pageMask  = pageSize - 1
	maxNumber = 1<<30 - 1 // owners take no larger ones
)

func (e *entry) is(k batch.Key) bool { return e.hi.Load() == k.Hi && e.lo.Load() == k.Lo }

func (e *entry) empty() bool { return e.hi.Load() == 0 && e.lo.Load() == 0 }

func classOf(word uint64) uint32 { return uint32(word>>classAt) & maxClass }

// follow notes what came behind e.
func (e *entry) follow(id uint32) {
	w := e.word.Load()
	e.word.CompareAndSwap(w, w&(1<<nextAt-1)|uint64(id)<<nextAt) // lost: the next request will tell again
}

// touch notes that e was seen.
func (e *entry) touch(tick uint8) {
	w := e.word.Load()
	e.word.CompareAndSwap(w, w&^seenBits|uint64(tick))
}

// page is a run of entries. own has the IDs that entries have at a tenant other
// than the request's; nil if there are none.
type page [pageSize]entry

type pageRef struct {
	entries atomic.Pointer[page]
	own     atomic.Pointer[[pageSize]uint32]
}

// pages is all entries by ID. IDs begin at 1. Entries are added by one
// goroutine at a time.
type pages struct{ dir atomic.Pointer[[]pageRef] }

// at returns the entry of an ID; nil if it is gone or newer than dir.
func at(dir []pageRef, id uint32) *entry {
	if n := id >> pageBits; int(n) < len(dir) {
		if p := dir[n].entries.Load(); p != nil {
			return &p[id&pageMask]
		}
	}
	return nil
}

func (p *pages) load() []pageRef {
	if d := p.dir.Load(); d != nil {
		return *d
	}
	return nil
}

// grow makes room for an ID.
func (p *pages) grow(id uint32) []pageRef {
	dir, n := p.load(), int(id>>pageBits)
	if n >= len(dir) {
		wider := make([]pageRef, max(4, 2*len(dir), n+1))
		for i := range dir {
			wider[i].entries.Store(dir[i].entries.Load())
			wider[i].own.Store(dir[i].own.Load())
		}
		dir = wider
		p.dir.Store(&dir)
	}
	if dir[n].entries.Load() == nil {
		dir[n].entries.Store(new(page))
	}
	return dir
}
