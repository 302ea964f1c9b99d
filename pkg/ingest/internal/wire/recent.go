package wire

import (
	"sync"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// recent remembers values by key: all that were asked for lately, at most two
// generations of them. When one is full, the one before it is forgotten.
type recent[V any] struct {
	most int // of a generation
	mu   struct {
		sync.RWMutex
		young, old map[batch.Key]V
	}
}

func (c *recent[V]) get(k batch.Key) (V, bool) {
	c.mu.RLock()
	v, ok := c.mu.young[k]
	if ok {
		c.mu.RUnlock()
		return v, true
	}
	v, ok = c.mu.old[k]
	c.mu.RUnlock()
	if ok {
		c.put(k, v)
	}
	return v, ok
}

func (c *recent[V]) put(k batch.Key, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.young == nil || len(c.mu.young) >= c.most {
		c.mu.old, c.mu.young = c.mu.young, map[batch.Key]V{}
	}
	c.mu.young[k] = v
}
