package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sample is one sample of any type. It owns its histograms, which the next read reuses.
type sample struct {
	typ   chunkenc.ValueType // ValNone: no sample
	t, st int64              // ms
	v     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

func (s *sample) read(it chunkenc.Iterator, typ chunkenc.ValueType) {
	s.typ = typ
	switch typ {
	case chunkenc.ValNone:
		return
	case chunkenc.ValFloat:
		s.t, s.v = it.At()
	case chunkenc.ValHistogram:
		s.t, s.h = it.AtHistogram(s.h)
	case chunkenc.ValFloatHistogram:
		s.t, s.fh = it.AtFloatHistogram(s.fh)
	}
	s.st = it.AtST()
}

func (s *sample) ok() bool { return s.typ != chunkenc.ValNone }

func (s *sample) stale() bool {
	switch s.typ {
	case chunkenc.ValFloat:
		return value.IsStaleNaN(s.v)
	case chunkenc.ValHistogram:
		return value.IsStaleNaN(s.h.Sum)
	case chunkenc.ValFloatHistogram:
		return value.IsStaleNaN(s.fh.Sum)
	}
	return false
}

// float returns the histogram of s as a copy without a counter reset hint.
func (s *sample) float() *histogram.FloatHistogram {
	var fh *histogram.FloatHistogram
	if s.typ == chunkenc.ValHistogram {
		fh = s.h.ToFloat(nil)
	} else {
		fh = s.fh.Copy()
	}
	fh.CounterResetHint = histogram.UnknownCounterReset
	return fh
}

// gauge tells of a histogram that says of itself that it is none of a counter.
func (s *sample) gauge() bool {
	switch s.typ {
	case chunkenc.ValHistogram:
		return s.h.CounterResetHint == histogram.GaugeType
	case chunkenc.ValFloatHistogram:
		return s.fh.CounterResetHint == histogram.GaugeType
	}
	return false
}

// below tells whether a counter that was at o and then is at s must have been
// reset in between. Samples of different type, gauges and stale ones tell nothing.
func (s *sample) below(o *sample) bool {
	if s.stale() || o.stale() || !s.ok() || !o.ok() || s.gauge() || o.gauge() {
		return false
	}
	sFloat, oFloat := s.typ == chunkenc.ValFloat, o.typ == chunkenc.ValFloat
	if sFloat && oFloat {
		return s.v < o.v
	}
	return !sFloat && !oFloat && s.float().DetectReset(o.float())
}

// resetSince is below for the sample right before s in the same replica, whose
// hint it may trust.
func (s *sample) resetSince(prev *sample) bool {
	hint := histogram.UnknownCounterReset
	switch s.typ {
	case chunkenc.ValHistogram:
		hint = s.h.CounterResetHint
	case chunkenc.ValFloatHistogram:
		hint = s.fh.CounterResetHint
	}
	switch hint {
	case histogram.NotCounterReset, histogram.GaugeType:
		return false
	case histogram.CounterReset:
		return true
	}
	return s.below(prev)
}

// same tells whether two samples are the same to the bit. Histograms are taken
// to be the same where count and sum are.
func (s *sample) same(o *sample) bool {
	if s.typ != o.typ || s.t != o.t {
		return false
	}
	switch s.typ {
	case chunkenc.ValFloat:
		return math.Float64bits(s.v) == math.Float64bits(o.v)
	case chunkenc.ValHistogram:
		return s.h.Count == o.h.Count && math.Float64bits(s.h.Sum) == math.Float64bits(o.h.Sum)
	case chunkenc.ValFloatHistogram:
		return s.fh.Count == o.fh.Count && math.Float64bits(s.fh.Sum) == math.Float64bits(o.fh.Sum)
	}
	return true
}

// cursor walks one replica. It knows the sample before and, on request, the one
// behind the head, and with them how often the replica is scraped.
type cursor struct {
	it      chunkenc.Iterator
	counter bool

	prev, head, ahead sample
	peeked            bool // ahead has been read

	headGap int64    // from prev to head, ms; 0: no prev
	gaps    [4]int64 // those before that, newest first

	missed missed // of a corrected counter; see level

	resetT, beforeResetT int64 // head and prev of the newest sample that lay below its predecessor
}

func newCursor(it chunkenc.Iterator, counter bool) *cursor {
	return &cursor{it: it, counter: counter, resetT: math.MinInt64, beforeResetT: math.MinInt64}
}

// next moves the head on.
func (c *cursor) next() {
	first := !c.head.ok()
	c.prev, c.head, c.ahead = c.head, c.ahead, c.prev
	if !c.peeked {
		c.head.read(c.it, c.it.Next())
	}
	c.peeked = false
	copy(c.gaps[1:], c.gaps[:])
	c.gaps[0] = c.headGap
	if first || !c.head.ok() {
		return
	}
	c.headGap = c.head.t - c.prev.t
	if c.counter && c.head.resetSince(&c.prev) {
		c.resetT, c.beforeResetT = c.head.t, c.prev.t
	}
}

// keptBySkip is how many samples up to t decide what a cursor knows behind t: the
// four intervals before the newest one, and the resets of the last two.
const keptBySkip = 8

// skip moves the head past t.
func (c *cursor) skip(t int64) {
	if s, ok := c.it.(Skipper); ok && c.head.ok() && c.head.t <= t {
		s.Skip(t, keptBySkip)
	}
	for c.head.ok() && c.head.t <= t {
		c.next()
	}
}

// interval is how often the replica was scraped before its head, in ms: the
// smallest of the last distances, since some of them may be gaps. 0: not known.
func (c *cursor) interval() int64 {
	d := c.gaps[0]
	for _, g := range c.gaps[1:] {
		if g > 0 {
			d = min(d, g)
		}
	}
	return d
}

// peekInterval is the distance from the head to the sample behind it, or 0.
func (c *cursor) peekInterval() int64 {
	if !c.peeked {
		c.ahead.read(c.it, c.it.Next())
		c.peeked = true
	}
	if !c.head.ok() || !c.ahead.ok() {
		return 0
	}
	return c.ahead.t - c.head.t
}
