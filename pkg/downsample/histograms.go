package downsample

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/rawchunk"
)

func isHistogram(e chunkenc.Encoding) bool {
	return e == chunkenc.EncHistogram || e == chunkenc.EncFloatHistogram
}

// histChunk is an aggregate chunk of histograms, decoded: an entry a window. All
// its histograms have one layout.
type histChunk struct {
	t            []int64 // ascending
	count        []float64
	sum, counter []*histogram.FloatHistogram

	firstT int64
	first  *histogram.FloatHistogram // first raw sample
	last   *histogram.FloatHistogram // last raw sample; nil where the counter ends with it
	lastT  int64                     // of the last raw sample
	layout layout

	b []byte // a sub-chunk, to be used again
}

// layout is what histograms must have in common to be added without loss, but
// for the schema of exponential ones, which is reduced.
type layout struct {
	gauge, custom bool
	zeroThreshold float64
	bounds        []float64
}

func layoutOf(h *histogram.FloatHistogram) layout {
	return layout{
		gauge: h.CounterResetHint == histogram.GaugeType, custom: h.UsesCustomBuckets(),
		zeroThreshold: h.ZeroThreshold, bounds: h.CustomValues,
	}
}

// fits tells whether h can be added.
func (l *layout) fits(h *histogram.FloatHistogram) bool { return l.equal(layoutOf(h)) }

func (l *layout) equal(o layout) bool {
	return l.gauge == o.gauge && l.custom == o.custom && l.zeroThreshold == o.zeroThreshold &&
		histogram.CustomBucketBoundsMatch(l.bounds, o.bounds)
}

// clear forgets all histograms; others may hold them now.
func (c *histChunk) clear() {
	clear(c.sum)
	clear(c.counter)
	c.t, c.count, c.sum, c.counter = c.t[:0], c.count[:0], c.sum[:0], c.counter[:0]
	c.first, c.last, c.layout = nil, nil, layout{}
}

// all returns the histograms of c, those of the counter in the order in which
// they are written.
func (c *histChunk) all() (ts []int64, counter, rest []*histogram.FloatHistogram) {
	if c.firstT < c.t[0] {
		ts, counter = append(ts, c.firstT), append(counter, c.first)
	} else {
		rest = append(rest, c.first)
	}
	ts, counter = append(ts, c.t...), append(counter, c.counter...)
	if c.last != nil {
		ts, counter = append(ts, c.t[len(c.t)-1]), append(counter, c.last)
	}
	return ts, counter, append(rest, c.sum...)
}

// finish ends the last window with the last sample, and brings all histograms to
// the coarsest schema and to spans without empty buckets: so that chunks are a
// function of the values alone.
func (c *histChunk) finish() error {
	c.t[len(c.t)-1] = min(c.t[len(c.t)-1], c.lastT)
	_, counter, rest := c.all()
	all := append(counter, rest...)
	if !c.layout.custom {
		schema := int32(math.MaxInt32)
		for _, h := range all {
			schema = min(schema, h.Schema)
		}
		for _, h := range all {
			if h.Schema == schema {
				continue
			}
			if err := h.ReduceResolution(schema); err != nil {
				return fmt.Errorf("reduce histogram to schema %d: %w", schema, err)
			}
		}
	}
	for _, h := range all {
		h.Compact(0)
	}
	return nil
}

// appendTo appends the payload of c to dst.
func (c *histChunk) appendTo(dst []byte) ([]byte, error) {
	ts, counter, _ := c.all()
	kind := chunkenc.UnknownCounterReset
	if c.layout.gauge {
		kind = chunkenc.GaugeType
	}
	c.b = AppendXORChunk(c.b[:0], c.t, c.count)
	out := appendSub(dst, Sub{Encoding: chunkenc.EncXOR, Bytes: c.b})
	var err error
	if c.b, err = appendHists(c.b[:0], c.t, c.sum, chunkenc.GaugeType); err != nil {
		return dst, fmt.Errorf("sum: %w", err)
	}
	out = appendSub(out, Sub{Encoding: chunkenc.EncFloatHistogram, Bytes: c.b})
	out = appendSub(appendSub(out, Sub{}), Sub{}) // histograms have no min and max
	if c.b, err = appendHists(c.b[:0], ts, counter, kind); err != nil {
		return dst, fmt.Errorf("counter: %w", err)
	}
	return appendSub(out, Sub{Encoding: chunkenc.EncFloatHistogram, Bytes: c.b}), nil
}

// hists encodes a chunk that is finished.
func (o *output) hists(c *histChunk) error {
	if !o.wanted {
		return nil
	}
	var err error
	if o.arena, err = c.appendTo(o.arena); err != nil {
		return fmt.Errorf("encode histograms from %d ms: %w", c.firstT, err)
	}
	o.chunks = append(o.chunks, Encoded{MinTime: min(c.firstT, c.t[0]), MaxTime: c.t[len(c.t)-1], Windows: len(c.t), Histograms: true})
	o.ends = append(o.ends, len(o.arena))
	return nil
}

