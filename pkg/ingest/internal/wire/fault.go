package wire

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// snappyFault is the byte of a snappy block behind which it can't be decoded: that
// of the first element that is cut short, copies from before the beginning or holds more
// than the header says. Format: github.com/google/snappy, format_description.txt.
func snappyFault(src []byte) int {
	declared, at := binary.Uvarint(src)
	if at <= 0 {
		return 0
	}
	written := uint64(0)
	for at < len(src) {
		size, length, offset := snappyElement(src[at:])
		copied := src[at]&3 != 0
		if size == 0 || size > len(src)-at || written+length > declared || copied && (offset == 0 || offset > written) {
			return at
		}
		at += size
		written += length
	}
	return at
}

// snappyElement is what an element takes in a block, what it makes, and how far back it
// copies from. A size of 0 says that its own length is cut short.
func snappyElement(b []byte) (size int, length, offset uint64) {
	tag := b[0]
	extra := [4]int{0, 1, 2, 4}[tag&3] // bytes behind the tag
	if n := int(tag >> 2); tag&3 == 0 && n >= 60 {
		extra = n - 59
	}
	if len(b) < 1+extra {
		return 0, 0, 0
	}
	var behind [8]byte
	copy(behind[:], b[1:1+extra])
	n := binary.LittleEndian.Uint64(behind[:])
	switch {
	case tag&3 == 0 && extra > 0:
		return literalSize(1+extra, n+1)
	case tag&3 == 0:
		return literalSize(1, uint64(tag>>2)+1)
	case tag&3 == 1:
		return 2, uint64(tag>>2&7) + 4, uint64(tag>>5)<<8 | n
	}
	return 1 + extra, uint64(tag>>2) + 1, n
}

// literalSize is snappyElement for bytes that stand in the block, of which no body has a GiB.
func literalSize(head int, length uint64) (size int, _, _ uint64) {
	return head + int(min(length, 1<<30)), length, 0
}

// What the library's JSON reader tells about an error: where in an excerpt it is,
// and a larger excerpt, which begins so many bytes before it unless the body does.
const (
	jsonFound  = ", error found in #"
	jsonOf     = " byte of ...|"
	jsonBigger = "|..., bigger context ...|"
	jsonEnd    = "|..."
	jsonBefore = 50
)

// jsonFault takes the library's error on a body apart: what is wrong, and near which
// byte of the body, or -1. The library itself tells the place by excerpts alone.
func jsonFault(body []byte, err error) (what string, at int) {
	what, rest, ok := strings.Cut(err.Error(), jsonFound)
	if !ok {
		return what, -1
	}
	number, rest, _ := strings.Cut(rest, jsonOf)
	excerpt, bigger, ok := strings.Cut(rest, jsonBigger)
	n, noNumber := strconv.Atoi(number)
	if !ok || noNumber != nil {
		return what, -1
	}
	switch from := bytes.Index(body, []byte(strings.TrimSuffix(bigger, jsonEnd))); {
	case from < 0:
		return what, -1
	case from > 0:
		return what, from + jsonBefore
	}
	from := bytes.Index(body, []byte(excerpt))
	if from < 0 {
		return what, -1
	}
	return what, from + n
}
