package output

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// TestMergeSymbols compares with putting all strings in one slice.
func TestMergeSymbols(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		sources, all := randomSources(random)
		streams := make([]SymbolSource, len(sources))
		for i, s := range sources {
			streams[i] = &sliceSource{symbols: s}
		}
		syms, numbers, err := MergeSymbols(streams...)
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, len(all), syms.Len(), "seed %d", seed)
		for i, want := range all {
			require.Equal(t, want, syms.At(uint32(i)), "seed %d", seed)
			found, ok := syms.Find(want)
			require.True(t, ok)
			require.EqualValues(t, i, found)
		}
		for i, s := range sources {
			require.Len(t, numbers[i], len(s), "seed %d", seed)
			for j, want := range s {
				require.Equal(t, want, syms.At(numbers[i][j]), "seed %d", seed)
			}
		}
		absent := fmt.Sprint("absent", random.Uint64())
		want, there := slices.BinarySearch(all, absent)
		got, ok := syms.Find(absent)
		require.Equal(t, there, ok)
		require.EqualValues(t, want, got)
	}
}

// randomSources returns up to six sorted slices and the union of them. Now and
// then they fill several pages.
func randomSources(random *rand.Rand) (sources [][]string, union []string) {
	n := random.IntN(30)
	if random.IntN(20) == 0 {
		n = 3 * pageSymbols
	}
	for range random.IntN(7) {
		var s []string
		for range n {
			symbol := fmt.Sprint(random.IntN(2 * n))
			s = append(s, symbol, symbol[:random.IntN(len(symbol)+1)]) // prefixes, the empty one too
		}
		slices.Sort(s)
		s = slices.Compact(s)
		sources = append(sources, s)
		union = append(union, s...)
	}
	slices.Sort(union)
	return sources, slices.Compact(union)
}

// TestMergeSymbolsRefuses: the error says which source it is.
//
// RELIABILITY C4
func TestMergeSymbolsRefuses(t *testing.T) {
	lost := errors.New("connection lost")
	good := func() SymbolSource { return &sliceSource{symbols: []string{"", "a", "b", "z"}} }
	for name, test := range map[string]struct {
		bad  *sliceSource
		want error
	}{
		"duplicate":                  {&sliceSource{symbols: []string{"a", "b", "b"}}, block.ErrCorrupt},
		"duplicate of what is first": {&sliceSource{symbols: []string{"", "", "b"}}, block.ErrCorrupt},
		"unsorted":                   {&sliceSource{symbols: []string{"c", "b"}}, block.ErrCorrupt},
		"unsorted at the end":        {&sliceSource{symbols: []string{"a", "zz", "y"}}, block.ErrCorrupt},
		"fails":                      {&sliceSource{symbols: []string{"a"}, err: lost}, lost},
		"fails at once":              {&sliceSource{err: lost}, lost},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := MergeSymbols(good(), test.bad, good())
			require.ErrorIs(t, err, test.want)
			var source *SourceError
			require.ErrorAs(t, err, &source)
			require.Equal(t, 1, source.Source)
		})
	}
}

// TestSymbolsMemory: a table takes its strings and 4 bytes each, not twice that.
func TestSymbolsMemory(t *testing.T) {
	const n, length = 500_000, 24
	source := &countingSource{n: n}
	before := heapBytes(t)
	syms, numbers, err := MergeSymbols(source)
	require.NoError(t, err)
	numbers[0] = nil
	require.Less(t, heapBytes(t)-before, int64(n*(length+4)*105/100))
	require.Equal(t, "symbol-00000000000499999", syms.At(n-1))
}

// countingSource yields n symbols of 24 bytes without keeping them.
type countingSource struct {
	n, next int
	buf     []byte
}

func (s *countingSource) Next() bool {
	s.buf = fmt.Appendf(s.buf[:0], "symbol-%017d", s.next)
	s.next++
	return s.next <= s.n
}
func (s *countingSource) At() []byte { return s.buf }
func (s *countingSource) Err() error { return nil }

// BenchmarkMergeSymbols merges sources that share nine symbols of ten.
func BenchmarkMergeSymbols(b *testing.B) {
	const n = 100_000
	for _, k := range []int{2, 12} {
		sources := make([][]string, k)
		for i := range sources {
			for j := range n {
				owner := ""
				if j%10 == 0 {
					owner = fmt.Sprint("-", i)
				}
				sources[i] = append(sources[i], fmt.Sprintf("namespace-%08d%s", j, owner))
			}
		}
		b.Run(fmt.Sprintf("sources=%d/symbols=%d", k, n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				streams := make([]SymbolSource, k)
				for i := range sources {
					streams[i] = &sliceSource{symbols: sources[i]}
				}
				_, _, err := MergeSymbols(streams...)
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N*k*n), "ns/symbol")
		})
	}
}
