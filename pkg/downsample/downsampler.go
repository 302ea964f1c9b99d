package downsample

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// chunkWindows is how many windows a chunk has at most: as many as fit a chunk
// of raw samples well (COMPAT A2.2). A chunk made of foreign ones may have more.
const chunkWindows = 140

// maxWindows is what the header of a sub-chunk can count, less the two samples
// that a counter has more than windows.
const maxWindows = math.MaxUint16 - 2

// Encoded is an aggregate chunk ready to be written.
type Encoded struct {
	// MinTime is the time of the first raw sample where that is known: the
	// counter begins with it. MaxTime is that of the last window. Both in ms.
	MinTime, MaxTime int64
	Payload          []byte // see Chunk
	Windows          int
	Histograms       bool
}

// Downsampler turns the samples of one series after the other into aggregate
// chunks of one or both resolutions. What the aggregates hold, and how exactly,
// is written in docs/formats.md, "Downsampled chunks". In short:
//
//   - A window is [k·r, (k+1)·r) and carries the timestamp of its last
//     millisecond, or of the last sample where its chunk ends there.
//   - A chunk ends at a full hour, before it would pass 140 windows. So windows of
//     1h need no part of a window of 5m, and whole chunks are merged into them.
//   - A chunk also ends before a hole that a whole block of 2h fits in, which may
//     come late.
//   - A chunk also ends, in the middle of a window if need be, where the next
//     sample can't be added to the last without loss: a float after a histogram, a
//     gauge histogram after a counter, other custom bounds, another zero
//     threshold. Exponential schemas are reduced to the coarsest in the chunk.
//   - Floats that are NaN and stale markers don't count; nor do samples that are
//     no later than the one before them.
//
// The 1h tier is always made from the 5m one, be that in memory or read from
// chunks: the result is the same to the bit. A Downsampler keeps its memory over
// Reset; it is used by one goroutine.
type Downsampler struct {
	outputs [2]output // 5m, 1h

	rawFloats floatBuilder
	rawHists  histBuilder
	floats    floatMerger // 1h windows
	hists     histMerger

	in    floatChunk                // Aggregate's, to be used again
	float *histogram.FloatHistogram // IntHistogram's, likewise
	lastT int64                     // time of the last sample or window that was taken
}

// output is what a resolution has got so far.
type output struct {
	wanted bool
	arena  []byte
	chunks []Encoded // Payload unset until Finish: the arena moves while it grows
	ends   []int     // of the payloads, in arena
}

func (o *output) reset() {
	o.arena, o.chunks, o.ends = o.arena[:0], o.chunks[:0], o.ends[:0]
}

// NewDownsampler returns a Downsampler for 5m, 1h or both.
func NewDownsampler(resolutions ...int64) *Downsampler {
	d := &Downsampler{}
	d.fine().wanted = slices.Contains(resolutions, Resolution5m)
	d.coarse().wanted = slices.Contains(resolutions, Resolution1h)
	d.Reset()
	return d
}

func (d *Downsampler) fine() *output   { return &d.outputs[0] }
func (d *Downsampler) coarse() *output { return &d.outputs[1] }

// Reset makes d ready for the next series. What Finish returned is gone.
func (d *Downsampler) Reset() {
	for i := range d.outputs {
		d.outputs[i].reset()
	}
	d.rawFloats.reset()
	d.rawHists.reset()
	d.floats.reset()
	d.hists.reset()
	d.lastT = math.MinInt64
}

// Floats adds raw samples, in order of time.
func (d *Downsampler) Floats(ts []int64, vs []float64) error {
	if len(ts) != len(vs) {
		return fmt.Errorf("downsample: %d timestamps for %d values", len(ts), len(vs))
	}
	if err := d.endHists(); err != nil {
		return err
	}
	b := &d.rawFloats
	for i := 0; i < len(ts); {
		if ts[i] <= d.lastT || vs[i] != vs[i] {
			i++
			continue
		}
		if !b.open || ts[i] > b.end {
			b.endWindow()
			if full(b.t, ts[i]) {
				if err := d.endFloats(); err != nil {
					return err
				}
			}
			b.begin(ts[i], vs[i])
		}
		var n int
		n, d.lastT = b.take(ts[i:], vs[i:], d.lastT)
		i += n
	}
	return nil
}

// IntHistogram is Histogram for one of integers.
func (d *Downsampler) IntHistogram(t int64, h *histogram.Histogram) error {
	d.float = h.ToFloat(d.float)
	return d.Histogram(t, d.float)
}

// Histogram adds a raw sample, which must not be earlier than the last. It comes
// with the hint of its chunk: a gauge stays one. h is not kept.
func (d *Downsampler) Histogram(t int64, h *histogram.FloatHistogram) error {
	if t <= d.lastT || value.IsStaleNaN(h.Sum) {
		return nil
	}
	if err := d.endFloats(); err != nil {
		return err
	}
	b := &d.rawHists
	if !b.layout.fits(h) || t > b.end && full(b.t, t) {
		if err := d.endHists(); err != nil {
			return err
		}
	}
	if err := b.take(t, h); err != nil {
		return fmt.Errorf("downsample histogram at %d ms: %w", t, err)
	}
	d.lastT = t
	return nil
}

