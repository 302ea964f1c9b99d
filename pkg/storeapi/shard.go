package storeapi

import (
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Shard selects one of Total disjoint parts of all series. A series belongs to
// the part that its hash over the labels chosen by By and Labels falls into, so
// that an aggregation over those labels can be computed part by part.
type Shard struct {
	Index, Total int64
	By           bool     // hash only Labels; unset: all labels but those
	Labels       []string // any order
}

// Matches tells whether a series, with its external labels and without the
// replica labels that the selection takes away, belongs to the shard: xxhash64 over "name 0xff value 0xff" of the chosen labels, modulo Total
// (Thanos' StoreAPI, COMPAT A4.6). buf is scratch and may be nil; it is returned
// for use in the next call.
func (s *Shard) Matches(lset labels.Labels, buf []byte) (bool, []byte) {
	if s == nil || s.Total <= 1 {
		return true, buf
	}
	buf = buf[:0]
	lset.Range(func(l labels.Label) {
		if slices.Contains(s.Labels, l.Name) != s.By {
			return
		}
		buf = append(buf, l.Name...)
		buf = append(buf, 0xff)
		buf = append(buf, l.Value...)
		buf = append(buf, 0xff)
	})
	return xxhash.Sum64(buf)%uint64(s.Total) == uint64(s.Index), buf
}
