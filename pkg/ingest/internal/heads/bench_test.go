package heads

import (
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// benchSeries are label sets as Kubernetes' metrics have them.
func benchSeries(n int) []labels.Labels {
	out := make([]labels.Labels, n)
	for i := range out {
		out[i] = labels.FromStrings(
			"__name__", fmt.Sprintf("http_requests_duration_seconds_%d", i%100), "cluster", "eu-west-1", "namespace", fmt.Sprintf("team-%d", i%50),
			"pod", fmt.Sprintf("checkout-7d4b9c6f5-%06d", i/100), "container", "app", "instance", fmt.Sprintf("10.0.%d.%d:8080", i/250%250, i%250), "job", "kubernetes-pods")
	}
	return out
}

// benchWrite is a write of one sample of each series; set its time before each use.
func benchWrite(lsets []labels.Labels) *batch.Write {
	b := &batch.Batch{Labels: func(i int) (labels.Labels, error) { return lsets[i], nil }}
	for i := range lsets {
		b.Series = append(b.Series, batch.Series{ID: uint64(i + 1), Floats: batch.Span{From: uint32(i), To: uint32(i + 1)}})
		b.Floats = append(b.Floats, batch.Float{V: float64(i)})
	}
	return whole("t", b)
}

func (r *rig) appendAt(b *testing.B, w *batch.Write, at int64) {
	for i := range w.Batch.Floats {
		w.Batch.Floats[i].T = at
		w.Batch.Floats[i].V++
	}
	res, err := r.Append(b.Context(), w)
	if err != nil || len(res.Refused)+len(res.Unknown) > 0 {
		b.Fatal(err, len(res.Refused), len(res.Unknown))
	}
}

// benchRig lets nothing happen beside the appends: heads are not cut.
func benchRig(b *testing.B, mode string) *rig {
	return newRig(b, func(c *Config, p *Parts) {
		c.Sync, c.TooFarAhead, c.IdleFlush = mode, 0, 0
		c.SyncInterval = model.Duration(4 * time.Millisecond)
		c.MinBlockDuration, c.MaxBlockDuration, c.Retention = 10000*model.Duration(time.Hour), 10000*model.Duration(time.Hour), 10000*model.Duration(time.Hour)
		c.MaxExemplars = 0
	})
}

// BenchmarkAppend: a write of 10,000 known series with a sample each. ns/sample
// of one writer; with batched sync as many as the name says share the syncs.
func BenchmarkAppend(b *testing.B) {
	const n = 10_000
	lsets := benchSeries(n)
	b.Run("by=reference/sync=none", func(b *testing.B) {
		r := benchRig(b, SyncNone)
		w := benchWrite(lsets)
		at := start
		r.appendAt(b, w, at)
		b.ReportAllocs()
		for b.Loop() {
			at += 15_000
			r.appendAt(b, w, at)
		}
		perSample(b, n)
	})
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("by=reference/sync=batched/writers=%d", writers), func(b *testing.B) {
			r := benchRig(b, SyncBatched)
			writes := make([]*batch.Write, writers)
			for i := range writes {
				writes[i] = benchWrite(lsets[i*n/writers : (i+1)*n/writers])
				writes[i].Session = batch.Session{byte(i)}
				r.appendAt(b, writes[i], start)
			}
			b.ReportAllocs()
			at := start
			for b.Loop() {
				at += 15_000
				var wg sync.WaitGroup
				for _, w := range writes {
					wg.Go(func() { r.appendAt(b, w, at) })
				}
				wg.Wait()
			}
			perSample(b, n)
		})
	}
	b.Run("by=labels/plain TSDB", func(b *testing.B) {
		r := benchRig(b, SyncNone)
		r.appendAt(b, benchWrite(lsets[:1]), start)
		db := headOf2(b, r).db
		at := start
		b.ReportAllocs()
		for b.Loop() {
			at += 15_000
			app := db.AppenderV2(b.Context())
			for i, l := range lsets {
				if _, err := app.Append(0, l, 0, at, float64(i), nil, nil, storage.AOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			if err := app.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		perSample(b, n)
	})
	b.Run("by=reference/plain TSDB", func(b *testing.B) {
		r := benchRig(b, SyncNone)
		r.appendAt(b, benchWrite(lsets[:1]), start)
		db := headOf2(b, r).db
		at := start
		refs := make([]storage.SeriesRef, len(lsets))
		b.ReportAllocs()
		for b.Loop() {
			at += 15_000
			app := db.AppenderV2(b.Context())
			for i, l := range lsets {
				ref, err := app.Append(refs[i], l, 0, at, float64(i), nil, nil, storage.AOptions{})
				if err != nil {
					b.Fatal(err)
				}
				refs[i] = ref
			}
			if err := app.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		perSample(b, n)
	})
}

func headOf2(b *testing.B, r *rig) *head {
	h, err := r.acquire(b.Context(), "t")
	if err != nil {
		b.Fatal(err)
	}
	h.release()
	return h
}

func perSample(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
}

// BenchmarkMemory reports what an active series costs in the heap: labels,
// postings, an open chunk of 60 samples, and its place in the session's table.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{100_000} {
		b.Run("series="+strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				lsets := benchSeries(n)
				r := benchRig(b, SyncNone)
				w := benchWrite(lsets)
				before := heap()
				for k := range int64(60) {
					r.appendAt(b, w, start+k*15_000)
				}
				b.ReportMetric(float64(heap()-before)/float64(n), "B/series")
				runtime.KeepAlive(lsets)
				r.stop()
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
