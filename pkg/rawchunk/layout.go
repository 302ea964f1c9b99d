package rawchunk

import (
	"encoding/binary"
	"fmt"
)

// checkLayout refuses a histogram chunk that announces more buckets than it has
// bits for. An iterator of package chunkenc makes room for all that are
// announced, up to 128 GiB for a span of a few bytes, before it reads the first.
//
//	┌───────────┬───────┬────────────────┬────────┬────────────────┬────────────────┬───┐
//	│ samples 2 │ flags │ zero threshold │ schema │ positive spans │ negative spans │ … │
//	└───────────┴───────┴────────────────┴────────┴────────────────┴────────────────┴───┘
//
// From the schema on fields have as many bits as they need. Spans are their
// number and then, each, its length and offset.
func checkLayout(data []byte) error {
	if binary.BigEndian.Uint16(data) == 0 {
		return nil // nothing will be read
	}
	r := bitReader{data: data[headerWithFlags:]}
	if r.bits(8) == 255 {
		r.bits(64) // a threshold that is no power of two
	}
	r.number()
	buckets := uint64(0)
	for range 2 {
		for n := r.number(); n > 0 && !r.over; n-- {
			buckets += uint64(uint32(r.number()))
			r.number()
		}
	}
	if r.over || buckets > 8*uint64(len(data)) {
		return fmt.Errorf("histogram chunk of %d bytes announces %d buckets", len(data), buckets)
	}
	return nil
}

// bitReader reads bits, highest first.
type bitReader struct {
	data []byte
	at   int  // bits read
	over bool // beyond the end, where there are zeros
}

func (r *bitReader) bits(n int) (v uint64) {
	for range n {
		bit := byte(0)
		if i := r.at / 8; i < len(r.data) {
			bit = r.data[i] >> (7 - r.at%8) & 1
		} else {
			r.over = true
		}
		v = v<<1 | uint64(bit)
		r.at++
	}
	return v
}

// number reads a field of variable size: as many ones as tell the size, a zero
// but behind eight ones, and the value.
func (r *bitReader) number() uint64 {
	sizes := [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}
	ones := 0
	for ones < len(sizes)-1 && r.bits(1) == 1 {
		ones++
	}
	return r.bits(sizes[ones])
}
