package input

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/block/layout"
)

// chunkReader reads the chunks of segments. As a rule one comes after the other;
// where segments of several blocks were put side by side (plan.Job.Around) the
// chunks of each series lie in all of them, and each is read forward by itself.
type chunkReader struct {
	b    *Block
	open map[int]*segmentReader
	turn int64 // counts reads
}

// segmentReader reads one segment.
type segmentReader struct {
	ahead  *stream
	behind *stream // for chunks that lie a little before
	done   int64   // where the last chunk ended that was read ahead
	turn   int64   // of its last read
}

const (
	// sideWindow is what is read around a chunk that lies behind the others.
	sideWindow = 64 << 10

	// mostSegments are read side by side. Another one takes the place of that
	// which has not been asked for longest.
	mostSegments = 16
)

func (c *chunkReader) init(b *Block) { *c = chunkReader{b: b, open: map[int]*segmentReader{}} }

func (c *chunkReader) close() {
	for segment := range c.open {
		c.leave(segment)
	}
}

func (c *chunkReader) leave(segment int) {
	c.open[segment].ahead.release()
	c.open[segment].behind.release()
	delete(c.open, segment)
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
	r := c.open[segment]
	if r == nil {
		var err error
		if r, err = c.begin(ctx, segment); err != nil {
			return nil, err
		}
	}
	c.turn++
	r.turn = c.turn
	s := r.ahead
	if off < s.at && s.at-off <= c.b.window {
		s = r.behind
	}
	content, size, bad, err := s.record(ctx, off, layout.ChunkRecord)
	if bad != nil { // perhaps only on the way
		s.jump(off, firstRead)
		content, size, bad, err = s.record(ctx, off, layout.ChunkRecord)
	}
	if bad != nil {
		err = s.obj.Corrupt(off, fmt.Errorf("chunk: %w", bad))
	}
	r.done = max(r.done, off+size)
	return content, err
}

// begin opens a segment. The more are open already the shorter its windows are.
func (c *chunkReader) begin(ctx context.Context, segment int) (*segmentReader, error) {
	segments := c.b.remote.Segments
	if segment >= len(segments) {
		return nil, c.b.remote.Index.Corrupt(0, fmt.Errorf("a chunk is in segment %d, the block has %d", segment+1, len(segments)))
	}
	o := &segments[segment]
	if err := o.CheckSegment(ctx); err != nil {
		return nil, err
	}
	c.makeRoom()
	window := shareOf(c.b.window, len(c.open))
	r := &segmentReader{
		ahead:  newStream(o, layout.SegmentHeadLen, o.SizeBytes, window),
		behind: newStream(o, layout.SegmentHeadLen, o.SizeBytes, min(sideWindow, window)),
	}
	c.open[segment] = r
	return r, nil
}

// shareOf is the window of a segment that is read beside so many others.
func shareOf(window int64, others int) int64 {
	return min(window, max(window/int64(others+1), sideWindow))
}

// makeRoom leaves segments that were read to their ends and, if that is not
// enough, the one that has not been asked for longest.
func (c *chunkReader) makeRoom() {
	oldest := -1
	for segment, r := range c.open {
		if r.done >= r.ahead.end {
			c.leave(segment)
		} else if oldest < 0 || r.turn < c.open[oldest].turn {
			oldest = segment
		}
	}
	if len(c.open) >= mostSegments {
		c.leave(oldest)
	}
}
