package merge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/rawchunk"
)

// batch are samples of one type in arrays, in order of time. Histograms are the
// batch's own and may be handed on.
type batch struct {
	typ chunkenc.ValueType
	ts  []int64 // ms
	vs  []float64
	hs  []*histogram.Histogram
	fhs []*histogram.FloatHistogram
	sts []int64 // start timestamps, ms, or empty: there are none

	spareHs  []*histogram.Histogram // nobody else's, to be used again
	spareFhs []*histogram.FloatHistogram
}

func (b *batch) len() int { return len(b.ts) }

func (b *batch) reset() {
	clear(b.hs)
	clear(b.fhs)
	b.typ, b.ts, b.vs, b.hs, b.fhs, b.sts = chunkenc.ValNone, b.ts[:0], b.vs[:0], b.hs[:0], b.fhs[:0], b.sts[:0]
}

// recycle is reset of a batch whose histograms nobody else has.
func (b *batch) recycle() {
	b.spareHs, b.spareFhs = append(b.spareHs, b.hs...), append(b.spareFhs, b.fhs...)
	b.reset()
}

// errEncoding marks a chunk that is of no encoding this program knows.
var errEncoding = errors.New("unknown encoding")

// numSamples is what the chunk says of itself, an aggregate one the number of its windows.
func numSamples(enc chunkenc.Encoding, data []byte) int {
	if len(data) < 2 {
		return 0
	}
	n := int(binary.BigEndian.Uint16(data))
	switch enc {
	case downsample.Encoding:
		c, err := downsample.Decode(data)
		if err != nil {
			return 0
		}
		return c.NumSamples()
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return n & (1<<14 - 1) // The counter reset hint stands above.
	}
	return n
}

// valueType is what the samples of a chunk of that encoding are.
func valueType(enc chunkenc.Encoding) chunkenc.ValueType {
	switch enc {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		return chunkenc.ValFloat
	case chunkenc.EncHistogram, chunkenc.EncHistogramST:
		return chunkenc.ValHistogram
	case chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValNone
}

// decoder reads chunks into batches.
type decoder struct {
	its map[chunkenc.Encoding]chunkenc.Iterator // to be used again
}

// decode replaces what is in b by the samples of a chunk, which are as many as
// it says, or the error tells why not. They may be out of order.
func (d *decoder) decode(b *batch, enc chunkenc.Encoding, data []byte) (err error) {
	b.reset()
	if b.typ = valueType(enc); b.typ == chunkenc.ValNone {
		return fmt.Errorf("%w %d", errEncoding, enc)
	}
	if enc == chunkenc.EncXOR {
		b.ts, b.vs, err = downsample.AppendXOR(b.ts, b.vs, data)
		return err
	}
	// The iterators of the other encodings trust the length of a chunk.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode: %v", p)
		}
	}()
	c, err := rawchunk.Open(enc, data)
	if err != nil {
		return err
	}
	if d.its == nil {
		d.its = map[chunkenc.Encoding]chunkenc.Iterator{}
	}
	it := c.Iterator(d.its[enc])
	d.its[enc] = it
	for it.Next() != chunkenc.ValNone {
		b.append(it)
	}
	if err := it.Err(); err != nil {
		return err
	}
	if n := numSamples(enc, data); n != b.len() {
		return fmt.Errorf("%d samples of %d", b.len(), n)
	}
	return nil
}

// append adds the current sample of it, which is of b's type.
func (b *batch) append(it chunkenc.Iterator) {
	var t int64
	switch b.typ {
	case chunkenc.ValFloat:
		var v float64
		t, v = it.At()
		b.vs = append(b.vs, v)
	case chunkenc.ValHistogram:
		var h *histogram.Histogram
		t, h = it.AtHistogram(spare(&b.spareHs)) // of nil the iterator makes one that shares its memory, and then new memory
		b.hs = append(b.hs, h)
	default:
		var fh *histogram.FloatHistogram
		t, fh = it.AtFloatHistogram(spare(&b.spareFhs))
		b.fhs = append(b.fhs, fh)
	}
	st := it.AtST()
	if st != 0 || len(b.sts) > 0 {
		for len(b.sts) < len(b.ts) {
			b.sts = append(b.sts, 0)
		}
		b.sts = append(b.sts, st)
	}
	b.ts = append(b.ts, t)
}

// spare takes one of those to be used again, or makes one.
func spare[T any](all *[]*T) *T {
	n := len(*all)
	if n == 0 {
		return new(T)
	}
	out := (*all)[n-1]
	*all = (*all)[:n-1]
	return out
}

// sorted tells whether times ascend strictly.
func (b *batch) sorted() bool {
	for i := 1; i < len(b.ts); i++ {
		if b.ts[i] <= b.ts[i-1] {
			return false
		}
	}
	return true
}

// plain tells whether these are floats without start timestamps.
func (b *batch) plain() bool { return b.typ == chunkenc.ValFloat && len(b.sts) == 0 }

// st is the start timestamp of sample i; 0: none.
func (b *batch) st(i int) int64 {
	if len(b.sts) == 0 {
		return 0
	}
	return b.sts[i]
}

// take appends sample i of o, which is of b's type.
func (b *batch) take(o *batch, i int) { b.takeRange(o, i, i+1) }

// takeRange appends the samples from i to before j of o, which is of b's type.
func (b *batch) takeRange(o *batch, i, j int) {
	if len(o.sts) > 0 || len(b.sts) > 0 {
		for len(b.sts) < len(b.ts) {
			b.sts = append(b.sts, 0)
		}
		for k := i; k < j; k++ {
			b.sts = append(b.sts, o.st(k))
		}
	}
	b.ts = append(b.ts, o.ts[i:j]...)
	switch b.typ {
	case chunkenc.ValFloat:
		b.vs = append(b.vs, o.vs[i:j]...)
	case chunkenc.ValHistogram:
		b.hs = append(b.hs, o.hs[i:j]...)
	default:
		b.fhs = append(b.fhs, o.fhs[i:j]...)
	}
}

// forgetHint makes readers compare histogram i with the one before rather than
// trust a hint that speaks of another one.
func (b *batch) forgetHint(i int) {
	switch b.typ {
	case chunkenc.ValHistogram:
		if h := b.hs[i]; h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
	case chunkenc.ValFloatHistogram:
		if h := b.fhs[i]; h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
	}
}

// cut removes the samples within intervals and returns how many those were.
func (b *batch) cut(intervals tombstones.Intervals) int {
	var kept batch
	kept.typ = b.typ
	removed, broken := 0, false
	for i, t := range b.ts {
		for len(intervals) > 0 && intervals[0].Maxt < t {
			intervals = intervals[1:]
		}
		if len(intervals) > 0 && intervals[0].Mint <= t {
			removed++
			broken = true
			continue
		}
		kept.take(b, i)
		if broken {
			kept.forgetHint(kept.len() - 1)
			broken = false
		}
	}
	if removed > 0 {
		*b = kept
	}
	return removed
}