// decodeHists reads a chunk of anybody's.
func decodeHists(in Chunk) (*histChunk, error) {
	c := &histChunk{}
	var err error
	if in[Count].Encoding != chunkenc.EncXOR {
		return nil, fmt.Errorf("%w: count of encoding %d, want XOR", ErrCorrupt, in[Count].Encoding)
	}
	if c.t, c.count, err = AppendXOR(nil, nil, in[Count].Bytes); err != nil {
		return nil, fmt.Errorf("count: %w", err)
	}
	if n := len(c.t); n == 0 || n > maxWindows {
		return nil, fmt.Errorf("%w: %d windows", ErrCorrupt, n)
	}
	var ts []int64
	if ts, c.sum, err = readHists(in[Sum]); err != nil {
		return nil, fmt.Errorf("sum: %w", err)
	}
	if !slices.Equal(ts, c.t) {
		return nil, fmt.Errorf("%w: windows of count and sum differ", ErrCorrupt)
	}
	sums := layoutOf(c.sum[0])
	for i := 1; i < len(ts); i++ {
		if ts[i] <= ts[i-1] {
			return nil, fmt.Errorf("%w: window at %d ms after one at %d ms", ErrCorrupt, ts[i], ts[i-1])
		}
	}
	var hs []*histogram.FloatHistogram
	if ts, hs, err = readHists(in[Counter]); err != nil {
		return nil, fmt.Errorf("counter: %w", err)
	}
	if len(ts) == 0 {
		return nil, fmt.Errorf("%w: empty counter", ErrCorrupt)
	}
	c.readCounter(ts, hs)
	if sums.gauge = c.layout.gauge; !c.layout.equal(sums) {
		return nil, fmt.Errorf("%w: buckets of sum and counter differ", ErrCorrupt)
	}
	return c, nil
}

