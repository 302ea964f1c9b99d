package downsample

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// Part is one of several chunks of a series that overlap in time.
type Part struct {
	Payload []byte
	// Replica tells whose it is: parts with the same number are of one replica.
	Replica int
}

// Merge makes of aggregate chunks that overlap, and are all of one series and
// resolution, others that don't. Parts that come first have precedence.
//
// Parts of one replica overlap where samples came late. In a window that several
// of them have, equal aggregates are one; otherwise counts and sums add, minima
// and maxima combine, which is exact unless a sample is in both, and the counter
// is that of the part which has more samples, which leaves out what the late ones
// say on resets.
//
// Of several replicas each window is taken from one: from that of the window
// before as long as it has half as many samples as any other, else from the one
// with the most. So all aggregates of a window belong together. Where the choice
// changes, the counter goes on with what the new replica saw since its window
// before, less what was counted of that time already: it doesn't go down, and
// there is no reset that neither has seen. Since nobody knows when within its
// window a replica was last there, this is exact to what a window grows.
func Merge(resolution int64, parts []Part) ([]Encoded, error) {
	m := merge{resolution: resolution}
	for i, p := range parts {
		if err := m.add(i, p); err != nil {
			return nil, err
		}
	}
	for slot, ok := m.nextSlot(); ok; slot, ok = m.nextSlot() {
		if err := m.takeSlot(slot); err != nil {
			return nil, fmt.Errorf("merge windows at %d ms: %w", slot, err)
		}
	}
	if err := m.end(nil); err != nil {
		return nil, err
	}
	return m.out, nil
}

// PartError says which of the parts given to Merge can't be read.
type PartError struct {
	Part int // index
	Err  error
}

func (e *PartError) Error() string { return fmt.Sprintf("part %d: %v", e.Part, e.Err) }

// Unwrap returns what is wrong with it.
func (e *PartError) Unwrap() error { return e.Err }

// number is a value of floats, or of histograms where h is set.
type number struct {
	f float64
	h *histogram.FloatHistogram
}

func (a number) plus(b number) (number, error) {
	if a.h == nil {
		return number{f: a.f + b.f}, nil
	}
	h, _, _, err := a.h.Copy().Add(b.h)
	return number{h: h}, err
}

func (a number) minus(b number) (number, error) {
	if a.h == nil {
		return number{f: a.f - b.f}, nil
	}
	h, _, _, err := a.h.Copy().Sub(b.h)
	return number{h: h}, err
}

// below tells whether a counter was reset that was at b and then is at a.
func (a number) below(b number) bool {
	if a.h == nil {
		return a.f < b.f
	}
	return isReset(a.h, b.h)
}

// grown is a - b, or nothing where that is below zero anywhere.
func (a number) grown(b number) (number, error) {
	if !a.below(b) {
		return a.minus(b)
	}
	if a.h == nil {
		return number{}, nil
	}
	return b.minus(b)
}

func (a number) equal(b number) bool {
	if a.h == nil || b.h == nil {
		return a.h == b.h && (a.f == b.f || a.f != a.f && b.f != b.f)
	}
	return a.h.Equals(b.h)
}

// mergeWindow is one window of a part.
type mergeWindow struct {
	t          int64
	count      float64
	sum        number
	min, max   float64
	counter    number // without the resets since the beginning of its run
	first      number // true value of the first sample of its chunk; only in its first window
	firstT     int64
	begins     bool   // the first window of its chunk
	last       number // true value of the last sample of its chunk; only in its last window
	ends       bool
	resolution int64
}

func (w *mergeWindow) slot() int64 { return windowEnd(w.t, w.resolution) }

// lane are the windows of one replica and layout that follow one another, chunk
// by chunk, with one counter.
type lane struct {
	replica int
	layout  layout
	hist    bool
	windows []mergeWindow
	next    int
}

// merge is a Merge under way.
type merge struct {
	resolution int64
	lanes      []*lane // in the order of the parts they begin with

	replica int // whose windows are taken; valid once there is an open chunk
	started bool

	lane  *lane // of the chunk being made
	chunk []mergeWindow
	outs  []total // the counter of what was taken of that kind, by window
	out   []Encoded
}

// total is the counter of the result at the end of a window.
type total struct {
	slot  int64
	value number
}

