package merge_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/downsample"
)

const (
	benchSeries = 4000
	benchSpan   = 2 * 3_600_000 // ms
	benchStep   = 15_000        // ms
)

// benchBlock writes a block as PERFORMANCE 5.6 wants it: half of the series
// constant, counters and gauges, scrapes with jitter, some lost.
func benchBlock(b *testing.B, dir string, replica, n int) block.Meta {
	b.Helper()
	r := rand.New(rand.NewPCG(uint64(replica), uint64(n)))
	var series []blocktest.Series
	for k := range benchSeries {
		l := labels.FromStrings("__name__", fmt.Sprintf("metric_%d_total", k%100), "instance", fmt.Sprintf("10.0.%d.%d:9100", k/100%256, k%13), "job", "node", "pod", fmt.Sprintf("pod-%x", k*7919))
		offset := int64(replica) * 7000
		var samples []blocktest.Sample
		v := float64(n * 1_000_000)
		for t := int64(n)*benchSpan + offset%benchStep; t < int64(n+1)*benchSpan-50; t += benchStep {
			switch k % 4 {
			case 0, 1:
			case 2:
				v += float64(r.IntN(200))
			default:
				v = float64(r.IntN(10_000)) / 10
			}
			if r.IntN(2000) > 0 {
				samples = append(samples, blocktest.Sample{T: t + r.Int64N(20), F: v})
			}
		}
		series = append(series, blocktest.Series{Labels: l, Samples: samples})
	}
	return blocktest.Write(b, dir, series, labels.FromStrings("cluster", "a"), blocktest.Options{
		ID: id(n*10 + replica), SegmentBytes: 512 << 20, MinTime: int64(n) * benchSpan, MaxTime: int64(n+1) * benchSpan,
	})
}

// bench is a set of blocks, on disk and in a bucket.
type bench struct {
	dir      string
	bkt      *bucket.Memory
	metas    []block.Meta
	replicas []uint64
	bytes    int64
	samples  uint64
}

func newBench(b *testing.B, blocks, replicas int) *bench {
	b.Helper()
	w := &bench{dir: b.TempDir(), bkt: bucket.NewMemory()}
	for n := range blocks {
		for r := range replicas {
			m := blocktest.Upload(b, w.bkt, w.dir, benchBlock(b, w.dir, r, n))
			w.metas, w.replicas = append(w.metas, m), append(w.replicas, uint64(r+1))
			w.samples += m.Stats.NumSamples
			for _, f := range m.Thanos.Files {
				w.bytes += f.SizeBytes
			}
		}
	}
	return w
}

func (w *bench) merge(b *testing.B, dedup dedup.Kind, resolutions ...int64) {
	b.Helper()
	cfg := merge.Config{Dedup: dedup}
	tmp := b.TempDir()
	for i, r := range resolutions {
		cfg.Targets = append(cfg.Targets, merge.Target{Resolution: r, Dir: filepath.Join(tmp, fmt.Sprint(i))})
	}
	var sources []merge.Source
	for i := range w.metas {
		src, err := input.Open(b.Context(), w.bkt, &w.metas[i], input.Config{})
		require.NoError(b, err)
		defer func() { _ = src.Close() }()
		sources = append(sources, merge.Source{Block: src, Replica: w.replicas[i]})
		if dedup == "" {
			sources[i].Replica = 0
		}
	}
	_, err := merge.Run(b.Context(), cfg, sources)
	require.NoError(b, err)
	require.NoError(b, os.RemoveAll(tmp))
}

func (w *bench) upstream(b *testing.B) {
	b.Helper()
	c, err := tsdb.NewLeveledCompactor(b.Context(), nil, slog.New(slog.DiscardHandler), []int64{benchSpan, 4 * benchSpan}, chunkenc.NewPool(), nil)
	require.NoError(b, err)
	var dirs []string
	for _, m := range w.metas {
		dirs = append(dirs, filepath.Join(w.dir, m.ULID.String()))
	}
	tmp := b.TempDir()
	_, err = c.Compact(tmp, dirs, nil)
	require.NoError(b, err)
	require.NoError(b, os.RemoveAll(tmp))
}

// cpu is what the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure reports the CPU time of f for a gigabyte and a sample read, and the
// greatest heap seen.
func (w *bench) measure(b *testing.B, name string, f func(b *testing.B)) {
	b.Run(fmt.Sprintf("%s/series=%d/MB=%d", name, benchSeries, w.bytes>>20), func(b *testing.B) {
		b.ReportAllocs()
		peak := make(chan uint64)
		done := make(chan struct{})
		runtime.GC()
		go func() { peak <- watchHeap(done) }()
		start := cpu()
		for b.Loop() {
			f(b)
		}
		used := float64(cpu()-start) / float64(b.N)
		close(done)
		b.ReportMetric(float64(<-peak)/(1<<20), "peak-MB")
		b.ReportMetric(used/1e9/(float64(w.bytes)/(1<<30)), "cpu-s/GB")
		b.ReportMetric(used/float64(w.samples), "cpu-ns/sample")
	})
}

func watchHeap(done chan struct{}) (peak uint64) {
	var base, m runtime.MemStats
	runtime.ReadMemStats(&base)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return peak
		case <-tick.C:
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > base.HeapAlloc {
				peak = max(peak, m.HeapAlloc-base.HeapAlloc)
			}
		}
	}
}

// T11, T12 of PERFORMANCE.md.
func BenchmarkMerge(b *testing.B) {
	adjacent := newBench(b, 4, 1)
	adjacent.measure(b, "adjacent=4", func(b *testing.B) { adjacent.merge(b, "", 0) })
	adjacent.measure(b, "adjacent=4/upstream", adjacent.upstream)
	adjacent.measure(b, "adjacent=4/tiers=5m,1h", func(b *testing.B) {
		adjacent.merge(b, "", 0, downsample.Resolution5m, downsample.Resolution1h)
	})
	adjacent.measure(b, "adjacent=4/only=5m,1h", func(b *testing.B) {
		adjacent.merge(b, "", downsample.Resolution5m, downsample.Resolution1h)
	})
	pair := newBench(b, 2, 2)
	for _, kind := range []dedup.Kind{dedup.Firnline, dedup.Penalty, dedup.Chain} {
		pair.measure(b, "pair=2/"+string(kind), func(b *testing.B) { pair.merge(b, kind, 0) })
	}
	pair.measure(b, "pair=2/union", func(b *testing.B) { pair.merge(b, "", 0) })
	pair.measure(b, "pair=2/upstream", pair.upstream)
}
