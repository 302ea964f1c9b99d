package downsample

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// A block that comes late, when the raw data around it has gone: its windows fill
// the hole, and the counter grows in each window, and across both borders, as the
// raw one did. RELIABILITY C9
func TestLateBlockFillsAHole(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 4))
		resets := []int64{r.Int64N(10 * shortestBlock), r.Int64N(10 * shortestBlock), r.Int64N(10 * shortestBlock)}
		slices.Sort(resets)
		all := scraped(r, truth(resets), 0, 10*shortestBlock, func(t int64) bool { return t/shortestBlock == 7 })
		late := 1 + r.Int64N(5)
		isLate := func(i int) bool { return all.ts[i]/shortestBlock == late }
		for _, resolution := range []int64{Resolution5m, Resolution1h} {
			t.Run(fmt.Sprintf("seed=%d/resolution=%d", seed, resolution), func(t *testing.T) {
				whole := tierOf(t, all, resolution, func(int) bool { return true })
				filled := append(tierOf(t, all, resolution, isLate), tierOf(t, all, resolution, func(i int) bool { return !isLate(i) })...)
				slices.SortFunc(filled, func(a, b Encoded) int { return cmp.Compare(a.MinTime, b.MinTime) })
				require.Equal(t, counterAt(t, whole, resolution), counterAt(t, filled, resolution))
			})
		}
	}
}

// tierOf downsamples those of the samples that are in.
func tierOf(tb testing.TB, s mergeSource, resolution int64, in func(i int) bool) (out []Encoded) {
	tb.Helper()
	d := NewDownsampler(resolution)
	for i := range s.ts {
		if in(i) {
			require.NoError(tb, d.Floats(s.ts[i:i+1], s.vs[i:i+1]))
		}
	}
	chunks, err := d.Finish(resolution)
	require.NoError(tb, err)
	for _, c := range chunks {
		c.Payload = slices.Clone(c.Payload)
		out = append(out, c)
	}
	return out
}

// counterAt is the counter at the end of each window.
func counterAt(tb testing.TB, chunks []Encoded, resolution int64) map[int64]float64 {
	tb.Helper()
	var its []chunkenc.Iterator
	for _, c := range chunks {
		in, err := Decode(c.Payload)
		require.NoError(tb, err)
		chunk, err := chunkenc.FromData(in[Counter].Encoding, in[Counter].Bytes)
		require.NoError(tb, err)
		its = append(its, chunk.Iterator(nil))
	}
	out := map[int64]float64{}
	it := NewCounter(its)
	for it.Next() != chunkenc.ValNone {
		at, v := it.At()
		out[windowEnd(at, resolution)] = v
	}
	require.NoError(tb, it.Err())
	return out
}
