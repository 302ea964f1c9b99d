package querier

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// ones counts raw samples, of floats and histograms alike: each is a float, 1.
// Stale markers stay what they are.
type ones struct {
	chunkenc.Iterator
	v float64
}

// Next implements chunkenc.Iterator.
func (o *ones) Next() chunkenc.ValueType { return o.float(o.Iterator.Next()) }

// Seek implements chunkenc.Iterator.
func (o *ones) Seek(t int64) chunkenc.ValueType { return o.float(o.Iterator.Seek(t)) }

func (o *ones) float(typ chunkenc.ValueType) chunkenc.ValueType {
	var v float64
	switch typ {
	case chunkenc.ValNone:
		return typ
	case chunkenc.ValFloat:
		_, v = o.Iterator.At()
	default:
		_, h := o.Iterator.AtFloatHistogram(nil)
		v = h.Sum
	}
	if o.v = 1; value.IsStaleNaN(v) {
		o.v = v
	}
	return chunkenc.ValFloat
}

// At implements chunkenc.Iterator.
func (o *ones) At() (int64, float64) { return o.Iterator.AtT(), o.v }

// AtHistogram is never called: the iterator returns floats only.
func (o *ones) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("querier: a count is never a histogram")
}

// AtFloatHistogram is never called either.
func (o *ones) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("querier: a count is never a histogram")
}
