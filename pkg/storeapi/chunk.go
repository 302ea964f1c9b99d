package storeapi

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/rawchunk"
)

// DataOf returns the bytes of a chunk as Data. The chunk must not be appended to afterwards.
func DataOf(c chunkenc.Chunk) Data {
	return Data{Encoding: c.Encoding(), Bytes: c.Bytes()}
}

// Chunk returns the data as a chunk of the TSDB, to be iterated over and not
// to be appended to. An encoding that is unknown, fewer bytes than its header
// has, or more buckets than can be there, is ErrCorrupt. It allocates the chunk
// and copies no bytes.
func (d Data) Chunk() (chunkenc.Chunk, error) {
	c, err := rawchunk.Open(d.Encoding, d.Bytes)
	if err != nil {
		return nil, corruptChunk(err)
	}
	return c, nil
}

// IsZero tells whether there is no data, as for an aggregate that is absent.
func (d Data) IsZero() bool { return len(d.Bytes) == 0 }

// compareTimes orders chunks by MinTime, then MaxTime.
func compareTimes(a, b Chunk) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
}

// compareChunks orders chunks by their times, and those of the same times by
// what is in them and then by replica, so that it returns 0 for exact duplicates
// only and the order of chunks does not depend on where they came from.
func compareChunks(a, b Chunk) int {
	return cmp.Or(compareContent(a, b), cmp.Compare(a.Replica, b.Replica))
}

func compareContent(a, b Chunk) int {
	if c := compareTimes(a, b); c != 0 {
		return c
	}
	switch {
	case a.Aggr == nil && b.Aggr == nil:
		return compareData(a.Raw, b.Raw)
	case a.Aggr == nil:
		return -1
	case b.Aggr == nil:
		return 1
	}
	x, y := a.Aggr, b.Aggr
	return cmp.Or(compareData(x.Count, y.Count), compareData(x.Sum, y.Sum), compareData(x.Min, y.Min),
		compareData(x.Max, y.Max), compareData(x.Counter, y.Counter))
}

func compareData(a, b Data) int {
	if c := cmp.Compare(a.Encoding, b.Encoding); c != 0 {
		return c
	}
	return bytes.Compare(a.Bytes, b.Bytes)
}

// SortChunks sorts chunks in place by MinTime, then MaxTime, and drops exact
// duplicates: same times, encodings, bytes and replica. It returns the shortened
// slice. Equal chunks of two replicas stay: without its own a replica would seem
// to have a gap.
func SortChunks(chunks []Chunk) []Chunk {
	if len(chunks) < 2 {
		return chunks
	}
	if !slices.IsSortedFunc(chunks, compareChunks) {
		slices.SortFunc(chunks, compareChunks)
	}
	return slices.CompactFunc(chunks, func(a, b Chunk) bool { return compareChunks(a, b) == 0 })
}
