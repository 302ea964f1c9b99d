package layout

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Label is a label as numbers into the symbols of its index.
type Label struct{ Name, Value uint32 }

// Chunk is where a chunk lies and the time it spans, ms, both inclusive.
type Chunk struct {
	MinTime, MaxTime int64
	Ref              uint64 // number of the segment, from 0, <<32 | offset
}

// Series is one series entry of an index.
type Series struct {
	Labels []Label
	Chunks []Chunk
}

// Decode reads the content of a SeriesRecord into s, whose slices it uses again.
// Label names ascend and no chunk ends before it begins; chunks may overlap
// and be out of order, which a compactor mends.
func (s *Series) Decode(content []byte) error {
	c := cursor{b: content}
	if err := s.decodeLabels(&c); err != nil {
		return err
	}
	if err := s.decodeChunks(&c); err != nil {
		return err
	}
	if len(c.b) > 0 {
		return fmt.Errorf("%d bytes behind the last chunk", len(c.b))
	}
	return nil
}

func (s *Series) decodeLabels(c *cursor) error {
	n := c.uvarint()
	s.Labels = s.Labels[:0]
	if c.broken || n > uint64(len(c.b)/2) { // each takes two bytes at least: no count takes memory the input doesn't justify
		return fmt.Errorf("%d labels in %d bytes", n, len(c.b))
	}
	s.Labels = slices.Grow(s.Labels, int(n))
	last := int64(-1)
	for range n {
		name, value := c.uvarint(), c.uvarint()
		if c.broken || name >= 1<<32 || value >= 1<<32 || int64(name) <= last {
			return fmt.Errorf("label %d broken or out of order", len(s.Labels))
		}
		last = int64(name)
		s.Labels = append(s.Labels, Label{Name: uint32(name), Value: uint32(value)})
	}
	return nil
}

func (s *Series) decodeChunks(c *cursor) error {
	n := c.uvarint()
	s.Chunks = s.Chunks[:0]
	if c.broken || n > uint64(len(c.b)/3) {
		return fmt.Errorf("%d chunks in %d bytes", n, len(c.b))
	}
	s.Chunks = slices.Grow(s.Chunks, int(n))
	var last Chunk
	for i := range n {
		var next Chunk
		if i == 0 {
			next.MinTime = c.varint()
			next.MaxTime = next.MinTime + int64(c.uvarint())
			next.Ref = c.uvarint()
		} else { // sums wrap where chunks are out of order
			next.MinTime = last.MaxTime + int64(c.uvarint())
			next.MaxTime = next.MinTime + int64(c.uvarint())
			next.Ref = last.Ref + uint64(c.varint())
		}
		if c.broken || next.MinTime > next.MaxTime {
			return fmt.Errorf("chunk %d broken or ends before it begins", i)
		}
		last = next
		s.Chunks = append(s.Chunks, next)
	}
	return nil
}

// cursor reads numbers off b, whose rest it keeps. After a broken one all are 0.
type cursor struct {
	b      []byte
	broken bool
}

// uvarint is small enough to be inlined; most numbers have one byte.
func (c *cursor) uvarint() uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return uint64(v)
	}
	return c.long()
}

func (c *cursor) long() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.b, c.broken = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}
