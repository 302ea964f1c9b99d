package replay

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"
)

// TestReferencesOrder: references that are near to each other are taken, in whatever order head chunk files name
// them. The TSDB writes them by stripes of its table of series: every 2048th, then those beside them.
func TestReferencesOrder(t *testing.T) {
	const many, stripes = 5_000_000, 2048
	orders := map[string]func(do func(ref int) bool){
		"ascending": func(do func(int) bool) {
			for ref := 0; ref < many && do(ref); ref++ {
			}
		},
		"by stripes": func(do func(int) bool) {
			for s := range stripes {
				for ref := s; ref < many; ref += stripes {
					if !do(ref) {
						return
					}
				}
			}
		},
		"at random": func(do func(int) bool) {
			r := rand.New(rand.NewPCG(1, 2))
			for range many / 4 {
				if !do(r.IntN(many)) {
					return
				}
			}
		},
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			var c covered
			n := 0
			order(func(ref int) bool {
				n++
				return c.set(chunks.HeadSeriesRef(ref+1), 1)
			})
			require.False(t, c.used.thin(), "after %d", n)
		})
	}
}

// TestReferencesFarApart: where each page has few references the tables stay small, and the log is left to the TSDB.
func TestReferencesFarApart(t *testing.T) {
	var c covered
	tb := newTable()
	n := 0
	for ; n < 2*freePages; n++ {
		ref := chunks.HeadSeriesRef(n * 2 * pageSize)
		if set, put := c.set(ref, 1), tb.set(ref, new(series)); !set || !put {
			require.Equal(t, set, put)
			break
		}
	}
	require.InDelta(t, freePages, n, freePages/8)
	require.False(t, newTable().set(mostPages*pageSize, nil), "absurd")
	require.False(t, new(covered).set(mostPages*pageSize, 1), "absurd")
}
