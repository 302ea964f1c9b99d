package storeapi

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/downsample"
)

// CutChunk takes the samples in cuts, sorted intervals that are apart, out of a
// chunk, and tells whether any are left. The data that c had is not written to.
//
// resolution is that of a downsampled chunk, in ms, or 0 where it is not known.
// The counter aggregate of what is left goes on over the gap as if the samples
// were there: how much a counter rose meanwhile is what the next value tells.
// All this is as downsample.Cut has it, which removes the samples for good, but
// works on whatever aggregates there are.
func CutChunk(c *Chunk, cuts tombstones.Intervals, resolution int64) (keep bool, err error) {
	if c.Aggr == nil {
		return c.cutRaw(cuts)
	}
	return c.cutAggregates(cuts, resolution)
}

func (c *Chunk) cutRaw(cuts tombstones.Intervals) (bool, error) {
	if Covers(cuts, c.MinTime, c.MaxTime) {
		return false, nil
	}
	if !overlapping(cuts, c.MinTime, c.MaxTime) {
		return true, nil
	}
	left, err := c.Raw.cut(func(t int64) bool { return !overlapping(cuts, t, t) })
	if err != nil || left.samples == 0 {
		return false, err
	}
	c.Raw, c.MinTime, c.MaxTime = left.Data, left.mint, left.maxt
	return true, nil
}

func (c *Chunk) cutAggregates(cuts tombstones.Intervals, resolution int64) (bool, error) {
	if resolution == 0 {
		var err error
		if resolution, err = c.Aggr.resolution(); err != nil {
			return false, err
		}
	}
	if Covers(cuts, c.MinTime, c.MaxTime) {
		return false, nil
	}
	if !overlapping(cuts, downsample.WindowStart(c.MinTime, resolution), c.MaxTime) {
		return true, nil
	}
	a, mint, maxt := *c.Aggr, int64(math.MaxInt64), int64(math.MinInt64)
	for _, d := range a.all() {
		left, err := d.cutWindows(cuts, resolution)
		if err != nil {
			return false, err
		}
		if d == &a.Counter {
			if left.Data, err = left.endedAs(*d); err != nil {
				return false, err
			}
		}
		if *d = left.Data; left.samples > 0 {
			// The counter begins with the first raw sample, before the first window's time.
			mint, maxt = min(mint, max(left.mint, c.MinTime)), max(maxt, left.maxt)
		}
	}
	c.Aggr, c.MinTime, c.MaxTime = &a, mint, maxt
	return mint <= maxt, nil
}

// cutWindows leaves out the windows that have a part in cuts. A window reaches
// from where it begins to the last time in it that there is a sample of.
func (d Data) cutWindows(cuts tombstones.Intervals, resolution int64) (remnant, error) {
	if d.IsZero() {
		return remnant{}, nil
	}
	times, err := d.times()
	if err != nil {
		return remnant{}, err
	}
	ends := make(map[int64]int64, len(times))
	for _, t := range times {
		ends[downsample.WindowStart(t, resolution)] = t
	}
	return d.cut(func(t int64) bool {
		from := downsample.WindowStart(t, resolution)
		return !overlapping(cuts, from, ends[from])
	})
}

// endedAs gives a counter of floats a true last value, where it lost that with
// its last windows: what it counts, less what resets had added in the whole chunk.
func (d remnant) endedAs(whole Data) (Data, error) {
	if d.samples == 0 || whole.Encoding != chunkenc.EncXOR {
		return d.Data, nil
	}
	ts, vs, err := downsample.AppendXOR(nil, nil, whole.Bytes)
	end := len(ts) - 1
	if err != nil || end < 1 || ts[end] != ts[end-1] || ts[end] == d.maxt {
		return d.Data, corruptChunk(err)
	}
	kept, values, err := downsample.AppendXOR(nil, nil, d.Bytes)
	if err != nil {
		return Data{}, corruptChunk(err)
	}
	kept, values = append(kept, d.maxt), append(values, values[len(values)-1]-(vs[end-1]-vs[end]))
	return Data{Encoding: chunkenc.EncXOR, Bytes: downsample.AppendXORChunk(nil, kept, values)}, nil
}

// all lists the aggregates, the counter last.
func (a *Aggregates) all() []*Data { return []*Data{&a.Count, &a.Sum, &a.Min, &a.Max, &a.Counter} }

