package heads

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// Memory is what there is of it. The zero value knows nothing, and then there is always enough.
type Memory struct {
	// Used tells live memory, and all that is held with garbage, as shares of
	// the limit. Safe for concurrent use.
	Used func() (live, held float64)
	// Limit is what these are shares of, in bytes. 0: not known.
	Limit int64
	// Collect frees all garbage. nil: debug.FreeOSMemory.
	Collect func()
}

func (m Memory) withDefaults() Memory {
	if m.Collect == nil {
		m.Collect = debug.FreeOSMemory
	}
	return m
}

// room watches over memory while a TSDB is opened. A log that takes more than there
// is would end the process, and again at each start: reading it ends instead, the
// log stays as it is, and other tenants go on.
//
// What a TSDB is going to hold is known before it is loaded, and what does not fit is not
// begun. That is an estimate, and so memory is looked at, too, while series are created. Whoever creates
// one waits for the look: garbage can't grow faster than it is collected.
//
// Several goroutines may ask.
type room struct {
	memory Memory
	gc     *collector
	base   float64 // share that was live before

	mu struct {
		sync.Mutex
		planned replay.Memory // what the TSDB is going to hold, as far as known
		later   int64         // bytes of it that come when all series are there
		series  int           // that were created
		dropped bool          // the TSDB has let go of them after an error
		err     error
	}
}

const (
	// mostLive is what may be live while a TSDB is opened. It is above the watermark of
	// writes (--ingest.memory-watermark), so that what was taken can be read again.
	mostLive = 0.97
	// mostHeld is what there may be with garbage. A container gives its process a tenth more than the limit.
	mostHeld = 1.03
	// mostSeldom is what may be held while garbage is collected seldom.
	mostSeldom = 0.5
	// lookEvery is the number of series, of about a kilobyte each, between two looks.
	lookEvery = 1000
)

// errNoRoom is a log that takes more memory than there is.
var errNoRoom = errors.New("out of memory")

func newRoom(m Memory, gc *collector) *room {
	r := &room{memory: m, gc: gc}
	if m.Used != nil {
		r.base, _ = m.Used()
	}
	return r
}

// plan counts what the TSDB is going to hold more, and tells why there is no room for all of that. Without anything
// more it looks at memory.
func (r *room) plan(more replay.Memory) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.planned.Series += more.Series
	r.mu.planned.Chunks += more.Chunks
	r.mu.planned.Bytes += more.Bytes
	if r.memory.Limit > 0 && r.mu.err == nil {
		size := r.mu.planned.Size()
		if r.base+float64(size)/float64(r.memory.Limit) > mostLive {
			r.mu.err = fmt.Errorf("%w: its log has %d series and more, which take some %d MB, and %.0f%% of the memory limit of %d MB was in use before; %s",
				errNoRoom, r.mu.planned.Series, size>>20, r.base*100, r.memory.Limit>>20, itIsKept)
		}
	}
	if more == (replay.Memory{}) {
		r.look(0)
	}
	return r.mu.err
}

const itIsKept = "it is kept, and needs a process with more memory"

// create counts a series that is created, and tells why there may be no more.
func (r *room) create() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.err != nil {
		if r.mu.dropped {
			// The TSDB goes on, and takes memory of which nobody is asked.
			r.memory.Collect()
			r.mu.dropped = false
		}
		return r.mu.err
	}
	if r.mu.series++; r.mu.series%lookEvery == 0 {
		r.look(r.mu.later)
	}
	return r.mu.err
}

// look sees whether there is memory left beside so many bytes. r.mu is held.
func (r *room) look(beside int64) {
	if r.memory.Used == nil || r.mu.err != nil {
		return
	}
	short := func() (float64, bool) {
		live, held := r.memory.Used()
		if held > mostSeldom {
			r.gc.asBefore()
		}
		if r.memory.Limit > 0 {
			live += float64(beside) / float64(r.memory.Limit)
		}
		return max(live, held), live > mostLive || held > mostHeld
	}
	if _, yes := short(); !yes {
		return
	}
	r.memory.Collect()
	if used, yes := short(); yes {
		r.mu.err = fmt.Errorf("%w: %.0f%% of the memory limit is in use with %d series of its log; %s", errNoRoom, used*100, max(r.mu.series, r.mu.planned.Series), itIsKept)
	}
}

// await notes what comes when all series are there.
func (r *room) await(m replay.Memory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.later = m.ChunkSize()
}

// dropped notes that series are gone again.
func (r *room) dropped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.dropped = true
}

// failed is why there was no room, or nil.
func (r *room) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}
