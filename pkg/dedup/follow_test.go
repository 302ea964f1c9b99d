package dedup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// arrays is a replica in arrays, of which Run hands out at most batch at a time.
// It counts the samples that were asked for one by one.
type arrays struct {
	points []point
	i      int // of the current one; -1 before the first
	batch  int
	read   int
}

func (a *arrays) Next() chunkenc.ValueType {
	if a.i++; a.i >= len(a.points) {
		a.i = len(a.points)
		return chunkenc.ValNone
	}
	a.read++
	return chunkenc.ValFloat
}

func (a *arrays) Skip(t int64, keep int) {
	passed, _ := slices.BinarySearchFunc(a.points, t+1, func(p point, t int64) int { return int(p.t - t) })
	a.i = max(a.i, passed-keep-1)
}

func (a *arrays) Run() (ts []int64, vs []float64) {
	// Batches end at fixed places, as chunks do.
	for i := a.i + 1; i < len(a.points) && i%a.batch != 0; i++ {
		ts, vs = append(ts, a.points[i].t), append(vs, a.points[i].v)
	}
	return ts, vs
}

func (a *arrays) Advance(n int)        { a.i += n }
func (a *arrays) At() (int64, float64) { return a.points[a.i].t, a.points[a.i].v }
func (a *arrays) AtT() int64           { return a.points[a.i].t }
func (a *arrays) AtST() int64          { return 0 }
func (a *arrays) Err() error           { return nil }
func (a *arrays) Seek(t int64) chunkenc.ValueType {
	for {
		if typ := a.Next(); typ == chunkenc.ValNone || a.AtT() >= t {
			return typ
		}
	}
}

func (a *arrays) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("floats only")
}

func (a *arrays) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("floats only")
}

// Passing over samples and following a replica give what reading each sample gives.
func TestFollowAndSkip(t *testing.T) {
	for seed := range uint64(2000) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 9))
			counter := r.IntN(2) == 0
			var plain, fast []chunkenc.Iterator
			for range 2 + r.IntN(2) {
				points := randomReplica(r)
				plain = append(plain, iterate([]Replica{{replica(t, 120, points)}})...)
				fast = append(fast, &arrays{points: points, i: -1, batch: 1 + r.IntN(150)})
			}
			want := drain(t, New(Firnline, counter, plain...))
			it := New(Firnline, counter, fast...).(Follower)
			var got []point
			for it.Next() == chunkenc.ValFloat {
				at, v := it.At()
				got = append(got, point{at, v})
				i, n := it.Follow()
				if n == 0 {
					continue
				}
				a := fast[i].(*arrays)
				got = append(got, a.points[a.i+1-n:a.i+1]...)
			}
			require.NoError(t, it.Err())
			equal(t, want, got)
		})
	}
}

// randomReplica is scraped with jitter, loses scrapes, has outages, resets and
// stale markers, and at times nothing but a few samples.
func randomReplica(r *rand.Rand) (out []point) {
	interval, n := []int64{1000, 15_000, 60_000}[r.IntN(3)], 1+r.IntN(600)
	v, t := 0.0, r.Int64N(600_000)
	for range n {
		switch r.IntN(60) {
		case 0:
			t += r.Int64N(50 * interval)
		case 1:
			v = 0
		case 2:
			out = append(out, point{t, staleV})
			t += interval
		}
		v += float64(r.IntN(4))
		out = append(out, point{t, v})
		t += interval + r.Int64N(interval/10)
		if r.IntN(30) == 0 {
			t += interval
		}
	}
	return out
}

// A replica that has all its samples is followed, and the other one hardly read.
func TestOtherReplicaIsHardlyRead(t *testing.T) {
	f := func(t int64) float64 { return float64(t) }
	a := &arrays{points: series(0, 15_000_000, 15_000, f), i: -1, batch: 120}
	b := &arrays{points: series(7_000, 15_000_000, 15_000, f), i: -1, batch: 120}
	it := New(Firnline, true, a, b).(Follower)
	for it.Next() == chunkenc.ValFloat {
		it.Follow()
	}
	require.LessOrEqual(t, a.read, 2*len(a.points)/120+8, "one by one")
	require.LessOrEqual(t, b.read, 20)
}
