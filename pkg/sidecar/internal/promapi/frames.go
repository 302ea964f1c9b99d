package promapi

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Frames reads a streamed remote read, a frame at a time:
//
//	+----------------+-------------------+------------------------------+
//	| length uvarint | CRC-32C, 4 B, BE  | prometheus.ChunkedReadResponse |
//	+----------------+-------------------+------------------------------+
//
// A frame holds chunks of (as a rule) one series; a series may need several
// frames, one after the other. Prometheus' own reader takes a stream that ends
// inside a frame's header for complete; this one doesn't.
type Frames struct {
	client *Client
	r      *bufio.Reader
	table  *crc32.Table
	labels labels.ScratchBuilder

	offset int64 // of the frame being read, in the body
}

// Part is what a frame holds of a series.
type Part struct {
	Labels labels.Labels
	Chunks []storeapi.Chunk // their bytes are not used again by Frames
}

func (c *Client) newFrames(body io.Reader) *Frames {
	return &Frames{
		client: c,
		r:      bufio.NewReaderSize(body, 64<<10),
		table:  crc32.MakeTable(crc32.Castagnoli),
		labels: labels.NewScratchBuilder(16),
	}
}

// Next returns the parts of series in the next frame, io.EOF after the last.
// Bytes that can't be right are ErrCorrupt. ctx is that of the Read; it ends a
// Next that waits, and says why.
func (f *Frames) Next(ctx context.Context) ([]Part, error) {
	frame, err := f.next()
	if err == io.EOF { //nolint:errorlint // the bare end of the stream, from next alone
		return nil, io.EOF
	}
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	parts, err := f.decode(frame)
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	return parts, nil
}

// failed gives an error its place in the stream. What is not corrupt or too large has to do with the connection.
func (f *Frames) failed(ctx context.Context, err error) error {
	q := call{method: http.MethodPost, path: "/api/v1/read"}
	if errors.Is(err, storeapi.ErrCorrupt) || errors.Is(err, storeapi.ErrLimit) {
		return fmt.Errorf("prometheus %s: %s: frame at byte %d: %w", f.client.URL(), q, f.offset, err)
	}
	return f.client.failed(ctx, q, fmt.Errorf("stream broke off in or before the frame at byte %d: %w", f.offset, err))
}

// next reads a frame into memory of its own and checks its sum. io.EOF, bare,
// means that the stream ended between two frames.
func (f *Frames) next() ([]byte, error) {
	if _, err := f.r.Peek(1); err != nil {
		return nil, err
	}
	size, err := binary.ReadUvarint(f.r)
	if err != nil {
		return nil, cut(err)
	}
	if size > uint64(f.client.limits.FrameBytes) {
		return nil, fmt.Errorf("%w: it says to have %d bytes, allowed are %d (%s)", storeapi.ErrLimit, size, f.client.limits.FrameBytes, FlagFrameBytes)
	}
	var sum [4]byte
	if _, err := io.ReadFull(f.r, sum[:]); err != nil {
		return nil, cut(err)
	}
	frame, err := readGrowing(f.r, int(size))
	if err != nil {
		return nil, cut(err)
	}
	if got, want := crc32.Checksum(frame, f.table), binary.BigEndian.Uint32(sum[:]); got != want {
		return nil, fmt.Errorf("%w: checksum is %08x, should be %08x", storeapi.ErrCorrupt, got, want)
	}
	f.offset += int64(protowire.SizeVarint(size)) + 4 + int64(size)
	return frame, nil
}

// growBytes is how much memory is taken on the mere word of a frame's header.
const growBytes = 4 << 20

// readGrowing reads size bytes; the buffer grows as they arrive when they are many.
func readGrowing(r io.Reader, size int) ([]byte, error) {
	buf := make([]byte, 0, min(size, growBytes))
	for len(buf) < size {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(size, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// cut turns an end inside a frame into what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Field numbers of prometheus.ChunkedReadResponse and what is inside it.
const (
	fieldSeries = 1 // of ChunkedReadResponse

	fieldSeriesLabel = 1 // of ChunkedSeries
	fieldSeriesChunk = 2

	fieldLabelName  = 1 // of Label
	fieldLabelValue = 2

	fieldChunkMin  = 1 // of Chunk
	fieldChunkMax  = 2
	fieldChunkType = 3
	fieldChunkData = 4
)

// decode reads a ChunkedReadResponse. The bytes of the chunks are those of frame.
func (f *Frames) decode(frame []byte) ([]Part, error) {
	var parts []Part
	err := fields(frame, func(num protowire.Number, v value) error {
		if num != fieldSeries {
			return nil
		}
		p, err := f.series(v.bytes)
		parts = append(parts, p)
		return err
	})
	return parts, err
}

func (f *Frames) series(msg []byte) (Part, error) {
	var p Part
	f.labels.Reset()
	err := fields(msg, func(num protowire.Number, v value) error {
		switch num {
		case fieldSeriesLabel:
			return f.label(v.bytes)
		case fieldSeriesChunk:
			c, err := chunk(v.bytes)
			p.Chunks = append(p.Chunks, c)
			return err
		}
		return nil
	})
	f.labels.Sort()
	p.Labels = f.labels.Labels()
	return p, err
}

func (f *Frames) label(msg []byte) error {
	var name, val []byte
	err := fields(msg, func(num protowire.Number, v value) error {
		switch num {
		case fieldLabelName:
			name = v.bytes
		case fieldLabelValue:
			val = v.bytes
		}
		return nil
	})
	if err == nil && len(val) > 0 { // an empty value is no label
		f.labels.Add(string(name), string(val))
	}
	return err
}

// chunk reads a Chunk. Its type is the number that the TSDB gives the encoding,
// whatever it is: Prometheus sends its chunks as they are.
func chunk(msg []byte) (storeapi.Chunk, error) {
	var c storeapi.Chunk
	err := fields(msg, func(num protowire.Number, v value) error {
		switch num {
		case fieldChunkMin:
			c.MinTime = int64(v.varint)
		case fieldChunkMax:
			c.MaxTime = int64(v.varint)
		case fieldChunkType:
			c.Raw.Encoding = chunkenc.Encoding(v.varint)
		case fieldChunkData:
			c.Raw.Bytes = v.bytes[:len(v.bytes):len(v.bytes)]
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	if _, err := c.Raw.Chunk(); err != nil {
		return c, err
	}
	if c.MinTime > c.MaxTime {
		return c, fmt.Errorf("%w: chunk from %d to %d", storeapi.ErrCorrupt, c.MinTime, c.MaxTime)
	}
	return c, nil
}

// value is the value of a protobuf field, by its kind.
type value struct {
	varint uint64
	bytes  []byte
}

// fields calls f for each field of a message that is a varint or has a length; others are skipped.
func fields(msg []byte, f func(protowire.Number, value) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return fmt.Errorf("%w: %w", storeapi.ErrCorrupt, protowire.ParseError(n))
		}
		msg = msg[n:]
		var v value
		switch typ {
		case protowire.VarintType:
			v.varint, n = protowire.ConsumeVarint(msg)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(msg)
		default:
			if n = protowire.ConsumeFieldValue(num, typ, msg); n >= 0 {
				msg = msg[n:]
				continue
			}
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d: %w", storeapi.ErrCorrupt, num, protowire.ParseError(n))
		}
		msg = msg[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}
