package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// firnline merges replicas so that the result looks as if one of them had been
// asked, had it never missed a scrape:
//
//   - It reads one replica for as long as that is dense. Others aren't decoded.
//   - Where the next sample is more than one and a half intervals away, or is a
//     stale marker, it goes to the replica that has the earliest sample in
//     between, half an interval or more after the last one, and stays there.
//   - The samples of a counter are raw values. Only where it moves to another
//     replica that was scraped a moment earlier, so that its value lies below
//     the last one without a reset seen by that replica, the last value is
//     repeated until the replica has caught up. So there is no false reset, and
//     no value which the true counter had not reached by then.
//
// The result doesn't depend on where a reader seeks to: a Seek walks.
type firnline struct {
	counter bool
	level   *level // see NewCorrected; else nil
	cursors []*cursor
	cur     *cursor // whose head is the current sample

	started bool
	at      sample // what At returns: the current sample, its histogram hints settled
	floor   sample // a counter value not to go below yet; see raiseFloor
	floored bool
	err     error
}

func newFirnline(counter bool, replicas []chunkenc.Iterator) *firnline {
	f := &firnline{counter: counter, cursors: make([]*cursor, len(replicas))}
	for i, it := range replicas {
		f.cursors[i] = newCursor(it, counter)
	}
	return f
}

func (f *firnline) Next() chunkenc.ValueType {
	switch {
	case f.err != nil:
		return chunkenc.ValNone
	case !f.started:
		f.start()
	case !f.at.ok():
		return chunkenc.ValNone
	default:
		f.advance()
	}
	if f.err == nil {
		f.err = f.failed()
	}
	if f.err != nil {
		f.at.typ = chunkenc.ValNone
	}
	return f.at.typ
}

// start takes the replica that begins first.
func (f *firnline) start() {
	f.started = true
	for _, c := range f.cursors {
		c.next()
		if c.head.ok() && (f.cur == nil || c.head.t < f.cur.head.t) {
			f.cur = c
		}
	}
	if f.cur != nil {
		f.settle(f.cur, false)
	}
}

// advance moves to the next sample. Invariant: the head of cur is the last one returned.
func (f *firnline) advance() {
	c, last := f.cur, f.at.t
	c.skip(last)
	if d := c.interval(); c.gaps[1] > 0 && c.head.ok() && !c.head.stale() && c.head.t-last <= d+d/2 {
		f.settle(c, false)
		return
	}
	if o := f.best(last); o != c {
		f.cur = o
		f.settle(o, true)
		return
	}
	f.settle(c, false)
}

// best returns the replica to go on with after last, where cur has a gap, ends
// or goes stale.
func (f *firnline) best(last int64) *cursor {
	best, bestScore := f.cur, score(&f.cur.head, f.cur.interval())
	for _, o := range f.cursors {
		if o == f.cur {
			continue
		}
		o.skip(last)
		d := f.intervalFor(o)
		if !o.prev.same(&f.at) {
			o.skip(last + d/2)
		}
		if f.at.stale() {
			o.skipStale()
		}
		if !o.head.ok() || !f.mayFill(last, d) {
			continue
		}
		if s := score(&o.head, d); s < bestScore {
			best, bestScore = o, s
		}
	}
	return best
}

// score ranks what could come next: the earlier the better, where a stale marker
// may be outdone by a sample up to an interval later.
func score(s *sample, interval int64) int64 {
	switch {
	case !s.ok():
		return math.MaxInt64
	case s.stale():
		return s.t + interval
	}
	return s.t
}