// full tells whether a chunk of 5m windows has to end before one that holds t:
// it ends with the hour before it could pass its size, or at a hole.
func full(windows []int64, t int64) bool {
	n := len(windows)
	if hole(windows, t) {
		return true
	}
	if n < chunkWindows-int(Resolution1h/Resolution5m)+1 {
		return false
	}
	return n >= chunkWindows || windowEnd(windows[n-1], Resolution1h) != windowEnd(t, Resolution1h)
}

// Aggregate adds the windows of a 5m chunk, whoever made it, to the 1h tier.
// Windows that lie in the past are left out, as NewCounter leaves them out.
func (d *Downsampler) Aggregate(c Chunk) error {
	if d.fine().wanted {
		return errors.New("downsample: an aggregate chunk can't be made into 5m windows")
	}
	if err := errors.Join(d.endFloats(), d.endHists()); err != nil {
		return err
	}
	if isHistogram(c[Counter].Encoding) {
		in, err := decodeHists(c)
		if err != nil {
			return err
		}
		if in.since(d.lastT); len(in.t) == 0 {
			return nil
		}
		d.lastT = in.t[len(in.t)-1]
		return d.mergeHists(in)
	}
	if err := d.in.decode(c); err != nil {
		return err
	}
	if d.in.since(d.lastT); len(d.in.t) == 0 {
		return nil
	}
	d.lastT = d.in.t[len(d.in.t)-1]
	return d.mergeFloats(&d.in)
}

// Finish returns the chunks of a resolution, after all samples of the series
// have been added. They are valid until Reset.
func (d *Downsampler) Finish(resolution int64) ([]Encoded, error) {
	if err := errors.Join(d.endFloats(), d.endHists(), d.endHours()); err != nil {
		return nil, err
	}
	o := d.fine()
	if resolution == Resolution1h {
		o = d.coarse()
	}
	start := 0
	for i, end := range o.ends {
		o.chunks[i].Payload = o.arena[start:end:end]
		start = end
	}
	return o.chunks, nil
}

// shortestBlock is the range of the blocks that Prometheus and ingesters cut, ms.
const shortestBlock = 2 * Resolution1h

// hole tells whether a whole block is missing between the last window and t. It
// may come late, when the raw data around is gone: then its counter goes on from
// the last raw value before the hole and up to the first one behind it, and
// chunks have these only at their ends.
func hole(windows []int64, t int64) bool {
	n := len(windows)
	return n > 0 && WindowStart(t, shortestBlock)-WindowStart(windows[n-1], shortestBlock) > shortestBlock
}

// endFloats ends the chunk of 5m windows of floats, if there is one.
func (d *Downsampler) endFloats() error {
	b := &d.rawFloats
	if b.endWindow(); len(b.t) == 0 {
		return nil
	}
	b.capLast()
	d.fine().floats(&b.floatChunk)
	err := d.mergeFloats(&b.floatChunk)
	b.reset()
	return err
}

// endHists ends the chunk of 5m windows of histograms, if there is one.
func (d *Downsampler) endHists() error {
	b := &d.rawHists
	if len(b.t) == 0 {
		return nil
	}
	if err := b.finish(); err != nil {
		return err
	}
	if err := d.fine().hists(&b.histChunk); err != nil {
		return err
	}
	err := d.mergeHists(&b.histChunk)
	b.reset()
	return err
}

// mergeFloats adds 5m windows to those of 1h.
func (d *Downsampler) mergeFloats(c *floatChunk) error {
	if !d.coarse().wanted {
		return nil
	}
	if d.floats.full(c) || len(d.hists.t) > 0 {
		if err := d.endHours(); err != nil {
			return err
		}
	}
	d.floats.add(c)
	return nil
}

// mergeHists adds 5m windows to those of 1h. c gives away its histograms.
func (d *Downsampler) mergeHists(c *histChunk) error {
	if !d.coarse().wanted {
		return nil
	}
	if d.hists.full(c) || len(d.floats.t) > 0 {
		if err := d.endHours(); err != nil {
			return err
		}
	}
	return d.hists.add(c)
}

// endHours ends the chunk of 1h windows, if there is one.
func (d *Downsampler) endHours() error {
	if len(d.floats.t) > 0 {
		d.floats.capLast()
		d.coarse().floats(&d.floats.floatChunk)
		d.floats.reset()
	}
	if len(d.hists.t) == 0 {
		return nil
	}
	if err := d.hists.finish(); err != nil {
		return err
	}
	if err := d.coarse().hists(&d.hists.histChunk); err != nil {
		return err
	}
	d.hists.reset()
	return nil
}

// WindowStart returns the first millisecond of the aligned window that t is in, or
// the first there is, should the window begin before it.
func WindowStart(t, resolution int64) int64 {
	into := t % resolution
	if into < 0 {
		into += resolution
	}
	if t < math.MinInt64+into {
		return math.MinInt64
	}
	return t - into
}

// windowEnd returns the last millisecond of the window of t.
func windowEnd(t, resolution int64) int64 {
	start := WindowStart(t, resolution)
	if start > math.MaxInt64-(resolution-1) {
		return math.MaxInt64
	}
	return start + resolution - 1
}
