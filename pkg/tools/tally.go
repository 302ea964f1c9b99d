package tools

import "sync"

// tally counts what is done of a piece of work and tells of it.
type tally struct {
	all  int
	tell func(done, all int, bytes int64)

	mu struct {
		sync.Mutex
		done  int
		bytes int64
	}
}

func newTally(all int, tell func(done, all int, bytes int64)) *tally {
	return &tally{all: all, tell: tell}
}

// add counts one thing of so many bytes.
func (t *tally) add(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.done++
	t.mu.bytes += bytes
	if t.tell != nil {
		t.tell(t.mu.done, t.all, t.mu.bytes)
	}
}