// intervalFor is the interval to judge the pair of cur and o by: the smaller one
// of those known, since a young replica may have seen nothing but a gap yet.
// 0: neither is known.
func (f *firnline) intervalFor(o *cursor) int64 {
	a, b := f.cur.interval(), o.interval()
	if b == 0 {
		b = o.peekInterval()
	}
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// mayFill tells whether cur is silent for so long, seen from last, that another
// replica may speak. While no interval is known only the end of cur is silence.
func (f *firnline) mayFill(last, interval int64) bool {
	h := &f.cur.head
	return !h.ok() || h.stale() || (interval > 0 && h.t-last > interval+interval/2)
}

func (c *cursor) skipStale() {
	for c.head.ok() && c.head.stale() {
		c.next()
	}
}

// settle makes the head of c the current sample. moved: the one before came from
// another replica.
func (f *firnline) settle(c *cursor, moved bool) {
	before := f.at
	f.at = c.head
	if !f.at.ok() {
		return
	}
	if f.level != nil {
		f.err = f.raise(c, moved)
	}
	if moved && f.counter {
		f.raiseFloor(c, &before)
	}
	if f.floored {
		f.keepFloor(c)
	}
	if moved || f.floored {
		f.forgetHint()
	}
}

// raise adds to the current sample what c's counter has missed.
func (f *firnline) raise(c *cursor, moved bool) (err error) {
	switch f.at.typ {
	case chunkenc.ValFloat:
		f.at.v = f.level.float(f.at.v, &c.missed)
	case chunkenc.ValFloatHistogram:
		f.at.fh, err = f.level.histogram(f.at.fh, &c.missed, moved)
	}
	return err
}

// raiseFloor looks, after a move to c, whether its head lies below the sample
// before though c saw no reset since: then the sample before becomes the floor.
// A replica that was away too long can't tell; what looks like a reset then is
// taken for one.
func (f *firnline) raiseFloor(c *cursor, before *sample) {
	present := c.prev.ok() && c.prev.t > before.t-2*c.interval()
	f.floored = present && !f.resetAfter(c, before.t) && c.head.below(before)
	if !f.floored {
		return
	}
	f.floor = sample{typ: before.typ, t: before.t, v: before.v}
	if before.typ != chunkenc.ValFloat {
		f.floor.typ, f.floor.fh = chunkenc.ValFloatHistogram, before.float()
	}
}

// keepFloor repeats the floor in place of a current sample that lies below it,
// until c has caught up or was reset itself.
func (f *firnline) keepFloor(c *cursor) {
	if f.at.stale() {
		return
	}
	if f.resetAfter(c, f.floor.t) || !f.at.below(&f.floor) {
		f.floored = false
		return
	}
	f.at.typ, f.at.v, f.at.fh = f.floor.typ, f.floor.v, f.floor.fh
}

// resetAfter tells whether c went through a reset after t which no replica had
// gone through by t. Another replica's reset is the same one where it came
// after the sample at which c had not seen it yet, and shortly before t: what a
// replica lags behind is far less than two scrapes.
func (f *firnline) resetAfter(c *cursor, t int64) bool {
	if c.resetT <= t {
		return false
	}
	for _, o := range f.cursors {
		if o != c && o.resetT <= t && o.resetT > max(c.beforeResetT, t-2*o.interval()) {
			return false
		}
	}
	return true
}

// forgetHint makes readers compare histograms rather than trust a hint that
// speaks of another replica's sample.
func (f *firnline) forgetHint() {
	switch f.at.typ {
	case chunkenc.ValHistogram:
		if f.at.h.CounterResetHint != histogram.GaugeType {
			f.at.h.CounterResetHint = histogram.UnknownCounterReset
		}
	case chunkenc.ValFloatHistogram:
		if f.at.fh.CounterResetHint != histogram.GaugeType {
			f.at.fh.CounterResetHint = histogram.UnknownCounterReset
		}
	}
}

func (f *firnline) failed() error {
	for _, c := range f.cursors {
		if c.head.ok() || !f.started {
			continue
		}
		if err := c.it.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (f *firnline) Seek(t int64) chunkenc.ValueType {
	if f.started && f.at.ok() && f.at.t >= t {
		return f.at.typ
	}
	for {
		if typ := f.Next(); typ == chunkenc.ValNone || f.at.t >= t {
			return typ
		}
	}
}

func (f *firnline) At() (int64, float64) { return f.at.t, f.at.v }

func (f *firnline) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	if h == nil {
		return f.at.t, f.at.h.Copy()
	}
	f.at.h.CopyTo(h)
	return f.at.t, h
}

func (f *firnline) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if f.at.typ == chunkenc.ValHistogram {
		return f.at.t, f.at.h.ToFloat(fh)
	}
	if fh == nil {
		return f.at.t, f.at.fh.Copy()
	}
	f.at.fh.CopyTo(fh)
	return f.at.t, fh
}

func (f *firnline) AtT() int64  { return f.at.t }
func (f *firnline) AtST() int64 { return f.at.st }
func (f *firnline) Err() error  { return f.err }
