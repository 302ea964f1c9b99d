package downsample

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// floatChunk is an aggregate chunk of floats, decoded: an entry a window.
type floatChunk struct {
	t                    []int64 // ascending
	count, sum, min, max []float64
	counter              []float64 // at the end of the window, without the resets since first

	firstT      int64   // of the first raw sample
	first, last float64 // true values of the first and the last raw sample
	lastT       int64   // of the last raw sample

	ct []int64 // the counter sub-chunk and its bytes, to be used again
	cv []float64
	b  []byte
}

func (c *floatChunk) clear() {
	c.t, c.count, c.sum = c.t[:0], c.count[:0], c.sum[:0]
	c.min, c.max, c.counter = c.min[:0], c.max[:0], c.counter[:0]
}

// capLast ends the last window with the last sample.
func (c *floatChunk) capLast() { c.t[len(c.t)-1] = min(c.t[len(c.t)-1], c.lastT) }

// appendTo appends the payload of c to dst.
func (c *floatChunk) appendTo(dst []byte) []byte {
	for _, vs := range [...][]float64{c.count, c.sum, c.min, c.max} {
		dst = c.sub(dst, c.t, vs)
	}
	c.ct = append(append(append(c.ct[:0], c.firstT), c.t...), c.t[len(c.t)-1])
	c.cv = append(append(append(c.cv[:0], c.first), c.counter...), c.last)
	return c.sub(dst, c.ct, c.cv)
}

func (c *floatChunk) sub(dst []byte, ts []int64, vs []float64) []byte {
	c.b = AppendXORChunk(c.b[:0], ts, vs)
	return appendSub(dst, Sub{Encoding: chunkenc.EncXOR, Bytes: c.b})
}

// floats encodes a chunk.
func (o *output) floats(c *floatChunk) {
	if !o.wanted {
		return
	}
	o.arena = c.appendTo(o.arena)
	o.chunks = append(o.chunks, Encoded{MinTime: min(c.firstT, c.t[0]), MaxTime: c.t[len(c.t)-1], Windows: len(c.t)})
	o.ends = append(o.ends, len(o.arena))
}

// decode reads a chunk of anybody's into the memory of c.
func (c *floatChunk) decode(in Chunk) error {
	c.clear()
	var err error
	if c.t, c.count, err = c.windows(c.t, c.count, in[Count]); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	if n := len(c.t); n == 0 || n > maxWindows {
		return fmt.Errorf("%w: %d windows", ErrCorrupt, n)
	}
	for i := 1; i < len(c.t); i++ {
		if c.t[i] <= c.t[i-1] {
			return fmt.Errorf("%w: window at %d ms after one at %d ms", ErrCorrupt, c.t[i], c.t[i-1])
		}
	}
	for _, a := range []struct {
		to   *[]float64
		from Type
		name string
	}{{&c.sum, Sum, "sum"}, {&c.min, Min, "min"}, {&c.max, Max, "max"}} {
		if c.ct, *a.to, err = c.windows(c.ct[:0], *a.to, in[a.from]); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		if !slices.Equal(c.ct, c.t) {
			return fmt.Errorf("%w: windows of count and %s differ", ErrCorrupt, a.name)
		}
	}
	if c.ct, c.cv, err = c.windows(c.ct[:0], c.cv[:0], in[Counter]); err != nil {
		return fmt.Errorf("counter: %w", err)
	}
	if len(c.ct) == 0 {
		return fmt.Errorf("%w: empty counter", ErrCorrupt)
	}
	c.readCounter()
	return nil
}

func (c *floatChunk) windows(ts []int64, vs []float64, s Sub) ([]int64, []float64, error) {
	if s.Encoding != chunkenc.EncXOR {
		return ts, vs, fmt.Errorf("%w: encoding %d, want XOR", ErrCorrupt, s.Encoding)
	}
	return AppendXOR(ts, vs, s.Bytes)
}

// readCounter takes the counter's samples apart: the first, the values at the
// ends of windows, the last. Others' counters may have no value for a window,
// which then has the one before, or no last value, which then is the corrected one.
func (c *floatChunk) readCounter() {
	n := len(c.ct)
	c.firstT, c.first, c.last, c.lastT = c.ct[0], c.cv[0], c.cv[n-1], c.t[len(c.t)-1]
	if n > 1 && c.ct[n-1] == c.ct[n-2] {
		n--
	}
	at := 0
	for _, t := range c.t {
		for at+1 < n && c.ct[at+1] <= t {
			at++
		}
		c.counter = append(c.counter, c.cv[at])
	}
}