// add decodes a part and puts it behind the lane that it goes on with.
func (m *merge) add(i int, p Part) error {
	c, err := Decode(p.Payload)
	if err != nil {
		return &PartError{i, err}
	}
	l := &lane{replica: p.Replica}
	if l.hist = isHistogram(c[Counter].Encoding); l.hist {
		err = l.readHists(c, m.resolution)
	} else {
		err = l.readFloats(c, m.resolution)
	}
	if err != nil {
		return &PartError{i, err}
	}
	for _, o := range m.lanes {
		last := &o.windows[len(o.windows)-1]
		if o.replica == l.replica && o.sameKind(l) && last.t < min(l.windows[0].t, l.windows[0].firstT) {
			return o.goOn(l)
		}
	}
	m.lanes = append(m.lanes, l)
	return nil
}

func (l *lane) sameKind(o *lane) bool {
	return l.hist == o.hist && (!l.hist || l.layout.equal(o.layout))
}

func (l *lane) readFloats(in Chunk, resolution int64) error {
	var c floatChunk
	if err := c.decode(in); err != nil {
		return err
	}
	for i, t := range c.t {
		l.windows = append(l.windows, mergeWindow{
			t: t, count: c.count[i], sum: number{f: c.sum[i]}, min: c.min[i], max: c.max[i],
			counter: number{f: c.counter[i]}, resolution: resolution,
		})
	}
	l.bound(c.firstT, number{f: c.first}, number{f: c.last})
	return nil
}

func (l *lane) readHists(in Chunk, resolution int64) error {
	c, err := decodeHists(in)
	if err != nil {
		return err
	}
	l.layout = c.layout
	for i, t := range c.t {
		l.windows = append(l.windows, mergeWindow{
			t: t, count: c.count[i], sum: number{h: c.sum[i]},
			counter: number{h: c.counter[i]}, resolution: resolution,
		})
	}
	last := c.last
	if last == nil {
		last = c.counter[len(c.counter)-1].Copy()
	}
	if !c.layout.gauge {
		for _, h := range append(c.counter, last) {
			h.CounterResetHint = histogram.UnknownCounterReset // Neighbours will be others.
		}
	}
	l.bound(c.firstT, number{h: c.first}, number{h: last})
	return nil
}

// bound notes the true values at both ends of a chunk.
func (l *lane) bound(firstT int64, first, last number) {
	w := &l.windows[0]
	w.begins, w.firstT, w.first = true, min(firstT, w.t), first
	w = &l.windows[len(l.windows)-1]
	w.ends, w.last = true, last
}

// goOn puts the windows of a later chunk behind those of l, whose counter goes
// on: see NewCounter.
func (l *lane) goOn(o *lane) error {
	if l.layout.gauge {
		l.windows = append(l.windows, o.windows...)
		return nil
	}
	last := &l.windows[len(l.windows)-1]
	first := o.windows[0].first
	offset := last.counter
	if !first.below(last.last) {
		var err error
		if offset, err = offset.minus(last.last); err != nil {
			return err
		}
	}
	for i := range o.windows {
		w := o.windows[i]
		var err error
		if w.counter, err = w.counter.plus(offset); err != nil {
			return err
		}
		l.windows = append(l.windows, w)
	}
	return nil
}

// nextSlot returns the end of the next window that any lane has.
func (m *merge) nextSlot() (slot int64, ok bool) {
	for _, l := range m.lanes {
		if l.next == len(l.windows) {
			continue
		}
		if s := l.windows[l.next].slot(); !ok || s < slot {
			slot, ok = s, true
		}
	}
	return slot, ok
}

// choice is what one replica has of a window, of one kind.
type choice struct {
	lane   *lane // whose counter counts
	window mergeWindow
	parts  []mergeWindow
}

// takeSlot adds the windows of one replica that end at slot to the result.
func (m *merge) takeSlot(slot int64) error {
	byReplica := map[int][]*choice{}
	counts := map[int]float64{}
	best := -1
	for _, l := range m.lanes {
		for l.next < len(l.windows) && l.windows[l.next].slot() == slot {
			w := l.windows[l.next]
			l.next++
			var err error
			if byReplica[l.replica], err = join(byReplica[l.replica], l, w); err != nil {
				return err
			}
		}
	}
	for _, l := range m.lanes { // in their order, so that ties are decided by it
		if _, counted := counts[l.replica]; counted || byReplica[l.replica] == nil {
			continue
		}
		for _, c := range byReplica[l.replica] {
			counts[l.replica] += c.window.count
		}
		if best < 0 || counts[l.replica] > counts[best] {
			best = l.replica
		}
	}
	if m.started && 2*counts[m.replica] >= counts[best] && counts[m.replica] > 0 {
		best = m.replica
	}
	m.replica, m.started = best, true
	return m.take(byReplica[best])
}

