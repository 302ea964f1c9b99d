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
// raw chunks, other NaN and gauge histograms pass through as they are.
//
// The value is that of the sample plus what resets took off, so it is the raw
// one to the bit until the first reset.
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
	value   float64            // of the current sample

	// last is the true value of the last sample, offset what its corrected value,
	// total, is above it. Of histograms a nil offset is nothing, and a nil total
	// means that there was none yet.
	last, offset, total    float64
	lastH, offsetH, totalH *histogram.FloatHistogram
	err                    error
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
			c.last, c.offset = v, c.total-v
		}
		return false
	}
	c.started, c.t, c.typ, c.stale, c.value = true, t, chunkenc.ValFloat, stale, v
	if math.IsNaN(v) {
		return true
	}
	c.lastH, c.offsetH, c.totalH = nil, nil, nil
	if v < c.last { // Reset: everything since is new.
		c.offset = c.total
	}
	c.last, c.total = v, v+c.offset
	c.value = c.total
	return true
}

func (c *counter) takeHistogram(t int64, h *histogram.FloatHistogram, marker bool) bool {
	stale := value.IsStaleNaN(h.Sum)
	if marker {
		if c.typ == chunkenc.ValFloatHistogram && !stale && !c.stale {
			c.err = c.mark(h)
		}
		return false
	}
	c.started, c.t, c.typ, c.stale = true, t, chunkenc.ValFloatHistogram, stale
	if stale {
		return true
	}
	c.last, c.offset, c.total = 0, 0, 0
	if err := c.addHistogram(h); err != nil {
		c.err = fmt.Errorf("histogram at %d ms: %w", t, err)
		return false
	}
	return true
}

// mark takes the true value of the last sample.
func (c *counter) mark(h *histogram.FloatHistogram) error {
	offset, _, _, err := c.totalH.Copy().Sub(h)
	if err != nil {
		return fmt.Errorf("true histogram at %d ms: %w", c.t, err)
	}
	c.lastH, c.offsetH = h, offset
	return nil
}

func (c *counter) addHistogram(h *histogram.FloatHistogram) error {
	gauge := h.CounterResetHint == histogram.GaugeType
	goesOn := c.totalH != nil && !gauge && c.totalH.CounterResetHint != histogram.GaugeType &&
		c.totalH.UsesCustomBuckets() == h.UsesCustomBuckets()
	switch {
	case !goesOn:
		c.offsetH = nil
	case isReset(h, c.lastH):
		c.offsetH = c.totalH
	}
	c.lastH, c.totalH = h, h.Copy()
	if gauge {
		return nil
	}
	if c.offsetH != nil {
		if _, _, _, err := c.totalH.Add(c.offsetH); err != nil {
			return err
		}
	}
	c.totalH.CounterResetHint = histogram.UnknownCounterReset
	return nil
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
	return c.t, c.value
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
