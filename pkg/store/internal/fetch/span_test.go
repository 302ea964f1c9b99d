package fetch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

func TestPlanReads(t *testing.T) {
	datadriven.RunTest(t, "testdata/plan_reads", func(t *testing.T, d *datadriven.TestData) string {
		var gap, most int64
		d.ScanArgs(t, "gap", &gap)
		d.ScanArgs(t, "most", &most)
		var want []Span
		for _, f := range strings.Fields(d.Input) {
			var s Span
			_, err := fmt.Sscanf(f, "%d-%d", &s.Start, &s.End)
			require.NoError(t, err)
			want = append(want, s)
		}
		var out strings.Builder
		for _, r := range splitReads(planReads(want, gap), most) {
			fmt.Fprintf(&out, "GET %d-%d\n", r.Start, r.End)
		}
		if out.Len() == 0 {
			return "nothing\n"
		}
		return out.String()
	})
}

// TestPlanReadsCovers checks what must hold of any plan against a set of single bytes.
func TestPlanReadsCovers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		want, gap := randomSpans(rnd, 1+rnd.IntN(20), 1000), rnd.Int64N(50)
		reads := planReads(want, gap)
		bytes := map[int64]bool{}
		for i, r := range reads {
			if i > 0 {
				require.Greater(t, r.Start-reads[i-1].End, gap, "reads nearer than the gap must be one")
			}
			for b := r.Start; b < r.End; b++ {
				bytes[b] = true
			}
		}
		for _, w := range want {
			for b := w.Start; b < w.End; b++ {
				require.True(t, bytes[b], "byte %d of %v not read by %v", b, w, reads)
			}
		}
	}
}

func randomSpans(rnd *rand.Rand, n int, within int64) []Span {
	spans := make([]Span, n)
	for i := range spans {
		at := rnd.Int64N(within)
		spans[i] = Span{at, at + rnd.Int64N(40)}
	}
	slices.SortFunc(spans, func(a, b Span) int { return int(a.Start - b.Start) })
	return spans
}

func BenchmarkPlanReads(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		want := randomSpans(rand.New(rand.NewPCG(1, 1)), n, int64(n)*200)
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				planReads(want, 100)
			}
		})
	}
}

// TestReach compares with the plan: what is counted is what is read.
func TestReach(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		want, gap := randomSpans(rnd, 1+rnd.IntN(20), 1000), rnd.Int64N(50)
		var planned int64
		for _, r := range planReads(want, gap) {
			planned += r.Len()
		}
		sorted := Reach{gap: gap}
		for _, s := range want {
			sorted.Add(s)
		}
		require.Equal(t, planned, sorted.Bytes)

		rnd.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
		mixed := Reach{gap: 0}
		for _, s := range want {
			mixed.Add(s)
		}
		slices.SortFunc(want, func(a, b Span) int { return int(a.Start - b.Start) })
		planned = 0
		for _, r := range planReads(want, 0) {
			planned += r.Len()
		}
		require.GreaterOrEqual(t, mixed.Bytes, planned)
	}
}

// The gaps that are read over stay small beside what is wanted in memory.
func TestGapOfWindow(t *testing.T) {
	f := &Fetcher{cfg: Config{Gap: 512}}
	require.EqualValues(t, 512, f.gap(0))
	require.EqualValues(t, 512, f.gap(1<<20))
	require.EqualValues(t, 10, f.gap(80))
}