// join adds a window to those of its kind that the same replica has in the slot.
func join(in []*choice, l *lane, w mergeWindow) ([]*choice, error) {
	for _, c := range in {
		if !c.lane.sameKind(l) {
			continue
		}
		return in, c.join(l, w)
	}
	return append(in, &choice{lane: l, window: w, parts: []mergeWindow{w}}), nil
}

func (c *choice) join(l *lane, w mergeWindow) error {
	// Windows of one lane follow each other in time: none is a copy.
	if l != c.lane && slices.ContainsFunc(c.parts, func(o mergeWindow) bool {
		return o.t == w.t && o.count == w.count && o.min == w.min && o.max == w.max && o.sum.equal(w.sum)
	}) {
		return nil
	}
	most := slices.MaxFunc(c.parts, func(a, b mergeWindow) int { return cmp.Compare(a.count, b.count) })
	sum, err := c.window.sum.plus(w.sum)
	if err != nil {
		return err
	}
	if l != c.lane && w.count > most.count {
		c.lane = l
		c.window.begins, c.window.first, c.window.firstT = w.begins, w.first, w.firstT
	}
	if l == c.lane {
		c.window.counter, c.window.last, c.window.ends = w.counter, w.last, w.ends
	}
	c.window.t = max(c.window.t, w.t)
	c.window.count += w.count
	c.window.sum = sum
	c.window.min, c.window.max = min(c.window.min, w.min), max(c.window.max, w.max)
	c.parts = append(c.parts, w)
	return nil
}

// take appends the windows of a slot, several where it has several kinds.
func (m *merge) take(choices []*choice) error {
	slices.SortStableFunc(choices, func(a, b *choice) int { return cmp.Compare(a.window.t, b.window.t) })
	for i := len(choices) - 2; i >= 0; i-- {
		choices[i].window.t = min(choices[i].window.t, choices[i+1].window.t-1)
	}
	for _, c := range choices {
		if err := m.append(c); err != nil {
			return err
		}
	}
	return nil
}

// append adds a window to the chunk being made, or begins one with it.
func (m *merge) append(c *choice) error {
	w, slot := c.window, c.window.slot()
	switch {
	case m.lane == nil:
		return m.begin(c, slot)
	case !m.lane.sameKind(c.lane):
		if err := m.end(nil); err != nil {
			return err
		}
		m.outs = m.outs[:0]
		return m.begin(c, slot)
	}
	before := m.outs[len(m.outs)-1].value
	value, err := m.next(before, c)
	if err != nil {
		return err
	}
	if m.full(w.t) {
		// Both chunks say the same of the moment between them.
		lane := m.lane
		if err := m.end(&before); err != nil {
			return err
		}
		m.lane = lane
		start := WindowStart(w.t, m.resolution)
		w.begins, w.first, w.firstT = true, before, max(start, m.out[len(m.out)-1].MaxTime+1)
	}
	w.counter = value
	m.lane = c.lane
	m.chunk = append(m.chunk, w)
	m.outs = append(m.outs, total{slot, value})
	return nil
}

// full tells whether the chunk being made has to end before a window at t.
func (m *merge) full(t int64) bool {
	n := len(m.chunk)
	if m.resolution != Resolution5m {
		return n >= chunkWindows
	}
	return n >= chunkWindows || n > chunkWindows-int(Resolution1h/Resolution5m) && windowEnd(m.chunk[n-1].t, Resolution1h) != windowEnd(t, Resolution1h)
}

// begin makes the window the first of a chunk.
func (m *merge) begin(c *choice, slot int64) error {
	w := c.window
	if !w.begins {
		w.firstT, w.first = WindowStart(w.t, m.resolution), w.counter
		if n := c.lane.before(slot); n >= 0 {
			w.first = c.lane.windows[n].counter
		}
		if len(m.out) > 0 {
			w.firstT = max(w.firstT, m.out[len(m.out)-1].MaxTime+1)
		}
		w.firstT = min(w.firstT, w.t)
	}
	w.begins = true
	m.lane = c.lane
	m.chunk = append(m.chunk[:0], w)
	m.outs = append(m.outs, total{slot, w.counter})
	return nil
}

