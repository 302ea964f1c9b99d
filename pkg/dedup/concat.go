package dedup

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Concat reads iterators that follow one another in time as one.
func Concat(its ...chunkenc.Iterator) chunkenc.Iterator {
	if len(its) == 1 {
		return its[0]
	}
	return &concat{its: its}
}

// concat reads its one after the other. A sample that is not later than the
// last one is left out.
type concat struct {
	its     []chunkenc.Iterator // its[0] is being read
	started bool
	typ     chunkenc.ValueType
	lastT   int64
	err     error
}

func (c *concat) Next() chunkenc.ValueType {
	for c.err == nil && len(c.its) > 0 {
		typ := c.its[0].Next()
		if typ == chunkenc.ValNone {
			c.drop()
			continue
		}
		if c.take(typ) {
			return typ
		}
	}
	c.typ = chunkenc.ValNone
	return chunkenc.ValNone
}

func (c *concat) Seek(t int64) chunkenc.ValueType {
	if c.started && c.typ != chunkenc.ValNone && c.lastT >= t {
		return c.typ
	}
	for c.err == nil && len(c.its) > 0 {
		typ := c.its[0].Seek(t)
		if typ == chunkenc.ValNone {
			c.drop()
			continue
		}
		if c.take(typ) {
			return typ
		}
		return c.Next()
	}
	c.typ = chunkenc.ValNone
	return chunkenc.ValNone
}

func (c *concat) drop() {
	c.err = c.its[0].Err()
	if c.err == nil {
		c.its = c.its[1:]
	}
}

func (c *concat) take(typ chunkenc.ValueType) bool {
	t := c.its[0].AtT()
	if c.started && t <= c.lastT {
		return false
	}
	c.started, c.typ, c.lastT = true, typ, t
	return true
}

func (c *concat) At() (int64, float64) { return c.its[0].At() }

func (c *concat) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return c.its[0].AtHistogram(h)
}

func (c *concat) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return c.its[0].AtFloatHistogram(h)
}

func (c *concat) AtT() int64  { return c.its[0].AtT() }
func (c *concat) AtST() int64 { return c.its[0].AtST() }
func (c *concat) Err() error  { return c.err }