// resolution tells that of an aggregate chunk from its timestamps: 5m if one
// names a window that an hour doesn't end with, else 1h.
func (a *Aggregates) resolution() (int64, error) {
	for _, d := range a.all() {
		if d.IsZero() {
			continue
		}
		times, err := d.times()
		if err != nil {
			return 0, err
		}
		if d == &a.Counter && len(times) > 0 {
			times = times[1:] // the first raw sample's
		}
		for i, t := range times {
			if t == times[len(times)-1] && i > 0 {
				break // it may be that of the last sample, anywhere in its window
			}
			if (t+1)%downsample.Resolution5m == 0 && (t+1)%downsample.Resolution1h != 0 {
				return downsample.Resolution5m, nil
			}
		}
		break
	}
	return downsample.Resolution1h, nil
}

// times are the timestamps of all samples.
func (d Data) times() ([]int64, error) {
	chunk, err := d.Chunk()
	if err != nil {
		return nil, err
	}
	var out []int64
	it := chunk.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		out = append(out, it.AtT())
	}
	return out, corruptChunk(it.Err())
}

// remnant is what is left of a chunk's data.
type remnant struct {
	Data
	samples    int
	mint, maxt int64
}

// cut encodes the samples to keep again, in the encoding they had. Where all are
// kept the data stays as it is; no data stay no data.
//
// Bytes of histograms that make package chunkenc panic are ErrCorrupt.
func (d Data) cut(keep func(t int64) bool) (r remnant, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = remnant{}, fmt.Errorf("%w: chunk of encoding %s: %v", ErrCorrupt, d.Encoding, p)
		}
	}()
	if d.IsZero() {
		return remnant{}, nil
	}
	in, err := d.Chunk()
	if err != nil {
		return remnant{}, err
	}
	e, err := newReencoder(d.Encoding)
	if err != nil {
		return remnant{}, err
	}
	dropped, headless := false, false // headless: the first sample is not the chunk's
	it := in.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		t := it.AtT()
		if !keep(t) {
			dropped = true
			headless = headless || r.samples == 0
			continue
		}
		if err := e.append(it, typ); err != nil {
			return remnant{}, err
		}
		if r.samples++; r.samples == 1 {
			r.mint = t
		}
		r.maxt = t
	}
	switch {
	case it.Err() != nil:
		return remnant{}, corruptChunk(it.Err())
	case !dropped:
		r.Data = d
	case r.samples > 0:
		e.chunk.Compact()
		r.Data = DataOf(e.chunk)
		r.setHint(d, headless)
	}
	return r, nil
}

// setHint gives re-encoded histograms the counter reset hint of the chunk that
// they are from. When headless, without its first sample, what came before may
// be gone too, so the promise of no reset is not kept; a reset was one, and a
// gauge is one, whatever is missing.
func (d Data) setHint(from Data, headless bool) {
	at := 2
	switch d.Encoding {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		at = 0
	default:
		return
	}
	hint := from.Bytes[at] & chunkenc.CounterResetHeaderMask
	if headless && chunkenc.CounterResetHeader(hint) == chunkenc.NotCounterReset {
		hint = byte(chunkenc.UnknownCounterReset)
	}
	d.Bytes[at] = d.Bytes[at]&^chunkenc.CounterResetHeaderMask | hint
}

// reencoder appends samples of one chunk to another of the same encoding.
type reencoder struct {
	chunk chunkenc.Chunk
	app   chunkenc.Appender
}

func newReencoder(e chunkenc.Encoding) (*reencoder, error) {
	c, err := chunkenc.NewEmptyChunk(e)
	if err != nil {
		return nil, corruptChunk(err)
	}
	app, err := c.Appender()
	if err != nil {
		return nil, corruptChunk(err)
	}
	return &reencoder{c, app}, nil
}

// append adds the sample that it stands at. Histograms go in as gauges, since
// that takes them as they are: all of one chunk have one layout, and whether
// there are resets among them is not to be judged again.
func (e *reencoder) append(it chunkenc.Iterator, typ chunkenc.ValueType) (err error) {
	var (
		fresh   chunkenc.Chunk
		recoded bool
	)
	st := it.AtST()
	switch typ {
	case chunkenc.ValFloat:
		t, v := it.At()
		e.app.Append(st, t, v)
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		h.CounterResetHint = histogram.GaugeType
		fresh, recoded, e.app, err = e.app.AppendHistogram(nil, st, t, h, false)
	case chunkenc.ValFloatHistogram:
		t, h := it.AtFloatHistogram(nil)
		h.CounterResetHint = histogram.GaugeType
		fresh, recoded, e.app, err = e.app.AppendFloatHistogram(nil, st, t, h, false)
	}
	if err != nil {
		return corruptChunk(err)
	}
	if fresh == nil {
		return nil
	}
	if !recoded {
		return fmt.Errorf("%w: histograms of more than one kind in a chunk", ErrCorrupt)
	}
	e.chunk = fresh
	return nil
}

// corruptChunk makes ErrCorrupt of what a chunk's bytes led to; nil stays nil.
func corruptChunk(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
