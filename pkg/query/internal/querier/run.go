package querier

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

// run reads chunks that follow one another, raw and downsampled ones mixed, as
// one iterator, and of them the samples that were asked for. Chunks that reach
// beyond those are read through a window; the others, most of all, directly. It
// is made once a series and used again for the next; per chunk it allocates
// nothing for floats in XOR encoding.
type run struct {
	chunkenc.Iterator // over the current chunk; never nil

	read   reading
	bounds bounds
	chunks []storeapi.Chunk // still to come
	edge   window           // that of the current chunk, where it needs one
	one    ones             // that of the current raw chunk, where samples are counted
	xor    *chunkenc.XORChunk
	inner  chunkenc.Iterator // the iterator of the last chunk, to use again
	err    error
}

// newRun returns a run over chunks in the memory of reuse, where that is one.
func newRun(chunks []storeapi.Chunk, read reading, b bounds, reuse chunkenc.Iterator) *run {
	r, ok := reuse.(*run)
	if !ok {
		r = &run{xor: chunkenc.NewXORChunk()}
	}
	r.Iterator, r.read, r.bounds, r.chunks, r.err = chunkenc.NewNopIterator(), read, b, chunks, nil
	return r
}

// Next implements chunkenc.Iterator.
func (r *run) Next() chunkenc.ValueType {
	for {
		if typ := r.Iterator.Next(); typ != chunkenc.ValNone {
			return typ
		}
		if !r.open() {
			return chunkenc.ValNone
		}
	}
}

// Seek implements chunkenc.Iterator. Chunks that end before t are not opened.
func (r *run) Seek(t int64) chunkenc.ValueType {
	for {
		if typ := r.Iterator.Seek(t); typ != chunkenc.ValNone {
			return typ
		}
		for len(r.chunks) > 0 && r.chunks[0].MaxTime < t {
			if r.Iterator.Err() != nil {
				return chunkenc.ValNone
			}
			r.chunks = r.chunks[1:]
		}
		if !r.open() {
			return chunkenc.ValNone
		}
	}
}

// Err implements chunkenc.Iterator.
func (r *run) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.Iterator.Err()
}

// open moves on to the next chunk, if there is one and the last ended well.
func (r *run) open() bool {
	if r.Err() != nil {
		return false
	}
	for len(r.chunks) > 0 && r.chunks[0].MaxTime < r.bounds.mint {
		r.chunks = r.chunks[1:]
	}
	if len(r.chunks) == 0 || r.chunks[0].MinTime > r.bounds.maxt {
		r.Iterator, r.chunks = chunkenc.NewNopIterator(), nil
		return false
	}
	c := &r.chunks[0]
	r.chunks = r.chunks[1:]
	it, err := r.iterator(c)
	if err != nil {
		r.err = fmt.Errorf("chunk from %d to %d ms: %w", c.MinTime, c.MaxTime, err)
		return false
	}
	if r.Iterator = it; c.MinTime < r.bounds.mint || c.MaxTime > r.bounds.maxt {
		r.edge = window{Iterator: it, bounds: r.bounds}
		r.Iterator = &r.edge
	}
	return true
}

// iterator returns the samples of a chunk that the reading asks for. A
// downsampled chunk that has no such aggregate (there is no least of native
// histograms) has no samples.
func (r *run) iterator(c *storeapi.Chunk) (chunkenc.Iterator, error) {
	if c.Aggr == nil {
		it, err := r.decode(c.Raw)
		if err != nil || r.read != readCount {
			return it, err
		}
		r.one.Iterator = it
		return &r.one, nil
	}
	a := c.Aggr
	switch r.read {
	case readCount:
		return r.decode(a.Count)
	case readSum:
		return r.decode(a.Sum)
	case readMin:
		return r.decode(a.Min)
	case readMax:
		return r.decode(a.Max)
	case readCounter:
		return r.decode(a.Counter)
	}
	count, err := r.decodeNew(a.Count)
	if err != nil {
		return nil, err
	}
	sum, err := r.decodeNew(a.Sum)
	if err != nil {
		return nil, err
	}
	return downsample.NewAverage(count, sum), nil
}

// decode returns an iterator over data, which may be the last one used again.
func (r *run) decode(d storeapi.Data) (chunkenc.Iterator, error) {
	if d.IsZero() {
		return chunkenc.NewNopIterator(), nil
	}
	if d.Encoding == chunkenc.EncXOR && len(d.Bytes) >= 2 {
		r.xor.Reset(d.Bytes)
		r.inner = r.xor.Iterator(r.inner)
		return r.inner, nil
	}
	c, err := d.Chunk()
	if err != nil {
		return nil, err
	}
	r.inner = c.Iterator(r.inner)
	return r.inner, nil
}

// decodeNew returns an iterator of its own.
func (r *run) decodeNew(d storeapi.Data) (chunkenc.Iterator, error) {
	if d.IsZero() {
		return chunkenc.NewNopIterator(), nil
	}
	c, err := d.Chunk()
	if err != nil {
		return nil, err
	}
	return c.Iterator(nil), nil
}
