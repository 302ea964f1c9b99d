package dedup

import (
	"slices"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

var _ Follower = (*firnline)(nil)

// Follow implements [Follower].
func (f *firnline) Follow() (replica, n int) {
	if !f.started || f.err != nil || f.level != nil || f.floored || f.at.typ != chunkenc.ValFloat || f.at.stale() {
		return 0, 0
	}
	if n = f.cur.follow(); n == 0 {
		return 0, 0
	}
	f.at = f.cur.head
	return slices.Index(f.cursors, f.cur), n
}

// follow moves the head over samples that lie dense and are at hand, and returns
// over how many. It does what as many calls of next do, and looks at each sample
// as advance does.
func (c *cursor) follow() int {
	run, ok := c.it.(Runner)
	if !ok || c.peeked {
		return 0
	}
	ts, vs := run.Run()
	prevT, prevV := c.prev.t, c.prev.v
	t, v := c.head.t, c.head.v
	gap, gaps := c.headGap, c.gaps
	n := 0
	for ; n < len(ts) && gaps[0] > 0; n++ {
		d := gap
		for _, g := range gaps[:3] {
			if g > 0 && g < d {
				d = g
			}
		}
		next := ts[n] - t
		if next > d+d/2 || vs[n] != vs[n] && value.IsStaleNaN(vs[n]) {
			break
		}
		if c.counter && vs[n] < v {
			c.resetT, c.beforeResetT = ts[n], t
		}
		gaps = [4]int64{gap, gaps[0], gaps[1], gaps[2]}
		gap, prevT, prevV, t, v = next, t, v, ts[n], vs[n]
	}
	if n == 0 {
		return 0
	}
	run.Advance(n)
	c.headGap, c.gaps = gap, gaps
	c.prev.typ, c.prev.t, c.prev.st, c.prev.v = chunkenc.ValFloat, prevT, 0, prevV
	c.head.typ, c.head.t, c.head.st, c.head.v = chunkenc.ValFloat, t, 0, v
	return n
}
