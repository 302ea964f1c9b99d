package layout

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// AllPostingsBytes are as many of a postings offset table as AllPostings needs.
const AllPostingsBytes = 8 + 3 + binary.MaxVarintLen64

// AllPostings finds, in the first bytes of a postings offset table, the list of
// all series: it belongs to the empty name and value, and so comes first. ok is
// false where the table has no entries.
func AllPostings(table []byte) (offset int64, ok bool, err error) {
	if len(table) < 8 {
		return 0, false, ErrLength
	}
	if binary.BigEndian.Uint32(table[4:]) == 0 {
		return 0, false, nil
	}
	c := cursor{b: table[8:]}
	keys, name, value, at := c.uvarint(), c.uvarint(), c.uvarint(), c.uvarint()
	if c.broken || keys != 2 || name != 0 || value != 0 {
		return 0, false, errors.New("the first entry of the postings offset table is not that of all series")
	}
	return int64(at), true, nil
}

// PostingsHeadLen is what stands before the references of a postings list:
// length 4b | count 4b. A reference has 4 bytes.
const (
	PostingsHeadLen = 8
	RefLen          = 4
)

// PostingsCount reads how many references a list has off its first bytes.
func PostingsCount(list []byte) (int64, error) {
	if len(list) < PostingsHeadLen {
		return 0, ErrLength
	}
	length, count := int64(binary.BigEndian.Uint32(list)), int64(binary.BigEndian.Uint32(list[4:]))
	if length != 4+RefLen*count {
		return 0, ErrLength
	}
	return count, nil
}

// PostingsLen is how long a list of count references is, its checksum included.
func PostingsLen(count int64) int64 { return PostingsHeadLen + RefLen*count + crc32.Size }

// SeriesOffset is where the series of a reference of a postings list begins.
func SeriesOffset(ref []byte) int64 { return RefUnit * int64(binary.BigEndian.Uint32(ref)) }
