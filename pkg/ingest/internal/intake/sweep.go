package intake

import (
	"maps"
	"time"
	"unsafe"

	"github.com/firnline/firnline/pkg/tenant"
)

const (
	// tickLength is the unit in which it is noted when a series was last seen.
	tickLength = 2 * time.Minute
	// maxIdle keeps ages well below the 256 ticks that an entry can tell apart.
	maxIdle = 6 * time.Hour
	// rollSlack is how many IDs may be given out beyond four for each live series before
	// a catalog begins anew, so that owners can keep a plain table by ID.
	rollSlack = 1 << 20
)

func tickOf(t time.Time) uint8 { return uint8(t.Unix() / int64(tickLength/time.Second)) }

func ticks(d time.Duration) uint8 { return uint8(d / tickLength) }

// age is how many ticks ago seen was. What looks like the future was seen just now.
func age(tick, seen uint8) uint8 {
	if a := tick - seen; a < 240 {
		return a
	}
	return 0
}

// sweep forgets series that nobody sent for a while, counts those that are
// active, and begins catalogs anew that have given out too many IDs.
func (in *Intake) sweep(now time.Time) {
	began := time.Now()
	idle := ticks(time.Duration(in.cfg.IdleTimeout))
	if in.live.Load() > int64(in.cfg.MaxSeries)/8*7 || in.crowded() != nil { // room for new ones before it is refused to all
		idle = ticks(time.Duration(in.cfg.ActiveWindow))
	}
	active := ticks(time.Duration(in.cfg.ActiveWindow))
	total, size := int64(0), 0
	for id, s := range in.snapshot() {
		left, forgotten := s.cat.sweep(now, idle, active)
		in.metrics.forgotten.Add(float64(forgotten))
		switch {
		case left == 0:
			in.replace(id, s, nil)
		case s.cat.spent():
			in.log.Info("series of a tenant get new numbers", "tenant", id, "series", left)
			in.metrics.forgotten.Add(float64(left))
			in.replace(id, s, &state{lim: s.lim, cat: newCatalog(s.cat.rules)})
		default:
			total += left
			size += s.cat.bytes()
		}
	}
	in.live.Store(total) // what was added to catalogs that were replaced meanwhile is corrected here
	in.rates.forget(now)
	in.metrics.bytes.Set(float64(size))
	in.metrics.sweep.Set(time.Since(began).Seconds())
}

// snapshot lists the catalogs of all tenants.
func (in *Intake) snapshot() map[tenant.ID]*state {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return maps.Clone(in.mu.states)
}

// replace puts another state in the place of one, if that is still there; nil: none.
func (in *Intake) replace(id tenant.ID, old, with *state) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.mu.states[id] != old:
	case with == nil:
		delete(in.mu.states, id)
	default:
		in.mu.states[id] = with
	}
}

// spent tells whether so many IDs were given out that tables by ID are mostly empty.
func (c *catalog) spent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.mu.last) > 4*c.live.Load()+rollSlack
}

// sweep drops entries not seen for idle ticks and counts what was seen within
// active ticks. Look-ups and adding go on meanwhile.
func (c *catalog) sweep(now time.Time, idle, active uint8) (left, forgotten int64) {
	tick := tickOf(now)
	counts := make([]int64, len(c.load()), len(c.load())+16)
	dir := c.entries.load()
	for n := range dir {
		p := dir[n].entries.Load()
		if p == nil {
			continue
		}
		lives := 0
		for i := range p {
			e := &p[i]
			if e.empty() {
				continue
			}
			word := e.word.Load()
			old := age(tick, uint8(word))
			if old > idle {
				e.hi.Store(0)
				e.lo.Store(0)
				forgotten++
				continue
			}
			lives++
			if cl := classOf(word); old <= active && int(cl) < len(counts) { // newer classes are for the next time
				counts[cl]++
			}
		}
		left += int64(lives)
		if lives == 0 {
			c.free(uint32(n), dir)
		}
	}
	if forgotten > 0 {
		c.live.Add(-forgotten)
		c.clean()
	}
	c.summarise(counts, now)
	return left, forgotten
}

// free lets the memory of a page go that is full of what was forgotten.
func (c *catalog) free(n uint32, dir []pageRef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n >= c.mu.last>>pageBits {
		return // still being filled
	}
	dir[n].entries.Store(nil)
	dir[n].own.Store(nil)
	if now := c.entries.load(); len(now) != len(dir) { // it grew since
		now[n].entries.Store(nil)
		now[n].own.Store(nil)
	}
}

// clean takes what was forgotten out of the index, a segment at a time.
func (c *catalog) clean() {
	for n, more := 0, true; more; {
		n, more = c.cleanSegment(n)
	}
}

func (c *catalog) cleanSegment(n int) (next int, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir := c.entries.load()
	return c.index.drop(n, func(id uint32) bool {
		e := at(dir, id)
		return e == nil || e.empty()
	})
}

// bytes is the memory that entries and index take.
func (c *catalog) bytes() int {
	n := c.index.bytes()
	for i, dir := 0, c.entries.load(); i < len(dir); i++ {
		n += int(unsafe.Sizeof(pageRef{}))
		if dir[i].entries.Load() != nil {
			n += int(unsafe.Sizeof(page{}))
		}
		if dir[i].own.Load() != nil {
			n += 4 * pageSize
		}
	}
	return n
}
