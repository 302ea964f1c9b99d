package heads

import (
	"errors"
	"fmt"
	"sync"
)

// room watches over memory while a log is read. A log that takes more than there
// is would end the process, and again at each start: reading it ends instead, the
// log stays as it is, and other tenants go on.
//
// Series are looked at, since they are what a head's memory goes by. Several
// goroutines may read them.
type room struct {
	used func() (live, held float64) // memory as a share of the limit

	mu struct {
		sync.Mutex
		series int
		err    error
	}
}

const (
	// mostLive is what may be live while a log is read. It is above the watermark of
	// writes (--ingest.memory-watermark), so that what was taken can be read again.
	mostLive = 0.97
	// mostHeld is what there may be with garbage: collecting it all the time has not
	// been enough. A container gives its process a tenth more than the limit.
	mostHeld = 1.03
	// lookEvery is the number of series, of about a kilobyte each, between two looks.
	lookEvery = 1000
)

// errNoRoom is a log that takes more memory than there is.
var errNoRoom = errors.New("out of memory")

// check counts a series that was read, and tells why there may be no more.
func (r *room) check() error {
	if r.used == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err != nil {
		return r.mu.err
	}
	r.mu.series++
	if r.mu.series%lookEvery != 0 {
		return nil
	}
	if live, held := r.used(); live > mostLive || held > mostHeld {
		r.mu.err = fmt.Errorf("%w: %.0f%% of the memory limit was in use after %d series of its log; it is kept, and needs a process with more memory", errNoRoom, max(live, held)*100, r.mu.series)
	}
	return r.mu.err
}

// failed is why there was no room, or nil.
func (r *room) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}
