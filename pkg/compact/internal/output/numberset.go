package output

import (
	"iter"
	"math/bits"
)

// numberSet is a set of symbol numbers. It takes a bit and a half for each number
// there could be.
type numberSet struct {
	words  []uint64
	before []uint32 // members in all words before this one; made by seal
	count  uint32
}

func newNumberSet(n int) numberSet { return numberSet{words: make([]uint64, (n+63)/64)} }

func (s *numberSet) add(n uint32) { s.words[n/64] |= 1 << (n % 64) }

// seal makes rank and count valid. Nothing may be added afterwards.
func (s *numberSet) seal() {
	s.before = make([]uint32, len(s.words))
	for i, w := range s.words {
		s.before[i] = s.count
		s.count += uint32(bits.OnesCount64(w))
	}
}

// rank returns how many members are smaller than n.
func (s *numberSet) rank(n uint32) uint32 {
	return s.before[n/64] + uint32(bits.OnesCount64(s.words[n/64]&(1<<(n%64)-1)))
}

// all yields the members in ascending order.
func (s *numberSet) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i, w := range s.words {
			for ; w != 0; w &= w - 1 {
				if !yield(uint32(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
