package downsample

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// NewAverage divides sum by count, sample by sample: the plain value of a
// downsampled series. Both must have the same timestamps, else the iterator
// ends with ErrCorrupt.
func NewAverage(count, sum chunkenc.Iterator) chunkenc.Iterator {
	return &average{count: count, sum: sum}
}

type average struct {
	count, sum chunkenc.Iterator
	n          float64 // of the current window
	err        error
}

func (a *average) Next() chunkenc.ValueType {
	if a.err != nil {
		return chunkenc.ValNone
	}
	return a.align(a.count.Next(), a.sum.Next())
}

func (a *average) Seek(t int64) chunkenc.ValueType {
	if a.err != nil {
		return chunkenc.ValNone
	}
	return a.align(a.count.Seek(t), a.sum.Seek(t))
}

func (a *average) align(count, sum chunkenc.ValueType) chunkenc.ValueType {
	switch {
	case count == chunkenc.ValNone && sum == chunkenc.ValNone:
		return chunkenc.ValNone
	case count != chunkenc.ValFloat || sum == chunkenc.ValNone:
		a.err = fmt.Errorf("%w: count and sum differ in length or type", ErrCorrupt)
		return chunkenc.ValNone
	}
	var t int64
	if t, a.n = a.count.At(); t != a.sum.AtT() {
		a.err = fmt.Errorf("%w: count at %d ms, sum at %d ms", ErrCorrupt, t, a.sum.AtT())
		return chunkenc.ValNone
	}
	if sum == chunkenc.ValHistogram {
		return chunkenc.ValFloatHistogram
	}
	return sum
}

func (a *average) At() (int64, float64) {
	t, v := a.sum.At()
	return t, v / a.n
}

// AtHistogram is never called: the iterator returns no integer histograms.
func (a *average) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("downsample: an average is never an integer histogram")
}

func (a *average) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, fh := a.sum.AtFloatHistogram(fh)
	return t, fh.Div(a.n)
}

func (a *average) AtT() int64  { return a.sum.AtT() }
func (a *average) AtST() int64 { return 0 }

func (a *average) Err() error {
	for _, err := range []error{a.err, a.count.Err(), a.sum.Err()} {
		if err != nil {
			return err
		}
	}
	return nil
}
