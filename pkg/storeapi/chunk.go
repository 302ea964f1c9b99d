package storeapi

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Sizes of the headers that every chunk of an encoding has, in bytes. An
// iterator of package chunkenc reads them unchecked.
const (
	headerXOR       = 2 // number of samples
	headerWithFlags = 3 // number of samples, flags
)

// DataOf returns the bytes of a chunk as Data. The chunk must not be appended to afterwards.
func DataOf(c chunkenc.Chunk) Data {
	return Data{Encoding: c.Encoding(), Bytes: c.Bytes()}
}

// Chunk returns the data as a chunk of the TSDB, to be iterated over and not
// to be appended to. An encoding that is unknown, or fewer bytes than its
// header has, is ErrCorrupt. It allocates the chunk and copies no bytes.
func (d Data) Chunk() (chunkenc.Chunk, error) {
	size := headerWithFlags
	switch d.Encoding {
	case chunkenc.EncXOR:
		size = headerXOR
	case chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram,
		chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
	default:
		return nil, fmt.Errorf("%w: chunk encoding %d is unknown", ErrCorrupt, d.Encoding)
	}
	if len(d.Bytes) < size {
		return nil, fmt.Errorf("%w: chunk of encoding %s has %d bytes, its header alone has %d", ErrCorrupt, d.Encoding, len(d.Bytes), size)
	}
	return chunkenc.FromData(d.Encoding, d.Bytes)
}

// IsZero tells whether there is no data, as for an aggregate that is absent.
func (d Data) IsZero() bool { return len(d.Bytes) == 0 }

// equal tells whether two pieces of data have the same encoding and bytes.
func (d Data) equal(o Data) bool {
	return d.Encoding == o.Encoding && bytes.Equal(d.Bytes, o.Bytes)
}

// equal tells whether two chunks have the same times, encodings and bytes.
func (c *Chunk) equal(o *Chunk) bool {
	if c.MinTime != o.MinTime || c.MaxTime != o.MaxTime || (c.Aggr == nil) != (o.Aggr == nil) {
		return false
	}
	if c.Aggr == nil {
		return c.Raw.equal(o.Raw)
	}
	a, b := c.Aggr, o.Aggr
	return a == b || a.Count.equal(b.Count) && a.Sum.equal(b.Sum) && a.Min.equal(b.Min) && a.Max.equal(b.Max) && a.Counter.equal(b.Counter)
}

// compareTimes orders chunks by MinTime, then MaxTime.
func compareTimes(a, b Chunk) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
}

// SortChunks sorts chunks in place by MinTime, then MaxTime, and drops exact
// duplicates: same times, encodings and bytes. It returns the shortened slice.
func SortChunks(chunks []Chunk) []Chunk {
	if len(chunks) < 2 {
		return chunks
	}
	if !slices.IsSortedFunc(chunks, compareTimes) {
		slices.SortStableFunc(chunks, compareTimes)
	}
	return dropDuplicates(chunks)
}

// dropDuplicates removes from sorted chunks those equal to an earlier one. Of
// the same times there are seldom more than a few.
func dropDuplicates(chunks []Chunk) []Chunk {
	kept, group := chunks[:0], 0
	for i := range chunks {
		if i > 0 && compareTimes(chunks[i], kept[len(kept)-1]) != 0 {
			group = len(kept)
		}
		c := &chunks[i]
		if !slices.ContainsFunc(kept[group:], func(k Chunk) bool { return k.equal(c) }) {
			kept = append(kept, *c)
		}
	}
	clear(chunks[len(kept):])
	return kept
}
