package output

import (
	"bytes"
	"fmt"
	"math"
	"sort"

	"github.com/firnline/firnline/pkg/block"
)

// SymbolSource yields the symbols of one block in ascending order. What At
// returns is valid until the next call of Next.
type SymbolSource interface {
	Next() bool
	At() []byte
	Err() error
}

// SourceError is the error of one of the sources given to MergeSymbols: what its
// Err said, or block.ErrCorrupt where its symbols don't ascend.
type SourceError struct {
	Source int // index into the sources
	Err    error
}

func (e *SourceError) Error() string { return fmt.Sprintf("symbols of source %d: %v", e.Source, e.Err) }

// Unwrap returns what the source said.
func (e *SourceError) Unwrap() error { return e.Err }

// pageSymbols is how many symbols lie in one page: so many that the headers of a
// page weigh nothing, so few that the page being filled doesn't either.
const pageSymbols = 4096

// Symbols is a sorted table of strings without duplicates, numbered from 0 in
// their order. It never changes once made, and is safe for concurrent use.
//
// Each page holds the text of pageSymbols strings in one piece, so that a table
// takes the bytes of its strings and 4 more each, also while it grows.
type Symbols struct {
	pages []page
	count int
}

// page is the text of some strings and where each of them ends in it.
type page struct {
	text string
	ends []uint32
}

// Len returns how many there are.
func (s *Symbols) Len() int { return s.count }

// At returns the string with number i, which must be below Len. It shares the
// table's memory.
func (s *Symbols) At(i uint32) string {
	p := &s.pages[i/pageSymbols]
	i %= pageSymbols
	start := uint32(0)
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.text[start:p.ends[i]]
}

// Find returns the number of a string, or where it is not there, the number
// that it would have.
func (s *Symbols) Find(symbol string) (uint32, bool) {
	i := sort.Search(s.count, func(i int) bool { return s.At(uint32(i)) >= symbol })
	return uint32(i), i < s.count && s.At(uint32(i)) == symbol
}

// MergeSymbols makes the sorted union of the sources and, for each of them, the
// table from its numbers to those of the union. An error of a source, or one in
// its order, is a *SourceError.
func MergeSymbols(in ...SymbolSource) (*Symbols, [][]uint32, error) {
	m := symbolMerge{numbers: make([][]uint32, len(in))}
	for i, source := range in {
		head := &symbolHead{source: source, index: i}
		more, err := head.next(nil, false)
		if err != nil {
			return nil, nil, err
		}
		if more {
			m.heads.push(head)
		}
	}
	if err := m.run(); err != nil {
		return nil, nil, err
	}
	m.out.seal()
	return &m.out.Symbols, m.numbers, nil
}

// symbolMerge is a merge under way.
type symbolMerge struct {
	heads   heap[*symbolHead]
	out     symbolBuilder
	numbers [][]uint32
}

func (m *symbolMerge) run() error {
	for len(m.heads) > 0 {
		head := m.heads[0]
		if m.out.count == 0 || !bytes.Equal(head.symbol, m.out.last()) {
			if err := m.out.add(head.symbol); err != nil {
				return err
			}
		}
		m.numbers[head.index] = append(m.numbers[head.index], uint32(m.out.count-1))
		more, err := head.next(m.out.last(), true)
		if err != nil {
			return err
		}
		if more {
			m.heads.down(0)
		} else {
			m.heads.pop()
		}
	}
	return nil
}

// symbolHead is the next symbol of one source.
type symbolHead struct {
	source SymbolSource
	index  int
	symbol []byte
}

func (h *symbolHead) before(o *symbolHead) bool { return bytes.Compare(h.symbol, o.symbol) < 0 }

// next moves on and compares the symbol with the one before it, if there is one.
func (h *symbolHead) next(prev []byte, hasPrev bool) (bool, error) {
	if !h.source.Next() {
		if err := h.source.Err(); err != nil {
			return false, &SourceError{Source: h.index, Err: err}
		}
		return false, nil
	}
	h.symbol = h.source.At()
	if hasPrev && bytes.Compare(prev, h.symbol) >= 0 {
		return false, &SourceError{Source: h.index, Err: fmt.Errorf("%w: %q is not behind %q", block.ErrCorrupt, h.symbol, prev)}
	}
	return true, nil
}

// symbolBuilder fills a table, page by page.
type symbolBuilder struct {
	Symbols
	text []byte // of the page being filled
	ends []uint32
}

// last returns the symbol added last, valid until the next one is.
func (b *symbolBuilder) last() []byte {
	start := uint32(0)
	if n := len(b.ends); n > 1 {
		start = b.ends[n-2]
	}
	return b.text[start:]
}

func (b *symbolBuilder) add(symbol []byte) error {
	if b.count == math.MaxUint32 {
		return fmt.Errorf("%w: more than %d symbols", ErrTooLarge, b.count)
	}
	if len(b.ends) == pageSymbols {
		b.seal()
	}
	if len(b.text)+len(symbol) > math.MaxUint32 {
		return fmt.Errorf("%w: symbols of %d bytes", ErrTooLarge, len(b.text)/len(b.ends))
	}
	b.text = append(b.text, symbol...)
	b.ends = append(b.ends, uint32(len(b.text)))
	b.count++
	return nil
}

// seal copies the page being filled into memory of its size.
func (b *symbolBuilder) seal() {
	if len(b.ends) == 0 {
		return
	}
	b.pages = append(b.pages, page{text: string(b.text), ends: append(make([]uint32, 0, len(b.ends)), b.ends...)})
	b.text, b.ends = b.text[:0], b.ends[:0]
}
