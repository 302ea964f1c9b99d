package indexheader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/prometheus/prometheus/tsdb/encoding"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
)

// The file (docs/formats/index-header.md); integers are big endian, CRCs are CRC32C:
//
//	┌─────────────┬────────────┬──────────────────┬──────────┬────────────────┐
//	│ magic <4b>  │ version=1  │ index version <1b│ zero <2b>│ index size <8b>│  16 bytes
//	├─────────────┴────────────┴──────────────────┴──────────┴────────────────┤
//	│ symbol groups:   ( len <uvarint> string )×≤32              CRC <4b>      │
//	├──────────────────────────────────────────────────────────────────────────┤
//	│ posting groups:  ( len <uvarint> value                                   │
//	│                    offset <uvarint> length <uvarint> )×≤32 CRC <4b>      │
//	├──────────────────────────────────────────────────────────────────────────┤
//	│ directory (see directory.encode)                                         │
//	├──────────────────────────────────────────────────────────────────────────┤
//	│ directory offset <8b> │ directory length <8b> │ directory CRC <4b>        │
//	│ CRC of the first 16 and these 20 bytes <4b>   │ magic <4b>               │  28 bytes
//	└──────────────────────────────────────────────────────────────────────────┘
//
// Symbols stand in the order of the index, which numbers them. Posting groups
// hold the values of one label name, sorted; names are sorted, the first one is
// the empty name with all series. Offset and length are those of a postings
// list in the index. A group is what one pread reads; the directory, which is
// all that stays in memory, knows where each group starts and its first value.
const (
	magic        = 0xF19A11DE
	version      = 1
	indexVersion = layout.IndexVersion
	headLen      = 16
	trailerLen   = 28
	groupSize    = 32
)

// errDamaged marks a header file that can't be used: torn, flipped, of another
// version or of another index. It is built again; nobody sees this error.
var errDamaged = errors.New("index header damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errDamaged}, args...)...)
}

func crcOf(b []byte) uint32 { return layout.Sum(b) }

// directory is the part of the file that stays in memory while a header is loaded.
type directory struct {
	series  fetch.Span // where the index keeps its series
	symbols int        // how many there are
	groups  []int64    // offsets of the symbol groups, and the end of the last
	names   []nameEntry
}

// nameEntry is what the directory knows of one label name.
type nameEntry struct {
	name   string
	values int      // how many
	first  []string // value of each group
	groups []int64  // offsets of the groups, and the end of the last
}

// find returns the entry of a label name, or nil.
func (d *directory) find(name string) *nameEntry {
	i := sort.Search(len(d.names), func(i int) bool { return d.names[i].name >= name })
	if i == len(d.names) || d.names[i].name != name {
		return nil
	}
	return &d.names[i]
}

// group is the number of the group that would hold value, -1 before the first.
func (e *nameEntry) group(value string) int {
	return sort.Search(len(e.first), func(i int) bool { return e.first[i] > value }) - 1
}

// encode writes
//
//	series start, series end <uvarint>
//	symbols <uvarint>, then the length of each symbol group <uvarint>
//	names <uvarint>, for each: name, values <uvarint>,
//	    then for each of its groups: length <uvarint>, first value
//
// where strings have a uvarint length before them.
func (d *directory) encode() []byte {
	var b encoding.Encbuf
	b.PutUvarint64(uint64(d.series.Start))
	b.PutUvarint64(uint64(d.series.End))
	b.PutUvarint(d.symbols)
	for i := range groupsOf(d.symbols) {
		b.PutUvarint64(uint64(d.groups[i+1] - d.groups[i]))
	}
	b.PutUvarint(len(d.names))
	for _, n := range d.names {
		b.PutUvarintStr(n.name)
		b.PutUvarint(n.values)
		for i, first := range n.first {
			b.PutUvarint64(uint64(n.groups[i+1] - n.groups[i]))
			b.PutUvarintStr(first)
		}
	}
	return b.Get()
}

func groupsOf(entries int) int { return (entries + groupSize - 1) / groupSize }

