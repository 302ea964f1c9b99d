package querier

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// bounds are a closed interval of time, ms.
type bounds struct{ mint, maxt int64 }

// unbounded is all of time.
func unbounded() bounds { return bounds{math.MinInt64, math.MaxInt64} }

// window returns the samples of an iterator within bounds.
type window struct {
	chunkenc.Iterator
	bounds
	started bool
	ended   bool
}

// Next implements chunkenc.Iterator.
func (w *window) Next() chunkenc.ValueType {
	if !w.started {
		return w.Seek(w.mint)
	}
	if w.ended {
		return chunkenc.ValNone
	}
	return w.bound(w.Iterator.Next())
}

// Seek implements chunkenc.Iterator.
func (w *window) Seek(t int64) chunkenc.ValueType {
	w.started = true
	if w.ended {
		return chunkenc.ValNone
	}
	return w.bound(w.Iterator.Seek(max(t, w.mint)))
}

func (w *window) bound(typ chunkenc.ValueType) chunkenc.ValueType {
	if typ == chunkenc.ValNone || w.AtT() > w.maxt {
		w.ended = true
		return chunkenc.ValNone
	}
	return typ
}
