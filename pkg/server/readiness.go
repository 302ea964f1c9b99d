package server

import (
	"fmt"
	"sync"
)

// readiness collects what the process waits for before it can serve.
type readiness struct {
	mu struct {
		sync.Mutex
		checks   []check
		stopping bool
	}
}

type check struct {
	name string
	ask  func() error
}

func (r *readiness) add(name string, ask func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.checks = append(r.mu.checks, check{name, ask})
}

func (r *readiness) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.stopping = true
}

// waiting lists what is not ready, each entry one line; none means ready.
func (r *readiness) waiting() []string {
	r.mu.Lock()
	checks, stopping := r.mu.checks, r.mu.stopping
	r.mu.Unlock()
	if stopping {
		return []string{"server: stopping"}
	}
	var out []string
	for _, c := range checks { // outside the lock: a check may take locks of its own
		if err := c.ask(); err != nil {
			out = append(out, oneLine(fmt.Sprintf("%s: %v", c.name, err)))
		}
	}
	return out
}
