package layout

import (
	"encoding/binary"
	"hash/crc32"
)

// Frame knows how a record is laid out: where its length stands and what its
// checksum covers.
type Frame uint8

// The three kinds of records that are read by offset.
const (
	// PostingsRecord: length 4b | count 4b | refs | CRC over what length counts.
	// Symbols and the postings offset table are laid out the same way.
	PostingsRecord Frame = iota
	// SeriesRecord: length uvarint | content | CRC over the content.
	SeriesRecord
	// ChunkRecord: length uvarint | encoding 1b | data | CRC over encoding and data; the length counts the data only.
	ChunkRecord
)

// MaxRecord is how long a series entry or chunk may be, in bytes, to be
// believed. Postings lists have no such bound, their length is known beforehand.
const MaxRecord = 64 << 20

// HeadBytes are enough to tell how long any record is.
const HeadBytes = 16

// bounds reads the length at the start of b: where the checksummed content
// starts and ends. ok is false when b is too short to tell.
func (k Frame) bounds(b []byte) (start, end int64, ok bool, err error) {
	if k == PostingsRecord {
		if len(b) < 4 {
			return 0, 0, false, nil
		}
		start = 4
		end = start + int64(binary.BigEndian.Uint32(b))
	} else {
		n, w := binary.Uvarint(b)
		if w == 0 && len(b) < binary.MaxVarintLen32 {
			return 0, 0, false, nil
		}
		if w <= 0 || n == 0 || n > MaxRecord {
			return 0, 0, false, ErrLength
		}
		start = int64(w)
		end = start + int64(n)
		if k == ChunkRecord {
			end++
		}
	}
	return start, end, true, nil
}

// Content checks the record at the start of b and returns the bytes its checksum
// covers and the length of the whole record. A record that is not whole in b has
// a nil content and the length it needs, as far as that can be told.
func (k Frame) Content(b []byte) (content []byte, size int64, err error) {
	start, end, ok, err := k.bounds(b)
	if err != nil {
		return nil, 0, err
	}
	if !ok {
		return nil, HeadBytes, nil
	}
	size = end + crc32.Size
	if size > int64(len(b)) {
		return nil, size, nil
	}
	if Sum(b[start:end]) != binary.BigEndian.Uint32(b[end:size]) {
		return nil, 0, ErrChecksum
	}
	return b[start:end], size, nil
}

// Strip returns the content of a whole record that Content has checked before.
func (k Frame) Strip(record []byte) []byte {
	start, _, _, _ := k.bounds(record)
	return record[start : len(record)-crc32.Size]
}