// decodeDirectory reads what encode wrote. Groups lie in [headLen, end).
func decodeDirectory(b []byte, end int64) (*directory, error) {
	d := encoding.Decbuf{B: b}
	dir := &directory{}
	dir.series.Start, dir.series.End = int64(d.Uvarint64()), int64(d.Uvarint64())
	dir.symbols = d.Uvarint()
	// Each group takes at least a byte here, so no count makes us reserve more than the input is long.
	if d.Err() != nil || dir.symbols < 0 || dir.symbols > groupSize*d.Len() {
		return nil, damaged("directory: symbols")
	}
	at := int64(headLen)
	next := func() (int64, error) {
		n := d.Uvarint64()
		if d.Err() != nil || n < 4 || n > uint64(end-at) {
			return 0, damaged("directory: group of %d bytes at %d", n, at)
		}
		at += int64(n)
		return at, nil
	}
	dir.groups = append(make([]int64, 0, groupsOf(dir.symbols)+1), at)
	for range groupsOf(dir.symbols) {
		to, err := next()
		if err != nil {
			return nil, err
		}
		dir.groups = append(dir.groups, to)
	}
	names := d.Uvarint()
	if d.Err() != nil || names < 0 || names > d.Len() {
		return nil, damaged("directory: names")
	}
	for range names {
		e := nameEntry{name: string(d.UvarintBytes()), values: d.Uvarint(), groups: []int64{at}}
		if d.Err() != nil || e.values < 1 || e.values > groupSize*d.Len() {
			return nil, damaged("directory: label name")
		}
		for range groupsOf(e.values) {
			to, err := next()
			if err != nil {
				return nil, err
			}
			e.groups, e.first = append(e.groups, to), append(e.first, string(d.UvarintBytes()))
		}
		dir.names = append(dir.names, e)
	}
	if d.Err() != nil || d.Len() != 0 || at != end {
		return nil, damaged("directory: end")
	}
	return dir, nil
}

// encodeHead writes the first 16 bytes.
func encodeHead(indexSize int64) []byte {
	b := binary.BigEndian.AppendUint32(nil, magic)
	b = append(b, version, indexVersion, 0, 0)
	return binary.BigEndian.AppendUint64(b, uint64(indexSize))
}

// encodeTrailer writes the last 28 bytes.
func encodeTrailer(head []byte, dirOffset int64, dir []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(dirOffset))
	b = binary.BigEndian.AppendUint64(b, uint64(len(dir)))
	b = binary.BigEndian.AppendUint32(b, crcOf(dir))
	b = binary.BigEndian.AppendUint32(b, crcOf(append(append([]byte{}, head...), b...)))
	return binary.BigEndian.AppendUint32(b, magic)
}

// decodeEnds checks head and trailer of a file of size bytes against each other
// and the index; it returns where the directory is and its checksum.
func decodeEnds(head, trailer []byte, size, indexSize int64) (dir fetch.Span, crc uint32, err error) {
	switch {
	case binary.BigEndian.Uint32(head) != magic || binary.BigEndian.Uint32(trailer[24:]) != magic:
		return dir, 0, damaged("magic number")
	case head[4] != version || head[5] != indexVersion:
		return dir, 0, damaged("version %d of index version %d", head[4], head[5])
	case crcOf(append(append([]byte{}, head...), trailer[:20]...)) != binary.BigEndian.Uint32(trailer[20:]):
		return dir, 0, damaged("checksum of head and trailer")
	case int64(binary.BigEndian.Uint64(head[8:])) != indexSize:
		return dir, 0, damaged("built from an index of %d bytes, not %d", binary.BigEndian.Uint64(head[8:]), indexSize)
	}
	at, n := binary.BigEndian.Uint64(trailer), binary.BigEndian.Uint64(trailer[8:])
	if at < headLen || at+n != uint64(size-trailerLen) || at > uint64(size) || n > uint64(size) {
		return dir, 0, damaged("directory out of bounds")
	}
	return fetch.Span{Start: int64(at), End: int64(at + n)}, binary.BigEndian.Uint32(trailer[16:]), nil
}

// posting is an entry of a posting group.
type posting struct {
	value string
	span  fetch.Span // of the list in the index
}

// checkGroup verifies a group's CRC and returns its content.
func checkGroup(b []byte) ([]byte, error) {
	n := len(b) - 4
	if n < 0 || crcOf(b[:n]) != binary.BigEndian.Uint32(b[n:]) {
		return nil, damaged("checksum of a group")
	}
	return b[:n], nil
}

// decodePostings appends the entries of a group to out.
func decodePostings(b []byte, out []posting) ([]posting, error) {
	b, err := checkGroup(b)
	if err != nil {
		return nil, err
	}
	for d := (encoding.Decbuf{B: b}); d.Len() > 0; {
		p := posting{value: string(d.UvarintBytes())}
		at, n := d.Uvarint64(), d.Uvarint64()
		if d.Err() != nil || at > 1<<62 || n > 1<<62 {
			return nil, damaged("posting group")
		}
		p.span = fetch.Span{Start: int64(at), End: int64(at + n)}
		out = append(out, p)
	}
	return out, nil
}

// decodeSymbols calls f for each symbol of a group; n is its place in the group.
func decodeSymbols(b []byte, f func(n int, symbol []byte)) error {
	b, err := checkGroup(b)
	if err != nil {
		return err
	}
	d := encoding.Decbuf{B: b}
	for n := 0; d.Len() > 0; n++ {
		s := d.UvarintBytes()
		if d.Err() != nil {
			return damaged("symbol group")
		}
		f(n, s)
	}
	return nil
}