// before returns the index of the lane's last window that ends before slot; -1: none.
func (l *lane) before(slot int64) int {
	for n := l.next - 1; n >= 0; n-- {
		if l.windows[n].slot() < slot {
			return n
		}
	}
	return -1
}

// next is the counter at the end of the window, which was at before. What gauges
// have in its place is taken as it is.
func (m *merge) next(before number, c *choice) (number, error) {
	if c.lane.layout.gauge {
		return c.window.counter, nil
	}
	inc, err := m.increase(c)
	if err != nil {
		return number{}, err
	}
	return before.plus(inc)
}

// increase is what the counter has grown since the window taken last.
func (m *merge) increase(c *choice) (number, error) {
	w := &c.window
	p := c.lane.before(w.slot())
	if p < 0 {
		return m.increaseOfNew(c)
	}
	prev := &c.lane.windows[p]
	inc, err := w.counter.grown(prev.counter)
	if err != nil || c.lane == m.lane && m.outs[len(m.outs)-1].slot == prev.slot() {
		return inc, err
	}
	// What was counted since the end of prev of another replica is part of it.
	at := 0
	for i, o := range m.outs {
		if o.slot <= prev.slot() {
			at = i
		}
	}
	counted, err := m.outs[len(m.outs)-1].value.minus(m.outs[at].value)
	if err != nil {
		return number{}, err
	}
	return inc.grown(counted)
}

// increaseOfNew is increase where the lane begins with the window: what it grew
// in it, and since the last true value, if that is known.
func (m *merge) increaseOfNew(c *choice) (number, error) {
	w := &c.window
	inside, err := w.counter.grown(w.first)
	if err != nil {
		return number{}, err
	}
	last := &m.chunk[len(m.chunk)-1]
	if !last.ends {
		return inside, nil
	}
	since := w.first
	if !w.first.below(last.last) {
		if since, err = w.first.minus(last.last); err != nil {
			return number{}, err
		}
	}
	return inside.plus(since)
}

// end encodes the chunk being made. last stands for its last raw value where
// that isn't known.
func (m *merge) end(last *number) error {
	if len(m.chunk) == 0 {
		return nil
	}
	final := m.chunk[len(m.chunk)-1]
	if last == nil {
		last = &final.counter
		if final.ends {
			last = &final.last
		}
	}
	encode := m.endFloats
	if m.lane.hist {
		encode = m.endHists
	}
	payload, err := encode(*last)
	if err != nil {
		return err
	}
	first := m.chunk[0]
	m.out = append(m.out, Encoded{
		MinTime: min(first.firstT, first.t), MaxTime: final.t, Payload: payload,
		Windows: len(m.chunk), Histograms: m.lane.hist,
	})
	m.chunk, m.lane = m.chunk[:0], nil
	return nil
}

func (m *merge) endFloats(last number) ([]byte, error) {
	var c floatChunk
	for _, w := range m.chunk {
		c.t, c.count, c.sum = append(c.t, w.t), append(c.count, w.count), append(c.sum, w.sum.f)
		c.min, c.max, c.counter = append(c.min, w.min), append(c.max, w.max), append(c.counter, w.counter.f)
	}
	c.firstT, c.first, c.last = m.chunk[0].firstT, m.chunk[0].first.f, last.f
	return c.appendTo(nil), nil
}

func (m *merge) endHists(last number) ([]byte, error) {
	c := histChunk{layout: m.lane.layout}
	for _, w := range m.chunk {
		c.t, c.count = append(c.t, w.t), append(c.count, w.count)
		c.sum, c.counter = append(c.sum, w.sum.h.Copy()), append(c.counter, w.counter.h.Copy())
	}
	c.firstT, c.first, c.last = m.chunk[0].firstT, m.chunk[0].first.h.Copy(), last.h.Copy()
	c.first.CounterResetHint = histogram.UnknownCounterReset
	if c.layout.gauge {
		c.first.CounterResetHint = histogram.GaugeType
	}
	c.lastT = c.t[len(c.t)-1]
	if c.counter[len(c.counter)-1].Equals(c.last) {
		c.last = nil
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	return c.appendTo(nil)
}
