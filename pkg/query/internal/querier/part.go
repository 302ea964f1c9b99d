package querier

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

// part lets dedup.Split see a chunk, a downsampled one as well, as a chunk of
// the TSDB: by encoding, bytes and number of samples. Samples are not read
// through it, so the rest of the interface is absent.
type part struct {
	chunkenc.Chunk // nil
	of             *storeapi.Chunk
}

// telling returns the data that tells a chunk from others of the same time.
func (p *part) telling() storeapi.Data {
	if p.of.Aggr == nil {
		return p.of.Raw
	}
	a := p.of.Aggr
	for _, d := range []storeapi.Data{a.Counter, a.Sum, a.Min, a.Max} {
		if !d.IsZero() {
			return d
		}
	}
	return a.Count
}

// Encoding implements chunkenc.Chunk.
func (p *part) Encoding() chunkenc.Encoding {
	if p.of.Aggr != nil {
		return downsample.Encoding
	}
	return p.of.Raw.Encoding
}

// Bytes implements chunkenc.Chunk.
func (p *part) Bytes() []byte { return p.telling().Bytes }

// NumSamples implements chunkenc.Chunk.
func (p *part) NumSamples() int {
	if b := p.telling().Bytes; len(b) >= 2 {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}
