package merge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/dedup"
)

// TestNothingLostBehindDeduplicated: a block that was deduplicated, and replicas
// with equal samples that begin less than half an interval behind its last one.
// RELIABILITY P3
func TestNothingLostBehindDeduplicated(t *testing.T) {
	const interval = 60_000
	before, between, after := floats(0, 3_600_000, interval), floats(3_565_000, 7_200_000, interval), floats(7_190_000, 9_000_000, interval)
	for _, kind := range []dedup.Kind{dedup.Firnline, dedup.Chain} {
		w := newWorld(t)
		one := func(replica uint64, samples []blocktest.Sample) {
			w.craft(replica, samples[0].T, samples[len(samples)-1].T+1, blocktest.Series{Labels: lset("__name__", "m"), Samples: samples})
		}
		one(0, before)
		one(1, between)
		one(2, between)
		one(0, after)
		_, got := w.must(merge.Config{Dedup: kind})
		var want []string
		for _, list := range [][]blocktest.Sample{before, between, after} {
			want = append(want, linesOf(list)...)
		}
		for _, lines := range got.samples(t) {
			require.Equal(t, want, lines, kind)
		}
	}
}
