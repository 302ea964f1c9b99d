package input

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/block/layout"
)

// chunkReader reads the chunks of one segment after the other.
type chunkReader struct {
	b       *Block
	segment int     // the one at hand
	ahead   *stream // nil: none yet
	behind  *stream // the same segment, for chunks that lie a little before
}

// sideWindow is what is read around a chunk that lies behind the others.
const sideWindow = 64 << 10

func (c *chunkReader) init(b *Block) { *c = chunkReader{b: b} }

func (c *chunkReader) close() {
	if c.ahead != nil {
		c.ahead.release()
		c.behind.release()
		c.ahead, c.behind = nil, nil
	}
}

// Chunk returns encoding and data of the chunk at ref, valid until the next call.
// It is quick for references that ascend; for others it is right.
func (b *Block) Chunk(ctx context.Context, ref uint64) (chunkenc.Encoding, []byte, error) {
	content, err := b.chunks.read(ctx, int(ref>>32), int64(uint32(ref)))
	if err != nil {
		return 0, nil, b.fail(err)
	}
	return chunkenc.Encoding(content[0]), content[1:], nil
}

// read returns encoding and data of the chunk at an offset of a segment.
func (c *chunkReader) read(ctx context.Context, segment int, off int64) ([]byte, error) {
	if c.ahead == nil || segment != c.segment {
		if err := c.open(ctx, segment); err != nil {
			return nil, err
		}
	}
	s := c.ahead
	if off < s.at && s.at-off <= c.b.window {
		s = c.behind
	}
	content, _, bad, err := s.record(ctx, off, layout.ChunkRecord)
	if bad != nil { // perhaps only on the way
		s.jump(off, firstRead)
		content, _, bad, err = s.record(ctx, off, layout.ChunkRecord)
	}
	if bad != nil {
		err = s.obj.Corrupt(off, fmt.Errorf("chunk: %w", bad))
	}
	return content, err
}

// open goes to a segment.
func (c *chunkReader) open(ctx context.Context, segment int) error {
	segments := c.b.remote.Segments
	if segment >= len(segments) {
		return c.b.remote.Index.Corrupt(0, fmt.Errorf("a chunk is in segment %d, the block has %d", segment+1, len(segments)))
	}
	o := &segments[segment]
	c.close()
	if err := o.CheckSegment(ctx); err != nil {
		return err
	}
	c.segment = segment
	c.ahead = newStream(o, layout.SegmentHeadLen, o.SizeBytes, c.b.window)
	c.behind = newStream(o, layout.SegmentHeadLen, o.SizeBytes, min(sideWindow, c.b.window))
	return nil
}
