package intake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// requests is n series in requests of size each.
func requests(n, size int) []*batch.Batch {
	var all []*batch.Batch
	for from := 0; from < n; from += size {
		b := &batch.Batch{}
		for i := range size {
			b.Series = append(b.Series, batch.Series{Key: benchKey(from + i), Floats: batch.Span{From: uint32(i), To: uint32(i + 1)}})
			b.Floats = append(b.Floats, batch.Float{T: testNow.UnixMilli(), V: 1})
		}
		all = append(all, b)
	}
	return all
}

// benchKey is a key that needs no labels.
func benchKey(i int) batch.Key {
	r := rand.NewPCG(uint64(i), 1)
	return batch.Key{Hi: r.Uint64(), Lo: r.Uint64()}
}

func learnAll(b testing.TB, in *Intake, all []*batch.Batch) {
	series := many(0, 1)[0]
	for _, r := range all {
		r.Labels = func(int) (labels.Labels, error) { return series, nil }
		take(b, in, "a", r)
	}
}

// BenchmarkTake is a request of 2000 known series with a sample each.
func BenchmarkTake(b *testing.B) {
	const size = 2000
	for _, n := range []int{100_000, 1_000_000} {
		for _, order := range []string{"same", "shuffled"} {
			b.Run(fmt.Sprintf("series=%d/order=%s", n, order), func(b *testing.B) {
				in := newIntake(b, testConfig(), limits.Defaults())
				all := requests(n, size)
				learnAll(b, in, all)
				if order == "shuffled" {
					shuffle(all)
				}
				raw := all[0].Labels
				var t refuse.Tally
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					r := all[i%len(all)]
					r.Labels = raw
					i++
					if _, err := in.Take(context.Background(), "a", r, &t); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i*size), "ns/sample")
			})
		}
	}
}

// shuffle deals the series of all requests anew, so that none stands where it was learned.
func shuffle(all []*batch.Batch) {
	r := rand.New(rand.NewPCG(1, 2))
	var keys []batch.Key
	for _, b := range all {
		for i := range b.Series {
			keys = append(keys, b.Series[i].Key)
		}
	}
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, b := range all {
		for i := range b.Series {
			b.Series[i].Key, keys = keys[0], keys[1:]
		}
	}
}

// BenchmarkMemory reports what a known series costs.
func BenchmarkMemory(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("series=%d", n), func(b *testing.B) {
			for b.Loop() {
				all := requests(n, 2000)
				in := newIntake(b, testConfig(), limits.Defaults())
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				learnAll(b, in, all)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/series")
				require.Equal(b, int64(n), in.live.Load())
				runtime.KeepAlive(all)
			}
		})
	}
}
