package downsample

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// xorHeader is the length of the number of samples that a chunk begins with.
const xorHeader = 2

// AppendXOR decodes the bytes of a chunk of encoding chunkenc.EncXOR and appends
// its samples to ts and vs: as chunkenc's iterator would, several times faster.
// Whether the timestamps ascend is for the caller to check.
//
// Bytes that end too early, and value windows that no writer makes (wider than a
// value, or used again before there was one), are ErrCorrupt; ts and vs are then
// returned as they came. It never reads beyond chunk.
func AppendXOR(ts []int64, vs []float64, chunk []byte) ([]int64, []float64, error) {
	if len(chunk) < xorHeader {
		return ts, vs, fmt.Errorf("%w: XOR chunk of %d bytes", ErrCorrupt, len(chunk))
	}
	n := int(binary.BigEndian.Uint16(chunk))
	if n > 4*len(chunk) { // a sample has two bits at least: make no room for what can't be there
		return ts, vs, fmt.Errorf("%w: XOR chunk of %d bytes with %d samples", ErrCorrupt, len(chunk), n)
	}
	ts, vs = slices.Grow(ts, n), slices.Grow(vs, n)
	d := xorDecoder{stream: chunk[xorHeader:], leading: noWindow}
	done := d.decode(ts[len(ts):len(ts)+n], vs[len(vs):len(vs)+n])
	if done < n {
		return ts, vs, fmt.Errorf("%w: sample %d of %d in XOR chunk of %d bytes", ErrCorrupt, done, n, len(chunk))
	}
	return ts[:len(ts)+n], vs[:len(vs)+n], nil
}

// noWindow stands for the leading zeros of a value window that isn't there yet.
const noWindow = 0xff

// xorDecoder reads a bit stream by unaligned 64-bit loads.
type xorDecoder struct {
	stream            []byte
	pos               uint // bits read
	leading, trailing uint8
}

// decode fills ts and vs, which are of equal length, and returns how many
// samples could be read.
func (d *xorDecoder) decode(ts []int64, vs []float64) int {
	if len(ts) == 0 {
		return 0
	}
	t, n := binary.Varint(d.stream)
	if n <= 0 || len(d.stream) < n+8 {
		return 0
	}
	v := binary.BigEndian.Uint64(d.stream[n:])
	ts[0], vs[0] = t, math.Float64frombits(v)
	if len(ts) == 1 {
		return 1
	}
	delta, m := binary.Uvarint(d.stream[n+8:])
	if m <= 0 {
		return 1
	}
	d.pos = 8 * uint(n+8+m)
	v, ok := d.value(v, d.load(d.pos))
	if !ok {
		return 1
	}
	t += int64(delta)
	ts[1], vs[1] = t, math.Float64frombits(v)
	return 2 + d.rest(ts[2:], vs[2:], t, v, delta)
}

// rest decodes what follows the first two samples. One load has the bits of the
// timestamp, but for the rarest of its classes, and the control bits of the value.
func (d *xorDecoder) rest(ts []int64, vs []float64, t int64, v uint64, delta uint64) int {
	vs = vs[:len(ts)]
	for i := range ts {
		w := d.load(d.pos)
		if w>>63 != 0 {
			if w>>60 == 0b1111 {
				d.pos += 4
				delta += d.load64(d.pos)
				d.pos += 64
				w = d.load(d.pos)
			} else {
				dod, used := xorDelta(w)
				delta += dod
				d.pos += used
				w <<= used
			}
		} else {
			d.pos++
			w <<= 1
		}
		t += int64(delta)
		if w>>63 == 0 { // The value of before: no need to go on.
			d.pos++
			if d.pos > 8*uint(len(d.stream)) {
				return i
			}
		} else {
			var ok bool
			if v, ok = d.value(v, w); !ok {
				return i
			}
		}
		ts[i], vs[i] = t, math.Float64frombits(v)
	}
	return len(ts)
}

// xorDelta returns the change of delta that the bits at the top of w stand for, in
// the three classes of 14, 17 and 20 bits, and how many bits it takes.
func xorDelta(w uint64) (dod uint64, used uint) {
	class := uint(bits.LeadingZeros64(^w)) // ones before the first zero: 1, 2 or 3
	size := 11 + 3*class
	used = class + 1 + size
	x := w << (class + 1) >> (64 - size)
	// Of 2^size numbers the upper half but its first stands for negative ones.
	if x > 1<<(size-1) {
		x -= 1 << size
	}
	return x, used
}

// value decodes the value at d.pos, whose first 13 bits stand at the top of w.
func (d *xorDecoder) value(v, w uint64) (uint64, bool) {
	switch w >> 62 {
	case 0b00, 0b01:
		d.pos++
		return v, d.pos <= 8*uint(len(d.stream))
	case 0b10:
		if d.leading == noWindow {
			return v, false
		}
		d.pos += 2
	default:
		leading, size := uint8(w>>57&31), uint8(w>>51&63)
		if size == 0 {
			size = 64
		}
		if leading+size > 64 {
			return v, false
		}
		d.leading, d.trailing = leading, 64-leading-size
		d.pos += 13
	}
	size := uint(64 - d.leading - d.trailing)
	var x uint64
	if size <= 57 {
		x = d.load(d.pos)
	} else {
		x = d.load64(d.pos)
	}
	d.pos += size
	return v ^ x>>(64-size)<<d.trailing, d.pos <= 8*uint(len(d.stream))
}

