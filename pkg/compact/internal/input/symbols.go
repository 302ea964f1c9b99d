package input

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/firnline/firnline/pkg/block/layout"
)

// SymbolStream reads the symbols of an index in order. Only when Next has said
// false without an error is it known that all of them were right.
type SymbolStream struct {
	ctx   context.Context // an iterator's: for as long as it is read
	block *Block
	s     *stream

	begun bool
	pos   int64  // offset behind the symbol at hand
	end   int64  // of the section's content
	left  uint32 // symbols to come
	read  uint32 // symbols so far
	at    []byte
	last  []byte // the symbol before
	err   error

	rest   []byte // content from pos on, as far as it is in memory
	summed []byte // content that is not in sum yet; rest is its end
	sum    uint32
	final  bool // the second reading: what is wrong now is corrupt
}

// Symbols reads the symbols, from the first; it does not wait for them. They are
// to be read before series are: Next and Seek end the stream.
func (b *Block) Symbols(ctx context.Context) *SymbolStream {
	b.endSymbols()
	b.symbols = newSymbolStream(ctx, b, false)
	return b.symbols
}

func (b *Block) endSymbols() {
	if b.symbols != nil {
		b.symbols.stop(errors.New("symbols are read no further"))
	}
}

func newSymbolStream(ctx context.Context, b *Block, final bool) *SymbolStream {
	at := b.toc.Symbols
	y := &SymbolStream{ctx: ctx, block: b, final: final, s: newStream(&b.remote.Index, at.Start, at.End, b.window)}
	y.s.begin(ctx)
	return y
}

// start reads the section's length and how many symbols there are.
func (y *SymbolStream) start(section layout.Span) {
	b, err := y.s.peek(y.ctx, section.Start, 8)
	if err != nil {
		y.stop(err)
		return
	}
	if len(b) < 8 {
		y.bad(layout.ErrLength)
		return
	}
	y.pos = section.Start + 4
	y.end = y.pos + int64(binary.BigEndian.Uint32(b))
	y.left = binary.BigEndian.Uint32(b[4:])
	if y.end+crc32.Size > section.End || y.end < y.pos+4 {
		y.bad(layout.ErrLength)
		return
	}
	if y.fill(4) {
		y.rest, y.pos = y.rest[4:], y.pos+4
	}
}

// Next goes to the next symbol. It is false at the end and after an error.
func (y *SymbolStream) Next() bool {
	if !y.begun {
		y.begun = true
		if y.s != nil {
			y.start(y.block.toc.Symbols)
		}
	}
	if y.err != nil || y.s == nil {
		return false
	}
	if y.left == 0 {
		y.finish()
		return false
	}
	y.last = append(y.last[:0], y.at...)
	n, w := binary.Uvarint(y.rest)
	if w <= 0 || n > uint64(len(y.rest)-w) {
		if n, w = y.long(); y.err != nil {
			return false
		}
	}
	y.at = y.rest[w : w+int(n)]
	y.rest, y.pos = y.rest[w+int(n):], y.pos+int64(w)+int64(n)
	if y.read > 0 && bytes.Compare(y.last, y.at) >= 0 {
		return y.bad(errors.New("symbols out of order"))
	}
	y.left--
	y.read++
	return true
}

// long finds the length of a symbol that is not whole in memory, and reads it.
func (y *SymbolStream) long() (n uint64, w int) {
	if !y.fill(min(binary.MaxVarintLen64, y.end-y.pos)) {
		return 0, 0
	}
	n, w = binary.Uvarint(y.rest)
	if w <= 0 || n > uint64(y.end-y.pos-int64(w)) {
		y.bad(layout.ErrLength)
		return 0, 0
	}
	y.fill(int64(w) + int64(n))
	return n, w
}

// fill makes at least n bytes of content from pos on be in rest.
func (y *SymbolStream) fill(n int64) bool {
	y.addSum()
	b, err := y.s.peek(y.ctx, y.pos, n)
	if err != nil {
		return y.stop(err)
	}
	b = b[:min(int64(len(b)), y.end-y.pos)]
	if int64(len(b)) < n || n == 0 && y.left > 0 {
		return y.bad(layout.ErrLength)
	}
	y.rest, y.summed = b, b
	return true
}

// addSum takes what was read of the content into the checksum.
func (y *SymbolStream) addSum() {
	y.sum = crc32.Update(y.sum, crc32.MakeTable(crc32.Castagnoli), y.summed[:len(y.summed)-len(y.rest)])
	y.summed = y.rest
}

// finish compares the checksum behind the content.
func (y *SymbolStream) finish() {
	if y.pos != y.end {
		y.bad(fmt.Errorf("%d bytes behind the last symbol", y.end-y.pos))
		return
	}
	y.addSum()
	b, err := y.s.peek(y.ctx, y.end, crc32.Size)
	switch {
	case err != nil:
		y.stop(err)
	case len(b) < crc32.Size || binary.BigEndian.Uint32(b) != y.sum:
		y.bad(layout.ErrChecksum)
	default:
		y.block.series.symbols = int64(y.read)
		y.stop(nil)
	}
}

// bad ends the stream because of what is wrong with its bytes. They are read
// again, to know whether the bucket has them like that.
func (y *SymbolStream) bad(why error) bool {
	at := y.pos
	if y.final {
		return y.stop(y.block.remote.Index.Corrupt(at, fmt.Errorf("symbols: %w", why)))
	}
	y.stop(nil)
	again := newSymbolStream(y.ctx, y.block, true)
	for again.Next() {
		continue
	}
	if y.err = again.err; y.err == nil {
		y.err = fmt.Errorf("object %s: offset %d: symbols came wrong, and right when read again: %w", y.block.remote.Index.Object, at, why)
	}
	return false
}

// stop ends the stream. It returns false, for callers to return.
func (y *SymbolStream) stop(err error) bool {
	if y.s != nil {
		y.s.release()
	}
	y.s, y.rest, y.summed, y.at = nil, nil, nil, nil
	y.err = err
	if y.block.symbols == y {
		y.block.symbols = nil
	}
	return false
}

// At is the symbol that Next went to, valid until the next call of it.
func (y *SymbolStream) At() []byte { return y.at }

// Err is what ended the stream, nil at its end.
func (y *SymbolStream) Err() error {
	if y.err == nil {
		return nil
	}
	return y.block.fail(y.err)
}
