package heads

import (
	"runtime/debug"
	"sync"
)

// collector is Go's garbage collector, as far as it has to do with openings. A TSDB that is
// opened takes memory and gives hardly any of it back. But each time memory has grown by as little as the binary
// lets garbage gather, the collector goes through all of it, which is a fifth of the work of
// an opening. So it waits longer meanwhile. The memory limit of the process holds as ever.
type collector struct {
	mu struct {
		sync.Mutex
		openings int
		before   int // percent
	}
}

// openingPercent is by how much memory grows between two collections during an opening.
const openingPercent = 200

// hold lets the collector wait until release is called. Several openings may hold it at once.
func (c *collector) hold() (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.openings == 0 {
		c.mu.before = debug.SetGCPercent(openingPercent)
		if c.mu.before < 0 || c.mu.before > openingPercent {
			debug.SetGCPercent(c.mu.before) // as the operator wants it
		}
	}
	c.mu.openings++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.mu.openings--; c.mu.openings == 0 {
			debug.SetGCPercent(c.mu.before)
		}
	}
}