// load returns the bits from pos on, at the top of a word: 57 of them at least,
// zeros where the stream has ended.
func (d *xorDecoder) load(pos uint) uint64 {
	i := pos >> 3
	if i+8 <= uint(len(d.stream)) {
		return binary.BigEndian.Uint64(d.stream[i:]) << (pos & 7)
	}
	return d.loadEnd(i) << (pos & 7)
}

// loadEnd is load of the last bytes of the stream.
func (d *xorDecoder) loadEnd(i uint) uint64 {
	var b [8]byte
	if i < uint(len(d.stream)) {
		copy(b[:], d.stream[i:])
	}
	return binary.BigEndian.Uint64(b[:])
}

// load64 returns all 64 bits from pos on.
func (d *xorDecoder) load64(pos uint) uint64 {
	return d.load(pos) | d.load(pos+32)>>32
}

// AppendXORChunk appends the bytes of a chunk of encoding chunkenc.EncXOR that
// holds the samples, at most 65,535: the same bytes as chunkenc's appender writes.
func AppendXORChunk(dst []byte, ts []int64, vs []float64) []byte {
	e := xorEncoder{out: binary.BigEndian.AppendUint16(dst, uint16(len(ts))), leading: noWindow}
	vs = vs[:len(ts)]
	var delta uint64
	for i, t := range ts {
		switch i {
		case 0:
			e.out = binary.AppendVarint(e.out, t)
			e.out = binary.BigEndian.AppendUint64(e.out, math.Float64bits(vs[0]))
			continue
		case 1:
			delta = uint64(t - ts[0])
			e.out = binary.AppendUvarint(e.out, delta)
		default:
			next := uint64(t - ts[i-1])
			e.delta(int64(next - delta))
			delta = next
		}
		e.value(math.Float64bits(vs[i]) ^ math.Float64bits(vs[i-1]))
	}
	return e.end()
}

// xorEncoder collects bits in a word and writes it when it is full.
type xorEncoder struct {
	out               []byte
	word              uint64 // its lowest held bits are still to be written
	held              uint   // < 64
	leading, trailing uint8
}

// bits writes the lowest n bits of x, n ≤ 64. The others of x are zero.
func (e *xorEncoder) bits(x uint64, n uint) {
	if e.held+n < 64 {
		e.word = e.word<<n | x
		e.held += n
		return
	}
	over := e.held + n - 64
	e.out = binary.BigEndian.AppendUint64(e.out, e.word<<(n-over)|x>>over)
	e.word, e.held = x&(1<<over-1), over
}

// end writes the bits that are held, with zeros up to a full byte.
func (e *xorEncoder) end() []byte {
	for ; e.held >= 8; e.held -= 8 {
		e.out = append(e.out, byte(e.word>>(e.held-8)))
	}
	if e.held > 0 {
		e.out = append(e.out, byte(e.word<<(8-e.held)))
	}
	return e.out
}

// delta writes how the distance of two timestamps differs from that of the two before.
func (e *xorEncoder) delta(dod int64) {
	switch {
	case dod == 0:
		e.bits(0, 1)
	case fits(dod, 14):
		e.bits(0b10<<14|uint64(dod)&(1<<14-1), 2+14)
	case fits(dod, 17):
		e.bits(0b110<<17|uint64(dod)&(1<<17-1), 3+17)
	case fits(dod, 20):
		e.bits(0b1110<<20|uint64(dod)&(1<<20-1), 4+20)
	default:
		e.bits(0b1111, 4)
		e.bits(uint64(dod), 64)
	}
}

// fits tells whether dod is among the 2^n numbers of its class; see xorDelta.
func fits(dod int64, n uint) bool {
	return -(1<<(n-1)-1) <= dod && dod <= 1<<(n-1)
}

// value writes how a value differs from the one before.
func (e *xorEncoder) value(x uint64) {
	if x == 0 {
		e.bits(0, 1)
		return
	}
	leading, trailing := uint8(min(bits.LeadingZeros64(x), 31)), uint8(bits.TrailingZeros64(x))
	if e.leading != noWindow && leading >= e.leading && trailing >= e.trailing {
		e.bits(0b10, 2)
		e.bits(x>>e.trailing, uint(64-e.leading-e.trailing))
		return
	}
	e.leading, e.trailing = leading, trailing
	size := uint(64 - leading - trailing)
	e.bits(0b11<<11|uint64(leading)<<6|uint64(size)&63, 13) // 64 is written as 0
	e.bits(x>>trailing, size)
}
