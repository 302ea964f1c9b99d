package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// The wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireGroup   = 3
	wireEnd     = 4
	wireFixed32 = 5
)

// scanner walks the fields of a protobuf message in place. It takes what the
// code that Prometheus generates takes: unknown fields and groups are passed over, a known
// field of another wire type is an error, and so is what ends too early.
//
// The first error sticks and ends every loop over more(): callers look at err
// once, at the end.
type scanner struct {
	b        []byte
	i, end   int // next byte; end of the message that is read. Invariant: i <= end <= len(b)
	protocol string
	err      error
}

// more tells whether the message has another field.
func (s *scanner) more() bool { return s.i < s.end && s.err == nil }

// bad records that the bytes at the current position make no sense.
func (s *scanner) bad(format string, args ...any) { s.badAt(s.i, format, args...) }

func (s *scanner) badAt(at int, format string, args ...any) {
	if s.err == nil {
		s.err = refuse.Errorf(refuse.BadRequest, "", "malformed %s at byte %d: %s", s.protocol, at, fmt.Sprintf(format, args...))
	}
}

// tooLarge records that the request exceeds a limit.
func (s *scanner) tooLarge(format string, args ...any) {
	if s.err == nil {
		s.err = refuse.Errorf(refuse.RequestTooLarge, "", "%s at byte %d: %s", s.protocol, s.i, fmt.Sprintf(format, args...))
	}
}

// varint reads a varint. Bits beyond 64 are dropped.
func (s *scanner) varint() uint64 {
	if s.i < s.end {
		if c := s.b[s.i]; c < 0x80 {
			s.i++
			return uint64(c)
		}
	}
	return s.longVarint()
}

func (s *scanner) longVarint() uint64 {
	var v uint64
	b := s.b[s.i:s.end]
	for k := 0; k < len(b) && k < 10; k++ {
		c := b[k]
		v |= uint64(c&0x7f) << (7 * k)
		if c < 0x80 {
			s.i += k + 1
			return v
		}
	}
	if len(b) >= 10 {
		s.bad("a varint of more than 10 bytes")
	} else {
		s.bad("it ends within a varint")
	}
	return 0
}

// tag reads the number and wire type of the next field. After an error the
// number is one that nobody knows, and skip does nothing.
func (s *scanner) tag() (num int32, wire int) {
	at := s.i
	t := s.varint()
	num, wire = int32(t>>3), int(t&7)
	if num <= 0 || wire == wireEnd || s.err != nil {
		s.badAt(at, "field number %d, wire type %d", num, wire)
		return math.MaxInt32, wireVarint
	}
	return num, wire
}

// is reports whether a known field has its wire type, and records it if not.
func (s *scanner) is(wire, want int) bool {
	if wire != want {
		s.bad("wire type %d where %d is expected", wire, want)
	}
	return wire == want
}

// length reads the length of what follows and checks that it is there.
func (s *scanner) length() int {
	at := s.i
	n := s.varint()
	if n > uint64(s.end-s.i) {
		s.badAt(at, "a field of %d bytes where %d are left", n, s.end-s.i)
		return 0
	}
	return int(n)
}

// enter begins the message whose length comes next. It returns what leave wants.
func (s *scanner) enter() (outer int) {
	outer = s.end
	n := s.length()
	s.end = s.i + n
	return outer
}

// leave ends a message.
func (s *scanner) leave(outer int) { s.i, s.end = s.end, outer }

// bytes reads a field of bytes. The result is part of the body.
func (s *scanner) bytes() []byte {
	n := s.length()
	b := s.b[s.i : s.i+n]
	s.i += n
	return b
}

func (s *scanner) fixed64() uint64 {
	if s.end-s.i < 8 {
		s.bad("8 bytes are expected where %d are left", s.end-s.i)
		return 0
	}
	v := binary.LittleEndian.Uint64(s.b[s.i:])
	s.i += 8
	return v
}

func (s *scanner) double() float64 { return math.Float64frombits(s.fixed64()) }

// skip passes over a field that nobody knows, groups included.
func (s *scanner) skip(wire int) {
	for depth := 0; s.err == nil; {
		switch wire {
		case wireVarint:
			s.varint()
		case wireFixed64:
			s.pass(8)
		case wireBytes:
			s.pass(s.length())
		case wireFixed32:
			s.pass(4)
		case wireGroup:
			depth++
		case wireEnd:
			depth--
		default:
			s.bad("wire type %d", wire)
		}
		if depth <= 0 {
			return
		}
		if s.i >= s.end {
			s.bad("it ends within a group")
		}
		wire = int(s.varint() & 7)
	}
}

func (s *scanner) pass(n int) {
	if n > s.end-s.i {
		s.bad("%d bytes are expected where %d are left", n, s.end-s.i)
		return
	}
	s.i += n
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
