package downsample

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// NewCounter reads the counter sub-chunks of a downsampled series, one iterator
// a chunk in order of time, as one counter that never goes down.
//
// A counter sub-chunk (COMPAT A2.2) begins with the first raw value of its
// range, goes on with the reset-corrected value at the end of each window, and
// ends with the last raw value, at the same timestamp as the sample before: so
// a reset between two chunks shows as a first raw value below that last one.
// Raw chunks may stand among the others; their resets are corrected too, since
// what comes before them is.
//
// Samples that overlap an earlier chunk in time are left out. Stale markers of
// raw chunks pass through.
func NewCounter(chunks []chunkenc.Iterator) chunkenc.Iterator {
	return &counter{chunks: chunks}
}

type counter struct {
	chunks []chunkenc.Iterator
	cur    int // index of the chunk being read

	started bool
	t       int64
	typ     chunkenc.ValueType // of the current sample
	stale   bool               // the current sample is a stale marker

	last, total   float64 // true value of the last sample; corrected total
	lastH, totalH *histogram.FloatHistogram
	err           error
}

func (c *counter) Next() chunkenc.ValueType {
	for c.err == nil && c.cur < len(c.chunks) {
		it := c.chunks[c.cur]
		typ := it.Next()
		if typ == chunkenc.ValNone {
			if c.err = it.Err(); c.err == nil {
				c.cur++
			}
			continue
		}
		if c.take(it, typ) {
			return c.typ
		}
	}
	return chunkenc.ValNone
}

// take moves to the sample of it, or returns false where that sample only
// carries a true last value or lies in the past.
func (c *counter) take(it chunkenc.Iterator, typ chunkenc.ValueType) bool {
	t := it.AtT()
	if c.started && t < c.t {
		return false
	}
	marker := c.started && t == c.t
	if typ == chunkenc.ValFloat {
		_, v := it.At()
		return c.takeFloat(t, v, marker)
	}
	_, h := it.AtFloatHistogram(nil)
	return c.takeHistogram(t, h, marker)
}

func (c *counter) takeFloat(t int64, v float64, marker bool) bool {
	stale := value.IsStaleNaN(v)
	if marker {
		if c.typ == chunkenc.ValFloat && !stale && !c.stale {
			c.last = v
		}
		return false
	}
	c.started, c.t, c.typ, c.stale = true, t, chunkenc.ValFloat, stale
	c.lastH, c.totalH = nil, nil
	switch {
	case stale:
		return true
	case v < c.last: // Reset: everything since is new.
		c.total += v
	default:
		c.total += v - c.last
	}
	c.last = v
	return true
}

func (c *counter) takeHistogram(t int64, h *histogram.FloatHistogram, marker bool) bool {
	stale := value.IsStaleNaN(h.Sum)
	if marker {
		if c.typ == chunkenc.ValFloatHistogram && !stale && !c.stale {
			c.lastH = h
		}
		return false
	}
	c.started, c.t, c.typ, c.stale = true, t, chunkenc.ValFloatHistogram, stale
	c.last, c.total = 0, 0
	if stale {
		return true
	}
	if c.totalH == nil {
		c.totalH = h.Copy()
	} else if err := c.addHistogram(h); err != nil {
		c.err = fmt.Errorf("histogram at %d ms: %w", t, err)
		return false
	}
	c.totalH.CounterResetHint = histogram.UnknownCounterReset
	c.lastH = h
	return true
}

func (c *counter) addHistogram(h *histogram.FloatHistogram) error {
	if _, _, _, err := c.totalH.Add(h); err != nil {
		return err
	}
	if h.DetectReset(c.lastH) {
		return nil
	}
	_, _, _, err := c.totalH.Sub(c.lastH)
	return err
}

func (c *counter) Seek(t int64) chunkenc.ValueType {
	if c.started && c.t >= t && c.typ != chunkenc.ValNone && c.err == nil && c.cur < len(c.chunks) {
		return c.typ
	}
	// The total at t depends on every sample before it.
	for {
		if typ := c.Next(); typ == chunkenc.ValNone || c.t >= t {
			return typ
		}
	}
}

func (c *counter) At() (int64, float64) {
	if c.stale {
		return c.t, math.Float64frombits(value.StaleNaN)
	}
	return c.t, c.total
}

// AtHistogram is never called: the iterator returns no integer histograms.
func (c *counter) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("downsample: a counter aggregate is never an integer histogram")
}

func (c *counter) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if c.stale {
		return c.t, &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
	}
	if fh == nil {
		return c.t, c.totalH.Copy()
	}
	c.totalH.CopyTo(fh)
	return c.t, fh
}

func (c *counter) AtT() int64  { return c.t }
func (c *counter) AtST() int64 { return 0 }
func (c *counter) Err() error  { return c.err }
