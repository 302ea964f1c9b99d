package downsample

import (
	"cmp"
	"fmt"
	"slices"
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
	if l != c.lane && slices.ContainsFunc(c.parts, w.copyOf) {
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
