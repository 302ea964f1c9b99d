package ring

import (
	"sync"

	"github.com/firnline/firnline/pkg/tenant"
)

// viewKey is what a View of a part of the ring is made for.
type viewKey struct {
	tenant tenant.ID
	size   int
}

// maxRanges bounds the Views kept, by their ranges: some 80 MiB.
const maxRanges = 4 << 20

// viewCache keeps Views. The zero value is empty.
type viewCache struct {
	mu     sync.RWMutex
	views  map[viewKey]*View
	ranges int // of all of them
}

// get returns the View of a key, and makes it if it is not there.
func (c *viewCache) get(k viewKey, build func() (*View, error)) (*View, error) {
	c.mu.RLock()
	v := c.views[k]
	c.mu.RUnlock()
	if v != nil {
		return v, nil
	}
	v, err := build()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.views == nil || c.ranges+len(v.set) > maxRanges {
		c.views, c.ranges = map[viewKey]*View{}, 0
	}
	c.views[k] = v
	c.ranges += len(v.set)
	return v, nil
}
