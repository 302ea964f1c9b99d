package plan

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// span is a range of series in the order of their labels: from is inclusive,
// to exclusive, both without external labels. An empty one is open, so that the
// zero value is all series.
type span struct{ from, to labels.Labels }

func (s span) empty() bool { return !s.to.IsEmpty() && labels.Compare(s.from, s.to) >= 0 }

func (s span) equal(o span) bool { return labels.Equal(s.from, o.from) && labels.Equal(s.to, o.to) }

// contains tells whether all of o is in s.
func (s span) contains(o span) bool {
	return labels.Compare(s.from, o.from) <= 0 && (s.to.IsEmpty() || !o.to.IsEmpty() && labels.Compare(o.to, s.to) <= 0)
}

func (s span) intersects(o span) bool {
	return (o.to.IsEmpty() || labels.Compare(s.from, o.to) < 0) && (s.to.IsEmpty() || labels.Compare(o.from, s.to) < 0)
}

// compareSpans puts a span before those that it contains.
func compareSpans(a, b span) int {
	if d := labels.Compare(a.from, b.from); d != 0 {
		return d
	}
	switch {
	case a.to.IsEmpty() && b.to.IsEmpty():
		return 0
	case a.to.IsEmpty():
		return -1
	case b.to.IsEmpty():
		return 1
	}
	return labels.Compare(b.to, a.to)
}

// fills tells whether parts, in any order, together contain all of whole.
func fills(whole span, parts []span) bool {
	parts = slices.SortedFunc(slices.Values(parts), compareSpans)
	at := whole.from
	for _, s := range parts {
		if labels.Compare(s.from, at) > 0 {
			return false
		}
		if s.to.IsEmpty() {
			return true
		}
		if labels.Compare(s.to, at) > 0 {
			at = s.to
		}
		if !whole.to.IsEmpty() && labels.Compare(at, whole.to) >= 0 {
			return true
		}
	}
	return false
}

// cover is what the live blocks of a tier hold: of each source all series, or
// some spans.
type cover struct {
	whole []bool // by number of the source
	parts map[int32][]span
}

// newCover goes by the blocks of a tier. Where the shard is that closes a split,
// all others are or had no series; so it stands for all that was split.
func (f *family) newCover(blocks []*entry) cover {
	c := cover{}
	if len(blocks) == 0 {
		return c
	}
	c.whole = make([]bool, len(f.numbers))
	for _, e := range blocks {
		if e.doubted {
			continue
		}
		holds, closes := e.span, e.closing() && !f.torn(e)
		if closes {
			if within, ok := f.cutOf(e).within(); ok {
				holds = within
			}
		}
		for _, s := range e.sources {
			if e.ext.Shard == nil || closes && share([]int32{s}, e.visible) {
				c.whole[s] = true
				continue
			}
			if c.parts == nil {
				c.parts = map[int32][]span{}
			}
			c.parts[s] = append(c.parts[s], holds)
		}
	}
	return c
}

// covers tells whether all of e is there.
func (c cover) covers(e *entry) bool {
	return !slices.ContainsFunc(e.sources, func(s int32) bool { return !c.has(s, e.span) })
}

// has tells whether some series of a source are there.
func (c cover) has(source int32, series span) bool {
	return c.whole != nil && (c.whole[source] || fills(series, c.parts[source]))
}

// touches tells whether some of e is there.
func (c cover) touches(e *entry) bool {
	for _, s := range e.sources {
		if c.whole != nil && c.whole[s] || slices.ContainsFunc(c.parts[s], e.span.intersects) {
			return true
		}
	}
	return false
}

// subset tells whether all of a is in b; both are sorted.
func subset(a, b []int32) bool {
	if len(a) > len(b) {
		return false
	}
	i := 0
	for _, x := range a {
		for i < len(b) && b[i] < x {
			i++
		}
		if i == len(b) || b[i] != x {
			return false
		}
		i++
	}
	return true
}

// union returns the sources of all of the blocks, sorted.
func union(blocks []*entry) []int32 {
	var out []int32
	for _, e := range blocks {
		out = append(out, e.sources...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// hull returns the time range of all of the blocks.
func hull(blocks []*entry) window {
	w := window{blocks[0].meta.MinTime, blocks[0].meta.MaxTime}
	for _, e := range blocks[1:] {
		w.from, w.to = min(w.from, e.meta.MinTime), max(w.to, e.meta.MaxTime)
	}
	return w
}
