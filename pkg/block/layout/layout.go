// Package layout knows where the bytes of a block's index and segments are:
// sections, records with their lengths and checksums, and what a series entry
// says. The format is Prometheus', index version 2 and segments version 1.
//
// It does no I/O and keeps nothing; what it returns shares the memory it was
// given. Its errors say what is wrong with the bytes; the caller, who knows
// object and offset, adds those.
package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// What every index and segment has.
const (
	IndexVersion   = index.FormatV2
	IndexHeadLen   = 5 // magic 4b | version 1b
	SegmentVersion = 1
	SegmentHeadLen = chunks.SegmentHeaderSize // magic 4b | version 1b | zero 3b
	TOCLen         = 6*8 + crc32.Size
	RefUnit        = 16 // a series reference counts these; every entry begins at a multiple of it
)

// Errors of bytes that have the wrong checksum or an impossible length.
var (
	ErrChecksum = errors.New("checksum mismatch")
	ErrLength   = errors.New("length out of bounds")
)

// Sum is the checksum that all of the format has: CRC32C.
func Sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Span is the bytes [Start, End) of an object.
type Span struct{ Start, End int64 }

// Len is how many bytes that are.
func (s Span) Len() int64 { return s.End - s.Start }

// AlignSeries is the first offset from at on where a series entry can begin.
func AlignSeries(at int64) int64 { return (at + RefUnit - 1) / RefUnit * RefUnit }

// TOC is where the sections of an index are. A section ends where the next one
// begins, so that there may be padding in it.
type TOC struct{ Symbols, Series, Postings, PostingsTable Span }

// ParseTOC reads the last TOCLen bytes of an index that is size bytes long.
// Sections are in order and within the index.
func ParseTOC(b []byte, size int64) (TOC, error) {
	if len(b) != TOCLen || size < IndexHeadLen+TOCLen {
		return TOC{}, fmt.Errorf("table of contents: %w", ErrLength)
	}
	if Sum(b[:TOCLen-crc32.Size]) != binary.BigEndian.Uint32(b[TOCLen-crc32.Size:]) {
		return TOC{}, fmt.Errorf("table of contents: %w", ErrChecksum)
	}
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) } // huge offsets become negative
	symbols, series, labels, labelsTable, postings, table := at(0), at(1), at(2), at(3), at(4), at(5)
	end := size - TOCLen
	if symbols < IndexHeadLen || series < symbols || postings < series || table < postings || table >= end {
		return TOC{}, errors.New("table of contents: sections out of order")
	}
	toc := TOC{Span{symbols, series}, Span{series, postings}, Span{postings, table}, Span{table, end}}
	if labels > series && labels < postings { // indices of label values, which nobody reads any more
		toc.Series.End = labels
	}
	if labelsTable > postings && labelsTable < table {
		toc.Postings.End = labelsTable
	}
	return toc, nil
}

// IndexHead checks the first bytes of an index and returns its version.
func IndexHead(b []byte) (version byte, err error) {
	return head(b, IndexHeadLen, index.MagicIndex)
}

// SegmentHead checks the first bytes of a segment and returns its version.
func SegmentHead(b []byte) (version byte, err error) {
	return head(b, SegmentHeadLen, chunks.MagicChunks)
}

func head(b []byte, length int, magic uint32) (version byte, err error) {
	if len(b) < length {
		return 0, ErrLength
	}
	if got := binary.BigEndian.Uint32(b); got != magic {
		return 0, fmt.Errorf("magic number %08x instead of %08x", got, magic)
	}
	return b[4], nil
}
