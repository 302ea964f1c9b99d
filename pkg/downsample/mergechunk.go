package downsample

import "github.com/prometheus/prometheus/model/histogram"

// total is the counter of the result at the end of a window.
type total struct {
	slot  int64
	value number
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
