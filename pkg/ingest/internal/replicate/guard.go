package replicate

import (
	"sync"
	"time"
)

// guard bounds what waits for one node, and spares a node that failed: it is
// left alone for a while, then one request at a time tries it, until one succeeds.
// It knows no clock, and is safe for use by many.
type guard struct {
	maxRequests int
	maxBytes    int64
	maxBackoff  time.Duration

	mu       sync.Mutex
	requests int
	bytes    int64
	backoff  time.Duration // above 0: the node failed last
	until    time.Time     // it is left alone
	probing  bool
}

// minBackoff is how long a node is left alone for when it fails first.
const minBackoff = 100 * time.Millisecond

// admission is what a guard says of a request.
type admission uint8

const (
	goAhead admission = iota
	busy
	sick
)

// enter admits a request that holds so many bytes, or does not. One that is admitted must leave.
func (g *guard) enter(bytes int64, now time.Time) admission {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.backoff > 0 && (g.probing || now.Before(g.until)):
		return sick
	case g.requests >= g.maxRequests, g.requests > 0 && g.bytes+bytes > g.maxBytes:
		return busy
	}
	g.probing = g.backoff > 0
	g.requests++
	g.bytes += bytes
	return goAhead
}

// leave takes note of how a request ended: the node answered it, or not. It
// tells whether the node has become sick or well by it.
func (g *guard) leave(bytes int64, answered bool, now time.Time) (changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests--
	g.bytes -= bytes
	was := g.backoff > 0
	switch {
	case answered:
		g.backoff, g.probing = 0, false
	case g.backoff == 0 || g.probing:
		g.backoff = min(max(2*g.backoff, minBackoff), g.maxBackoff)
		g.until, g.probing = now.Add(g.backoff), false
	}
	return was != (g.backoff > 0)
}

// isSick tells whether the node failed last.
func (g *guard) isSick() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.backoff > 0
}
