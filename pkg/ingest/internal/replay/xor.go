package replay

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// xorChunk is an open chunk of floats, byte for byte as chunkenc.XORChunk has it:
//
//	number of samples u16
//	first:  time varint, value 64 bits
//	second: time since the first uvarint, value by its difference
//	others: change of that time (bits below), value by its difference
//
//	change       0: 0     14 bits: 10     17: 110     20: 1110     64: 1111
//	difference   none: 0  within the bits of the last one: 10  else: 11, leading zeros (5 bits), width (6 bits)
//
// It is not an appender of package chunkenc, since samples come series after series,
// and each touches other memory: what an append needs is in one line of the cache
// here, and the bytes are touched once for eight of them.
type xorChunk struct {
	buf      []byte // the header, and words that are full
	word     uint64 // bits that come next, highest first
	value    uint64 // newest
	delta    uint64 // between the times of the newest two
	samples  uint16
	used     uint8 // bits of word
	leading  uint8
	trailing uint8
}

const (
	xorHeader   = 2
	xorCapacity = 128
	noLeading   = 0xff // no difference was written yet
)

// begin makes it empty. What was in its bytes is overwritten.
func (c *xorChunk) begin() {
	if c.buf == nil {
		c.buf = make([]byte, xorHeader, xorCapacity)
	}
	*c = xorChunk{buf: c.buf[:xorHeader], leading: noLeading}
}

// size is that of its bytes.
func (c *xorChunk) size() int { return len(c.buf) + int(c.used+7)/8 }

// bytes returns what was appended. They are good until the next append.
func (c *xorChunk) bytes() []byte {
	binary.BigEndian.PutUint16(c.buf, c.samples)
	var tail [8]byte
	binary.BigEndian.PutUint64(tail[:], c.word)
	return append(c.buf, tail[:(c.used+7)/8]...)
}

// append appends a sample that comes after one at the time before.
func (c *xorChunk) append(before, t int64, v float64) {
	value := math.Float64bits(v)
	delta := uint64(t - before)
	switch {
	case c.samples > 1 && delta == c.delta:
		c.difference(value, 1)
	case c.samples > 1:
		c.change(int64(delta - c.delta))
		c.difference(value, 0)
	case c.samples == 1:
		c.varint(delta)
		c.difference(value, 0)
	default:
		delta = 0
		c.varint(uint64(t)<<1 ^ uint64(t>>63))
		c.write(value, 64)
	}
	c.value, c.delta = value, delta
	c.samples++
}

func (c *xorChunk) varint(n uint64) {
	for ; n >= 0x80; n >>= 7 {
		c.write(n&0x7f|0x80, 8)
	}
	c.write(n, 8)
}

// change writes how much longer a time between samples was than the one before, if it was.
func (c *xorChunk) change(by int64) {
	switch {
	case fits(by, 14):
		c.write(0b10<<14|uint64(by)&(1<<14-1), 16)
	case fits(by, 17):
		c.write(0b110<<17|uint64(by)&(1<<17-1), 20)
	case fits(by, 20):
		c.write(0b1110<<20|uint64(by)&(1<<20-1), 24)
	default:
		c.write(0b1111, 4)
		c.write(uint64(by), 64)
	}
}

func fits(n int64, width uint) bool {
	return -(1<<(width-1)-1) <= n && n <= 1<<(width-1)
}

// difference writes a value by the bits in which it differs from the newest, after so
// many zeros.
func (c *xorChunk) difference(value uint64, zeros uint8) {
	diff := value ^ c.value
	if diff == 0 {
		c.write(0, zeros+1)
		return
	}
	leading, trailing := uint8(min(bits.LeadingZeros64(diff), 31)), uint8(bits.TrailingZeros64(diff))
	head, n := uint64(0b10), zeros+2
	if leading < c.leading || trailing < c.trailing { // or there was none yet
		c.leading, c.trailing = leading, trailing
		head, n = 0b11<<11|uint64(leading)<<6|uint64(64-leading-trailing)&63, zeros+13 // 64 is written as 0
	}
	width := 64 - c.leading - c.trailing
	if n+width <= 64 {
		c.write(head<<width|diff>>c.trailing, n+width)
		return
	}
	c.write(head, n)
	c.write(diff>>c.trailing, width)
}

// write writes the lowest n bits of v, up to 64. Those above them are zero.
func (c *xorChunk) write(v uint64, n uint8) {
	end := c.used + n
	if end < 64 {
		c.word |= v << (64 - end)
		c.used = end
		return
	}
	end -= 64
	c.buf = binary.BigEndian.AppendUint64(c.buf, c.word|v>>end)
	c.word = v << (64 - end)
	c.used = end
}
