package downsample

import "github.com/prometheus/prometheus/model/histogram"

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

// copyOf tells whether both are of the same samples. How a window is capped and
// how coarse its buckets are depends on what else is in its chunk.
func (w *mergeWindow) copyOf(o mergeWindow) bool {
	if w.count != o.count {
		return false
	}
	if w.sum.h != nil {
		return same(w.sum.h.Count, o.sum.h.Count) && same(w.sum.h.Sum, o.sum.h.Sum)
	}
	return same(w.min, o.min) && same(w.max, o.max) && same(w.sum.f, o.sum.f)
}

func same(a, b float64) bool { return a == b || a != a && b != b }

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

// before returns the index of the lane's last window that ends before slot; -1: none.
func (l *lane) before(slot int64) int {
	for n := l.next - 1; n >= 0; n-- {
		if l.windows[n].slot() < slot {
			return n
		}
	}
	return -1
}
