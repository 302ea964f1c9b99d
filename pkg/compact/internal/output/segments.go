package output

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// segments writes the files under chunks/:
//
//	┌────────────────────────┬────────────┬─────────────┬───────┬───┐
//	│ magic 0x85BD40DD <4>   │ version <1>│ padding <3> │ chunk │ … │
//	└────────────────────────┴────────────┴─────────────┴───────┴───┘
//	chunk: len(data) <uvarint> │ encoding <1> │ data │ CRC-32C of encoding and data <4>
//
// A chunk's reference is the index of its segment, from 0, in the upper 32 bits,
// and its offset there in the lower ones.
type segments struct {
	open  opener
	dir   string
	limit int64 // bytes of a segment

	file *file     // the one being written; nil before the first chunk
	done []written // those before it

	next    uint64 // what a reference must be below
	longest int64  // chunk with length and checksum, bytes
}

// segmentVersion is the only version of segment files there is.
const segmentVersion = 1

func (s *segments) add(enc chunkenc.Encoding, data []byte) (uint64, error) {
	if len(data) > chunks.DefaultChunkSegmentSize {
		return 0, fmt.Errorf("%w: chunk of %d bytes", ErrTooLarge, len(data))
	}
	// The length counts as its longest form, as in the TSDB's writer.
	need := chunks.MaxChunkLengthFieldSize + chunks.ChunkEncodingSize + len(data) + crc32.Size
	if s.file == nil || s.file.pos() > chunks.SegmentHeaderSize && s.file.pos()+int64(need) > s.limit {
		if err := s.cut(); err != nil {
			return 0, err
		}
	}
	f := s.file
	if err := f.room(need); err != nil {
		return 0, err
	}
	start := f.pos()
	f.buf = binary.AppendUvarint(f.buf, uint64(len(data)))
	body := len(f.buf)
	f.buf = append(f.buf, byte(enc))
	f.buf = append(f.buf, data...)
	f.buf = binary.BigEndian.AppendUint32(f.buf, checksum(0, f.buf[body:]))

	segment := uint64(len(s.done))
	s.longest = max(s.longest, f.pos()-start)
	s.next = segment<<32 | uint64(f.pos())
	return segment<<32 | uint64(start), nil
}

// cut ends the segment being written and begins the next one.
func (s *segments) cut() error {
	var buf []byte
	if s.file == nil {
		buf = make([]byte, 0, segmentBuffer)
	} else {
		buf = s.file.buf // the next one's as well
		if err := s.end(); err != nil {
			return err
		}
	}
	f, err := newFile(s.open, filepath.Join(s.dir, segmentName(len(s.done))), 1<<32, buf)
	if err != nil {
		return err
	}
	s.file = f
	f.buf = binary.BigEndian.AppendUint32(f.buf, chunks.MagicChunks)
	f.buf = append(f.buf, segmentVersion, 0, 0, 0)
	return nil
}

func (s *segments) end() error {
	f := s.file
	s.file = nil
	if err := f.finish(); err != nil {
		return err
	}
	s.done = append(s.done, f.written())
	return nil
}

// finish ends the last segment.
func (s *segments) finish() error {
	if s.file == nil {
		return nil
	}
	return s.end()
}

// close lets go of the segment being written.
func (s *segments) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// segmentName is the name of the segment with this index, from 0.
func segmentName(index int) string { return fmt.Sprintf("%06d", index+1) }
