package replicate

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/firnline/firnline/pkg/block"
)

// What nodes send each other stands in an envelope (docs/formats/replication.md):
//
//	version 1 │ compression 1 │ CRC-32C of what follows 4, LE │ bytes of the payload, uvarint │ payload
const (
	envelopeVersion = 1
	envelopeHeader  = 6

	stored     = 0
	compressed = 1 // s2

	// maxRatio bounds what a payload may be the more of what was sent: what
	// compresses better is sent as it is.
	maxRatio = 128
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// buffers are pooled: a request's frames are some 10 KiB, the largest MaxFrameBytes.
type buffers struct{ p sync.Pool }

// keptBuffer bounds what goes back to the pool.
const keptBuffer = 1 << 20

func (b *buffers) get() *[]byte {
	if x, ok := b.p.Get().(*[]byte); ok {
		*x = (*x)[:0]
		return x
	}
	return new([]byte)
}

func (b *buffers) put(x *[]byte) {
	if cap(*x) <= keptBuffer {
		b.p.Put(x)
	}
}

// seal puts a payload into an envelope, which it appends to dst.
func seal(dst, payload []byte, compress bool) []byte {
	start := len(dst)
	dst = append(dst, envelopeVersion, stored, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, uint64(len(payload)))
	head := len(dst)
	if compress {
		if room := s2.MaxEncodedLen(len(payload)); room > 0 {
			dst = append(dst, make([]byte, room)...)
			n := len(s2.Encode(dst[head:], payload))
			dst = dst[:head+n]
			dst[start+1] = compressed
			if len(payload) > maxRatio*n || n > len(payload) {
				dst, dst[start+1] = dst[:head], stored
			}
		}
	}
	if dst[start+1] == stored {
		dst = append(dst, payload...)
	}
	binary.LittleEndian.PutUint32(dst[start+2:], crc32.Checksum(dst[start+envelopeHeader:], crcTable))
	return dst
}

// unseal returns the payload of an envelope, which may lie in it or in scratch.
// A payload above limit is refused before memory is taken, and grow is asked for it.
func unseal(b []byte, limit int64, scratch *[]byte, grow func(bytes int64) error) ([]byte, error) {
	if len(b) < envelopeHeader+1 {
		return nil, corrupt(len(b), "it has %d bytes", len(b))
	}
	if b[0] != envelopeVersion {
		return nil, fmt.Errorf("message between nodes: version %d is not known", b[0])
	}
	if crc32.Checksum(b[envelopeHeader:], crcTable) != binary.LittleEndian.Uint32(b[2:]) {
		return nil, corrupt(2, "checksum mismatch")
	}
	size, n := binary.Uvarint(b[envelopeHeader:])
	if n <= 0 {
		return nil, corrupt(envelopeHeader, "bad length")
	}
	body := b[envelopeHeader+n:]
	switch {
	case size > uint64(limit):
		return nil, fmt.Errorf("message between nodes: %d bytes, at most %d are taken", size, limit)
	case b[1] == stored:
		if size != uint64(len(body)) {
			return nil, corrupt(envelopeHeader, "length is %d, there are %d bytes", size, len(body))
		}
		return body, nil
	case b[1] != compressed:
		return nil, corrupt(1, "compression %d is not known", b[1])
	}
	if real, err := s2.DecodedLen(body); err != nil || uint64(real) != size || size > maxRatio*uint64(len(body)) {
		return nil, corrupt(envelopeHeader, "length is %d of %d compressed bytes", size, len(body))
	}
	if err := grow(int64(size)); err != nil {
		return nil, err
	}
	out, err := s2.Decode((*scratch)[:cap(*scratch)], body)
	if err != nil {
		return nil, corrupt(envelopeHeader, "%v", err)
	}
	*scratch = out
	return out, nil
}

// corrupt is an error about the byte at offset.
func corrupt(offset int, format string, args ...any) error {
	return fmt.Errorf("message between nodes: %w at byte %d: %s", block.ErrCorrupt, offset, fmt.Sprintf(format, args...))
}
