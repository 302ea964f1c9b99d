package downsample

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Cut removes the windows of which any part lies in cuts: how deleted samples
// leave a downsampled chunk, whose single samples are gone. A window of timestamp
// t is [start of its window, t], but never begins before the window in front of
// it has ended. ok is false where nothing is left.
//
// The counter of the windows that stay reads as before, as far as can be known:
//
//   - Between windows that stay it counts what it grew in the ones cut, as a raw
//     counter does over samples that are gone.
//   - Where the first windows are cut, it begins with the value at the end of the
//     first that stays: nothing of what was cut stays visible. What the counter
//     grew within that window then only counts after an earlier chunk; and if it
//     was reset in between and has passed the old value since, nobody can tell.
//   - Where the last windows are cut, the last raw value is moved back by what the
//     counter grew in them. So what follows is neither taken for a reset nor is a
//     reset hidden by it, but for one case, which next is for: the following
//     chunk begins below the old last value, so there was a reset, but not below
//     the new one. Then the old value stays, and what the cut windows had is lost.
//   - A chunk that is cut whole takes the resets in it along.
//
// next is the first value of the counter of the following chunk of floats; nil if
// there is none. Histograms need none: resets show in any of their buckets.
func Cut(payload []byte, resolution int64, cuts tombstones.Intervals, next *float64) (cut Encoded, ok bool, err error) {
	c, err := Decode(payload)
	if err != nil {
		return Encoded{}, false, err
	}
	if isHistogram(c[Counter].Encoding) {
		return cutHists(c, payload, resolution, cuts)
	}
	var f floatChunk
	if err := f.decode(c); err != nil {
		return Encoded{}, false, err
	}
	keep := keeps(f.t, resolution, cuts)
	if len(keep) == 0 {
		return Encoded{}, false, nil
	}
	if len(keep) < len(f.t) {
		f.cut(keep, next)
		payload = f.appendTo(nil)
	}
	return Encoded{MinTime: min(f.firstT, f.t[0]), MaxTime: f.t[len(f.t)-1], Payload: payload, Windows: len(f.t)}, true, nil
}

// keeps returns the numbers of the windows that stay.
func keeps(ts []int64, resolution int64, cuts tombstones.Intervals) []int {
	var keep []int
	before := int64(math.MinInt64)
	for i, t := range ts {
		start := max(before, WindowStart(t, resolution))
		if !slices.ContainsFunc(cuts, func(c tombstones.Interval) bool { return c.Mint <= t && c.Maxt >= start }) {
			keep = append(keep, i)
		}
		if t < math.MaxInt64 {
			before = t + 1
		}
	}
	return keep
}

// cut leaves only the windows of the numbers in keep.
func (c *floatChunk) cut(keep []int, next *float64) {
	first, last, end := keep[0], keep[len(keep)-1], len(c.t)-1
	if last < end {
		moved := c.counter[last] - (c.counter[end] - c.last)
		if next == nil || *next >= c.last || *next < moved {
			c.last = moved
		}
	}
	if first > 0 {
		c.firstT, c.first = c.t[first], c.counter[first]
	}
	c.t = pick(c.t, keep)
	for _, vs := range []*[]float64{&c.count, &c.sum, &c.min, &c.max, &c.counter} {
		*vs = pick(*vs, keep)
	}
}

func pick[T any](from []T, keep []int) []T {
	out := make([]T, len(keep))
	for i, k := range keep {
		out[i] = from[k]
	}
	return out
}

// cutHists is Cut for histograms.
func cutHists(in Chunk, payload []byte, resolution int64, cuts tombstones.Intervals) (Encoded, bool, error) {
	c, err := decodeHists(in)
	if err != nil {
		return Encoded{}, false, err
	}
	keep := keeps(c.t, resolution, cuts)
	if len(keep) == 0 {
		return Encoded{}, false, nil
	}
	if len(keep) < len(c.t) {
		if err := c.cut(keep); err != nil {
			return Encoded{}, false, fmt.Errorf("cut histograms: %w", err)
		}
		if payload, err = c.appendTo(nil); err != nil {
			return Encoded{}, false, fmt.Errorf("cut histograms: %w", err)
		}
	}
	return Encoded{MinTime: min(c.firstT, c.t[0]), MaxTime: c.t[len(c.t)-1], Payload: payload, Windows: len(c.t), Histograms: true}, true, nil
}

// cut leaves only the windows of the numbers in keep.
func (c *histChunk) cut(keep []int) error {
	first, last, end := keep[0], keep[len(keep)-1], len(c.t)-1
	if last < end && c.last != nil {
		moved, _, _, err := c.counter[last].Copy().Add(c.last)
		if err == nil {
			moved, _, _, err = moved.Sub(c.counter[end])
		}
		if err != nil {
			return err
		}
		c.last = moved
	}
	if first > 0 {
		c.firstT, c.first = c.t[first], c.counter[first].Copy()
		c.first.CounterResetHint = histogram.UnknownCounterReset
	}
	c.t, c.count = pick(c.t, keep), pick(c.count, keep)
	c.sum, c.counter = pick(c.sum, keep), pick(c.counter, keep)
	c.lastT = c.t[len(c.t)-1]
	return c.finish()
}
