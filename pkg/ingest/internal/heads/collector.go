package heads

import (
	"runtime/debug"
	"sync"
)

// seldomPercent is by how much memory grows between two collections during the first opening.
const seldomPercent = 200

// collector lets Go's garbage collector wait. A TSDB that is
// opened takes memory and gives hardly any of it back. But each time memory has grown by as little as
// the binary lets garbage gather, the collector goes through all of it, which is a fifth of the work of
// an opening. The memory limit of the process holds as ever.
//
// It is for a process that holds nothing yet: where other TSDBs are open their
// memory counts, too, and garbage would grow to twice of it. And it is for one that has memory to spare.
type collector struct {
	mu struct {
		sync.Mutex
		waits  bool
		before int // percent
	}
}

// seldom lets it wait until asBefore.
func (c *collector) seldom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := debug.SetGCPercent(seldomPercent)
	if before < 0 || before > seldomPercent {
		debug.SetGCPercent(before) // as the operator wants it
		return
	}
	c.mu.waits, c.mu.before = true, before
}

// asBefore lets it go on as before. It may be called at any time.
func (c *collector) asBefore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.waits {
		debug.SetGCPercent(c.mu.before)
		c.mu.waits = false
	}
}
