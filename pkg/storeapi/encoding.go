package storeapi

import (
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
)

// extraEncodings are the encodings of the TSDB that the StoreAPI has no names
// for. Our client says that it takes them; our server sends them only to who does.
func extraEncodings() []uint32 {
	return []uint32{uint32(chunkenc.EncXOR2), uint32(chunkenc.EncHistogramST), uint32(chunkenc.EncFloatHistogramST)}
}

// wireEncoding is the StoreAPI's number of an encoding.
func wireEncoding(e chunkenc.Encoding) uint64 {
	switch e {
	case chunkenc.EncHistogram:
		return uint64(storepb.Chunk_HISTOGRAM)
	case chunkenc.EncFloatHistogram:
		return uint64(storepb.Chunk_FLOAT_HISTOGRAM)
	case chunkenc.EncXOR2:
		return uint64(storepb.Chunk_FIRNLINE_XOR2)
	case chunkenc.EncHistogramST:
		return uint64(storepb.Chunk_FIRNLINE_HISTOGRAM_ST)
	case chunkenc.EncFloatHistogramST:
		return uint64(storepb.Chunk_FIRNLINE_FLOAT_HISTOGRAM_ST)
	default: // XOR; others don't get past the frame writer
		return uint64(storepb.Chunk_XOR)
	}
}

// encodingOf is the encoding of one of the StoreAPI's numbers.
func encodingOf(wire uint64) (chunkenc.Encoding, error) {
	switch storepb.Chunk_Encoding(min(wire, 1<<20)) {
	case storepb.Chunk_XOR:
		return chunkenc.EncXOR, nil
	case storepb.Chunk_HISTOGRAM:
		return chunkenc.EncHistogram, nil
	case storepb.Chunk_FLOAT_HISTOGRAM:
		return chunkenc.EncFloatHistogram, nil
	case storepb.Chunk_FIRNLINE_XOR2:
		return chunkenc.EncXOR2, nil
	case storepb.Chunk_FIRNLINE_HISTOGRAM_ST:
		return chunkenc.EncHistogramST, nil
	case storepb.Chunk_FIRNLINE_FLOAT_HISTOGRAM_ST:
		return chunkenc.EncFloatHistogramST, nil
	}
	return 0, fmt.Errorf("%w: chunk type %d is unknown", ErrCorrupt, wire)
}

// withoutStartTimestamps encodes a chunk anew with encodings 1 to 3, which every
// peer knows. Histograms may need more than one chunk.
func withoutStartTimestamps(c Chunk) ([]Chunk, error) {
	if c.Aggr == nil {
		return recode(c.Raw)
	}
	aggr := *c.Aggr
	for f := protowire.Number(fieldCount); f <= fieldCounter; f++ {
		d := aggr.field(f)
		if d.Encoding <= chunkenc.EncFloatHistogram || d.IsZero() {
			continue
		}
		chunks, err := recode(*d)
		if err != nil {
			return nil, err
		}
		if len(chunks) != 1 {
			return nil, fmt.Errorf("%w: aggregate of a chunk %d..%d can't be encoded as one chunk", ErrCorrupt, c.MinTime, c.MaxTime)
		}
		*d = chunks[0].Raw
	}
	c.Aggr = &aggr
	return []Chunk{c}, nil
}

func recode(d Data) ([]Chunk, error) {
	if d.Encoding > chunkenc.EncFloatHistogramST {
		return nil, fmt.Errorf("%w: chunk encoding %d is unknown", ErrCorrupt, d.Encoding)
	}
	c, err := d.Chunk()
	if err != nil {
		return nil, err
	}
	e := Encoder{MaxSamples: max(c.NumSamples(), 1)}
	if err := e.Samples(c.Iterator(nil)); err != nil {
		return nil, fmt.Errorf("%w: encode %s chunk anew: %w", ErrCorrupt, d.Encoding, err)
	}
	return e.Chunks(), nil
}
