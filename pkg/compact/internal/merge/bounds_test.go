package merge_test

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/dedup"
)

// A series of 100,000 chunks takes no more memory than one of a few, but for
// what its entries in the indexes take: as it is, overlapping, and of replicas.
func TestLongSeries(t *testing.T) {
	const n = 100_000
	long := func(shift int64) []chunks.Meta {
		var out []chunks.Meta
		for i := range int64(n) {
			out = append(out, chunksOf(t, 2, blocktest.Sample{T: i*30_000 + shift, F: 1}, blocktest.Sample{T: i*30_000 + 15_000 + shift, F: 2})...)
		}
		return out
	}
	a, b := long(0), long(7_000)
	block := func(replica uint64, c []chunks.Meta) made {
		return made{series: []blocktest.Series{{Labels: lset("a", "b"), Chunks: c}}, replica: replica}
	}
	for name, c := range map[string]struct {
		blocks []made
		dedup  dedup.Kind
		want   uint64 // samples
	}{
		"one":      {[]made{block(1, a)}, "", 2 * n},
		"union":    {[]made{block(1, a), block(1, b)}, "", 4 * n},
		"replicas": {[]made{block(1, a), block(2, b)}, dedup.Firnline, 2 * n},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.blocks...)
			base := live()
			var peak atomic.Uint64
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for ctx.Err() == nil {
					if now := live(); now > base {
						peak.Store(max(peak.Load(), now-base))
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
			report, _, err := w.run(merge.Config{Dedup: c.dedup}, 0)
			stop()
			<-done
			require.NoError(t, err)
			require.LessOrEqual(t, c.want, report.Targets[0].Stats.NumSamples)
			require.InDelta(t, c.want, report.Targets[0].Stats.NumSamples, 2)
			bound := merge.MemoryBytes(w.metas(), input.Config{WindowBytes: 64 << 10}, merge.Config{Targets: make([]merge.Target, 1)})
			require.Less(t, peak.Load(), uint64(bound), "bytes of heap")
		})
	}
}

// live collects, and returns the bytes that were found in use: garbage that is made
// since then does not count, however late we look.
func live() uint64 {
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func (w *world) metas() (out []*block.Meta) {
	for _, s := range w.sources {
		out = append(out, s.Block.Meta())
	}
	return out
}

func TestCancelled(t *testing.T) {
	w := newWorld(t, made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: floats(0, 1000, 100)}}})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the lease was lost")
	cancel(why)
	dir := t.TempDir() + "/out"
	_, err := merge.Run(ctx, merge.Config{Targets: []merge.Target{{Dir: dir}}}, w.sources)
	require.Error(t, err)
	require.NoDirExists(t, dir)
}

// RELIABILITY C6: what can't be written leaves nothing behind, and is nobody's fault.
func TestTargetInUse(t *testing.T) {
	w := newWorld(t, made{series: []blocktest.Series{{Labels: lset("a", "b"), Samples: floats(0, 1000, 100)}}})
	used, free := t.TempDir(), t.TempDir()+"/out"
	require.NoError(t, block.WriteFile(used+"/x", []byte("x")))
	_, err := merge.Run(t.Context(), merge.Config{Targets: []merge.Target{{Dir: free}, {Resolution: fiveMinutes, Dir: used}}}, w.sources)
	require.Error(t, err)
	var of *input.Error
	require.NotErrorAs(t, err, &of)
	require.NoDirExists(t, free)
	require.FileExists(t, used+"/x")
}

// A coarser block can't become a finer one, nor one job write two of a kind.
func TestImpossibleTargets(t *testing.T) {
	for _, resolutions := range [][]int64{{0}, {fiveMinutes, fiveMinutes}} {
		w := newWorld(t, made{opts: blocktest.Options{MaxTime: 1, Resolution: fiveMinutes}})
		_, _, err := w.run(merge.Config{Resolution: fiveMinutes}, resolutions...)
		require.ErrorContains(t, err, "can't be made")
	}
}
