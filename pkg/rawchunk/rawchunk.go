// Package rawchunk opens chunks of raw samples whose bytes nobody has vouched
// for: a checksum tells that they came as they were written, not by whom. What
// it opens costs memory in proportion to its bytes. Iterators of it may still
// panic; who reads through one recovers from that.
package rawchunk

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Sizes of the headers that every chunk of an encoding has, in bytes. An
// iterator of package chunkenc reads them unchecked.
const (
	headerXOR       = 2 // number of samples
	headerWithFlags = 3 // number of samples, flags
)

// Open returns bytes as a chunk of the TSDB, to be iterated over and not to be
// appended to. It refuses an encoding that is unknown, fewer bytes than its
// header has, and more buckets than can be there. It copies no bytes.
func Open(enc chunkenc.Encoding, data []byte) (chunkenc.Chunk, error) {
	size := headerWithFlags
	switch enc {
	case chunkenc.EncXOR:
		size = headerXOR
	case chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram,
		chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
	default:
		return nil, fmt.Errorf("chunk encoding %d is unknown", enc)
	}
	if len(data) < size {
		return nil, fmt.Errorf("chunk of encoding %s has %d bytes, its header alone has %d", enc, len(data), size)
	}
	if enc != chunkenc.EncXOR && enc != chunkenc.EncXOR2 {
		if err := checkLayout(data); err != nil {
			return nil, err
		}
	}
	return chunkenc.FromData(enc, data)
}