// readHists returns the samples of a sub-chunk.
func readHists(s Sub) (ts []int64, hs []*histogram.FloatHistogram, err error) {
	defer func() { // the iterators trust what a chunk says of itself
		if p := recover(); p != nil {
			ts, hs, err = nil, nil, fmt.Errorf("%w: histograms: %v", ErrCorrupt, p)
		}
	}()
	if !isHistogram(s.Encoding) {
		return nil, nil, fmt.Errorf("%w: %d bytes of encoding %d, want histograms", ErrCorrupt, len(s.Bytes), s.Encoding)
	}
	c, err := rawchunk.Open(s.Encoding, s.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		t, h := it.AtFloatHistogram(&histogram.FloatHistogram{}) // one of its own: the iterator's share their spans
		ts, hs = append(ts, t), append(hs, h)
	}
	if err := it.Err(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return ts, hs, nil
}

// readCounter takes the counter's samples apart, as floatChunk's does.
func (c *histChunk) readCounter(ts []int64, hs []*histogram.FloatHistogram) {
	n := len(ts)
	c.firstT, c.first, c.lastT, c.layout = ts[0], hs[0].Copy(), c.t[len(c.t)-1], layoutOf(hs[0])
	c.first.CounterResetHint = histogram.UnknownCounterReset // What was before, its chunk can't know.
	if n > 1 && ts[n-1] == ts[n-2] {
		n--
		c.last = hs[n]
	}
	at, used := 0, -1
	for _, t := range c.t {
		for at+1 < n && ts[at+1] <= t {
			at++
		}
		h := hs[at]
		if at == used {
			h = h.Copy()
		}
		c.counter = append(c.counter, h)
		used = at
	}
}

// since leaves out the windows up to t, and begins behind it.
func (c *histChunk) since(t int64) {
	i, found := slices.BinarySearch(c.t, t)
	if found {
		i++
	}
	switch {
	case i == 0 && c.firstT <= t:
		c.firstT = t + 1
	case i > 0 && i < len(c.t):
		c.firstT, c.first = c.t[i], c.counter[i].Copy()
		c.first.CounterResetHint = histogram.UnknownCounterReset
	}
	c.t, c.count, c.sum, c.counter = c.t[i:], c.count[i:], c.sum[i:], c.counter[i:]
}

// histBuilder makes 5m windows of raw samples.
type histBuilder struct {
	histChunk
	end    int64                     // of the last window
	prev   *histogram.FloatHistogram // last raw sample
	resets *histogram.FloatHistogram // what the resets since the first sample took off; nil: nothing
}

// reset begins a new chunk of the same series.
func (b *histBuilder) reset() {
	b.clear()
	b.resets = nil
}

// take adds a sample. A window's count is that of its samples, its sum is
// theirs, one added after the other.
func (b *histBuilder) take(t int64, h *histogram.FloatHistogram) error {
	newWindow := len(b.t) == 0 || t > b.end
	if newWindow {
		if err := b.endWindow(); err != nil {
			return err
		}
	}
	if len(b.t) == 0 {
		b.firstT, b.first, b.layout = t, h.Copy(), layoutOf(h)
		b.first.CounterResetHint = histogram.UnknownCounterReset
		b.layout.bounds = slices.Clone(h.CustomValues)
	} else if !b.layout.gauge && h.DetectReset(b.prev) {
		before, err := b.corrected()
		if err != nil {
			return err
		}
		b.resets = before
	}
	if newWindow {
		b.end = windowEnd(t, Resolution5m)
		b.t, b.count, b.sum = append(b.t, b.end), append(b.count, 1), append(b.sum, h.Copy())
	} else {
		w := len(b.t) - 1
		b.count[w]++
		if _, _, _, err := b.sum[w].Add(h); err != nil {
			return err
		}
	}
	if b.prev == nil {
		b.prev = &histogram.FloatHistogram{}
	}
	h.CopyTo(b.prev)
	b.lastT = t
	return nil
}

// corrected returns the last sample with what resets took off.
func (b *histBuilder) corrected() (*histogram.FloatHistogram, error) {
	h := b.prev.Copy()
	if b.resets == nil {
		return h, nil
	}
	h, _, _, err := h.Add(b.resets)
	return h, err
}

// endWindow closes the last window.
func (b *histBuilder) endWindow() error {
	if len(b.counter) == len(b.t) {
		return nil
	}
	h, err := b.corrected()
	b.counter = append(b.counter, h)
	return err
}

func (b *histBuilder) finish() error {
	if err := b.endWindow(); err != nil {
		return err
	}
	if b.resets != nil {
		b.last = b.prev.Copy()
	}
	return b.histChunk.finish()
}

// histMerger makes 1h windows of those of 5m.
type histMerger struct {
	histChunk
	end int64 // of the last window, before it is capped
}

func (m *histMerger) reset() { m.clear() }

// full tells whether c needs a chunk of its own.
func (m *histMerger) full(c *histChunk) bool {
	return len(m.t) > 0 && (len(m.t)+hours(c.t) > chunkWindows || hole(m.t, c.t[0]) || !m.layout.equal(c.layout))
}

// add adds all windows of c, as floatMerger's does, and takes its histograms.
func (m *histMerger) add(c *histChunk) error {
	offset, err := m.offset(c)
	if err != nil {
		return err
	}
	last := c.last
	if last == nil && offset != nil {
		last = c.counter[len(c.counter)-1].Copy()
	}
	for i, t := range c.t {
		counter := c.counter[i]
		if offset != nil {
			if counter, _, _, err = counter.Add(offset); err != nil {
				return err
			}
		}
		if t > m.end || len(m.t) == 0 {
			m.end = windowEnd(t, Resolution1h)
			m.t, m.count = append(m.t, m.end), append(m.count, c.count[i])
			m.sum, m.counter = append(m.sum, c.sum[i]), append(m.counter, counter)
			continue
		}
		w := len(m.t) - 1
		m.count[w] += c.count[i]
		if _, _, _, err = m.sum[w].Add(c.sum[i]); err != nil {
			return err
		}
		m.counter[w] = counter
	}
	m.last, m.lastT = last, c.t[len(c.t)-1]
	return nil
}

// offset returns what to add to the counter of c so that it goes on where m's
// stands; nil is nothing. Of an empty m it makes one that begins as c does.
func (m *histMerger) offset(c *histChunk) (*histogram.FloatHistogram, error) {
	if len(m.t) == 0 {
		m.firstT, m.first, m.layout, m.end = c.firstT, c.first, c.layout, math.MinInt64
		return nil, nil
	}
	if m.layout.gauge {
		return nil, nil
	}
	total := m.counter[len(m.counter)-1]
	if m.last == nil {
		if isReset(c.first, total) {
			return total.Copy(), nil
		}
		return nil, nil
	}
	if isReset(c.first, m.last) {
		return total.Copy(), nil
	}
	h, _, _, err := total.Copy().Sub(m.last)
	return h, err
}

// isReset tells whether a counter was reset between prev and h. That h is finer
// than prev is no sign of it, as it is among raw samples: prev may be of a chunk
// whose schema was reduced. Such a reset shows where buckets are below their old values.
func isReset(h, prev *histogram.FloatHistogram) bool {
	if h.Schema > prev.Schema && !h.UsesCustomBuckets() && !prev.UsesCustomBuckets() {
		reduced, err := h.CopyToSchema(prev.Schema)
		if err != nil {
			return true
		}
		h = reduced
	}
	return h.DetectReset(prev)
}