// since leaves out the windows up to t, and begins behind it.
func (c *floatChunk) since(t int64) {
	i, found := slices.BinarySearch(c.t, t)
	if found {
		i++
	}
	if i == 0 {
		if c.firstT <= t {
			c.firstT = t + 1
		}
		return
	}
	if i < len(c.t) {
		c.firstT, c.first = c.t[i], c.counter[i]
	}
	for _, vs := range []*[]float64{&c.count, &c.sum, &c.min, &c.max, &c.counter} {
		*vs = slices.Delete(*vs, 0, i)
	}
	c.t = slices.Delete(c.t, 0, i)
}

// floatBuilder makes 5m windows of raw samples.
type floatBuilder struct {
	floatChunk

	// The window that is open.
	open           bool
	end            int64 // of the window
	n              int
	total          float64 // sum
	least, largest float64

	resets float64 // what the resets since the first sample took off the counter
}

func (b *floatBuilder) reset() {
	b.clear()
	b.open, b.resets = false, 0
}

// begin opens a window at its first sample, which is still to be taken.
func (b *floatBuilder) begin(t int64, v float64) {
	if len(b.t) == 0 {
		b.firstT, b.first, b.last = t, v, v
	}
	b.open, b.end = true, windowEnd(t, Resolution5m)
	b.n, b.total, b.least, b.largest = 0, 0, v, v
}

// take adds the samples up to the end of the window, but for NaN and those no
// later than lastT. It returns how many it looked at, and the new lastT.
//
// The sum is that of the samples one after the other. The counter adds the last
// value before each reset to the values after it, so without resets it is the
// raw value to the bit.
func (b *floatBuilder) take(ts []int64, vs []float64, lastT int64) (int, int64) {
	vs = vs[:len(ts)]
	n, total, least, largest := b.n, b.total, b.least, b.largest
	last, resets, end := b.last, b.resets, b.end
	i := 0
	for ; i < len(ts) && ts[i] <= end; i++ {
		v := vs[i]
		if ts[i] <= lastT || v != v {
			continue
		}
		lastT = ts[i]
		n++
		total += v
		if v < least {
			least = v
		}
		if v > largest {
			largest = v
		}
		if v < last {
			resets += last
		}
		last = v
	}
	b.n, b.total, b.least, b.largest = n, total, least, largest
	b.last, b.resets, b.lastT = last, resets, lastT
	return i, lastT
}

// endWindow closes the window, if one is open.
func (b *floatBuilder) endWindow() {
	if !b.open {
		return
	}
	b.open = false
	b.t = append(b.t, b.end)
	b.count = append(b.count, float64(b.n))
	b.sum = append(b.sum, b.total)
	b.min, b.max = append(b.min, b.least), append(b.max, b.largest)
	b.counter = append(b.counter, b.last+b.resets)
}

// floatMerger makes 1h windows of those of 5m.
type floatMerger struct {
	floatChunk
	end int64 // of the last window, before it is capped
}

func (m *floatMerger) reset() { m.clear() }

// full tells whether c needs a chunk of its own.
func (m *floatMerger) full(c *floatChunk) bool {
	return len(m.t) > 0 && (len(m.t)+hours(c.t) > chunkWindows || hole(m.t, c.t[0]))
}

// hours returns how many windows of 1h hold the windows.
func hours(ts []int64) int {
	n, end := 0, int64(math.MinInt64)
	for _, t := range ts {
		if t > end {
			n, end = n+1, windowEnd(t, Resolution1h)
		}
	}
	return n
}

// add adds all windows of c: the sums one after the other, and the counter so
// that it goes on where it stood.
func (m *floatMerger) add(c *floatChunk) {
	offset := 0.0
	if len(m.t) == 0 {
		m.firstT, m.first = c.firstT, c.first
		m.end = math.MinInt64
	} else {
		offset = m.counter[len(m.counter)-1]
		if !(c.first < m.last) {
			offset -= m.last
		}
	}
	for i, t := range c.t {
		if t > m.end || len(m.t) == 0 {
			m.end = windowEnd(t, Resolution1h)
			m.t = append(m.t, m.end)
			m.count, m.sum = append(m.count, c.count[i]), append(m.sum, c.sum[i])
			m.min, m.max = append(m.min, c.min[i]), append(m.max, c.max[i])
			m.counter = append(m.counter, c.counter[i]+offset)
			continue
		}
		w := len(m.t) - 1
		m.count[w] += c.count[i]
		m.sum[w] += c.sum[i]
		m.min[w], m.max[w] = min(m.min[w], c.min[i]), max(m.max[w], c.max[i])
		m.counter[w] = c.counter[i] + offset
	}
	m.last, m.lastT = c.last, c.t[len(c.t)-1]
}

// appendSub appends a sub-chunk as it stands in a payload.
func appendSub(dst []byte, s Sub) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s.Bytes)))
	if len(s.Bytes) == 0 {
		return dst
	}
	return append(append(dst, byte(s.Encoding)), s.Bytes...)
}
