package output

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRadixSort compares with a stable sort by the same bits.
func TestRadixSort(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 3))
		tuples := make([]uint64, random.IntN(3000))
		mask := uint64(1)<<random.IntN(64) - 1
		if random.IntN(2) == 0 {
			mask = random.Uint64() // digits that are all zero
		}
		for i := range tuples {
			tuples[i] = random.Uint64() & mask
		}
		shift := uint(random.IntN(64))
		want := slices.Clone(tuples)
		slices.SortStableFunc(want, func(a, b uint64) int { return cmp.Compare(a>>shift, b>>shift) })
		require.Equal(t, want, radixSort(tuples, make([]uint64, len(tuples)), shift), "seed %d", seed)
	}
}

// BenchmarkSortTuples sorts what a run holds: a million pairs of twelve names
// and a hundred thousand values.
func BenchmarkSortTuples(b *testing.B) {
	const n, seriesBits = 1_000_000, 20
	random := rand.New(rand.NewPCG(1, 3))
	tuples := make([]uint64, n)
	for i := range tuples {
		key := uint64(i%12)<<17 | random.Uint64N(100_000)
		tuples[i] = key<<seriesBits | uint64(i)
	}
	work, scratch := make([]uint64, n), make([]uint64, n)
	for _, s := range []struct {
		name string
		sort func()
	}{
		{"radix", func() { radixSort(work, scratch, seriesBits) }},
		{"slices", func() { slices.Sort(work) }},
	} {
		b.Run(fmt.Sprintf("sort=%s/tuples=%d", s.name, n), func(b *testing.B) {
			for b.Loop() {
				copy(work, tuples)
				s.sort()
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N*n), "ns/tuple")
		})
	}
}
