package merge

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/downsample"
)

// chunkReader is what the merge of a series needs of a block.
type chunkReader interface {
	Chunk(ctx context.Context, ref uint64) (chunkenc.Encoding, []byte, error)
}

// chunkSource reads and checks the chunks of all sources for one series.
type chunkSource struct {
	read    func(src int32, ref uint64) (chunkenc.Encoding, []byte, error)
	aggrs   bool // aggregate chunks are to be expected
	decoder decoder
}

// newChunkSource returns a chunkSource for a Run under ctx, since samples are
// read through iterators, which know none.
func newChunkSource(ctx context.Context, blocks []chunkReader, aggrs bool) *chunkSource {
	return &chunkSource{aggrs: aggrs, read: func(src int32, ref uint64) (chunkenc.Encoding, []byte, error) {
		return blocks[src].Chunk(ctx, ref)
	}}
}

// load returns a chunk's bytes, valid until the next one of that block is read.
func (s *chunkSource) load(c chunk) (chunkenc.Encoding, []byte, error) {
	enc, data, err := s.read(c.src, c.ref)
	if err != nil {
		return 0, nil, &sourceError{src: int(c.src), err: err}
	}
	switch {
	case valueType(enc) != chunkenc.ValNone, enc == downsample.Encoding && s.aggrs:
	default:
		return 0, nil, s.corrupt(c, fmt.Errorf("%w %d", errEncoding, enc))
	}
	if len(data) < 2 {
		return 0, nil, s.corrupt(c, fmt.Errorf("%d bytes", len(data)))
	}
	return enc, data, nil
}

// decode reads the samples of a chunk. errMend: they are out of order or not of
// the times that the index says, which c didn't say yet.
func (s *chunkSource) decode(b *batch, c chunk, enc chunkenc.Encoding, data []byte) error {
	if err := s.decoder.decode(b, enc, data); err != nil {
		return s.corrupt(c, err)
	}
	if c.unsorted || b.len() == 0 {
		return nil
	}
	if b.ts[0] != c.mint || b.ts[b.len()-1] != c.maxt || !b.sorted() {
		return errMend
	}
	return nil
}

// corrupt says which chunk of which source can't be right, and why.
func (s *chunkSource) corrupt(c chunk, err error) error {
	return &sourceError{src: int(c.src), err: fmt.Errorf("chunks/%06d: offset %d: %w: %w", c.ref>>32+1, c.ref&(1<<32-1), block.ErrCorrupt, err)}
}
