// Package downsample knows the aggregate chunk: its bytes, how to make it of raw
// samples and of finer chunks, how to cut samples out of it, and how to read a
// downsampled series as if it were a plain one. It does no I/O.
//
// A downsampled block holds one chunk of encoding 0xff where a raw block holds
// several: inside are up to five sub-chunks, each an ordinary TSDB chunk with a
// sample per window. Functions here are safe for concurrent use; iterators are
// used by one goroutine.
package downsample

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Encoding is the TSDB chunk encoding byte of an aggregate chunk.
const Encoding chunkenc.Encoding = 0xff

// Resolutions of downsampled blocks, in ms.
const (
	Resolution5m int64 = 5 * 60 * 1000
	Resolution1h int64 = 60 * 60 * 1000
)

// Type names a sub-chunk by its place in the payload.
type Type int

// The sub-chunks, in the order they are written.
const (
	Count   Type = iota // samples per window, floats
	Sum                 // float or float histogram
	Min                 // float; absent for histograms
	Max                 // float; absent for histograms
	Counter             // reset-corrected counter; see NewCounter
	numTypes
)

// ErrCorrupt marks a chunk whose bytes can't be right.
var ErrCorrupt = errors.New("corrupt chunk")

// Sub is one sub-chunk: the bytes of a TSDB chunk and their encoding. No bytes: absent.
type Sub struct {
	Encoding chunkenc.Encoding
	Bytes    []byte
}

// Chunk is a decoded aggregate chunk, indexed by Type.
//
// Its payload, as it stands behind the encoding byte of a chunk in a segment
// file (COMPAT A2.1; the same bytes as Thanos'), is five entries in order:
//
//	┌────────────────────┬───────────────────┬──────────────────┐
//	│ len <uvarint>      │ encoding <1 byte> │ data <len bytes> │   present
//	├────────────────────┼───────────────────┴──────────────────┘
//	│ 0 <1 byte>         │                                          absent
//	└────────────────────┘
//
// len counts the data alone.
type Chunk [numTypes]Sub

// Decode splits a payload. The sub-chunks point into payload.
func Decode(payload []byte) (Chunk, error) {
	var c Chunk
	rest := payload
	for t := range c {
		if len(rest) == 0 {
			return Chunk{}, fmt.Errorf("%w: ends at byte %d, before sub-chunk %d", ErrCorrupt, len(payload), t)
		}
		size, n := binary.Uvarint(rest)
		if n <= 0 {
			return Chunk{}, fmt.Errorf("%w: length of sub-chunk %d at byte %d", ErrCorrupt, t, len(payload)-len(rest))
		}
		rest = rest[n:]
		if size == 0 {
			continue
		}
		if uint64(len(rest)) < size+1 || size+1 == 0 {
			return Chunk{}, fmt.Errorf("%w: sub-chunk %d at byte %d has %d bytes, %d are left", ErrCorrupt, t, len(payload)-len(rest), size, len(rest))
		}
		c[t] = Sub{Encoding: chunkenc.Encoding(rest[0]), Bytes: rest[1 : 1+size : 1+size]}
		rest = rest[1+size:]
	}
	return c, nil
}

// Append writes the payload of c to dst. An absent Counter is refused: readers
// in the field take a payload that ends in an absent entry for damaged.
func (c Chunk) Append(dst []byte) ([]byte, error) {
	if len(c[Counter].Bytes) == 0 {
		return nil, errors.New("aggregate chunk without a counter sub-chunk")
	}
	for _, s := range c {
		dst = appendSub(dst, s)
	}
	return dst, nil
}

// Has tells whether the sub-chunk is there.
func (c *Chunk) Has(t Type) bool { return len(c[t].Bytes) > 0 }

// NumSamples is the number of windows: the samples of the count sub-chunk.
func (c *Chunk) NumSamples() int {
	if b := c[Count].Bytes; len(b) >= 2 {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}
