package querier

import (
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// raised joins counters that were each corrected for resets since its own
// beginning, and so differ by the resets that the younger one has not seen. None
// of them ever goes down: where their merge does, it has moved to a younger one,
// which from there on is raised by the difference. Histograms pass as they are.
type raised struct {
	chunkenc.Iterator
	typ      chunkenc.ValueType // of the current sample
	last, by float64            // value returned last, and what is added
}

// Next implements chunkenc.Iterator.
func (r *raised) Next() chunkenc.ValueType {
	if r.typ = r.Iterator.Next(); r.typ != chunkenc.ValFloat {
		return r.typ
	}
	if _, v := r.Iterator.At(); !value.IsStaleNaN(v) {
		r.by += max(0, r.last-(v+r.by))
		r.last = v + r.by
	}
	return r.typ
}

// Seek implements chunkenc.Iterator. It walks, since what is added depends on
// all that was before.
func (r *raised) Seek(t int64) chunkenc.ValueType {
	if r.typ != chunkenc.ValNone && r.AtT() >= t {
		return r.typ
	}
	for {
		if typ := r.Next(); typ == chunkenc.ValNone || r.AtT() >= t {
			return typ
		}
	}
}

// At implements chunkenc.Iterator.
func (r *raised) At() (int64, float64) {
	t, v := r.Iterator.At()
	if value.IsStaleNaN(v) { // whose bits an addition would not keep
		return t, v
	}
	return t, v + r.by
}
