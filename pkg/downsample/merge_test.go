package downsample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// mergeSource is a counter that is reset now and then, scraped at its times.
type mergeSource struct {
	ts []int64
	vs []float64
}

// tier returns its chunks of 5m, as floats or histograms.
func (s mergeSource) tier(tb testing.TB, hists bool) (out [][]byte) {
	tb.Helper()
	d := NewDownsampler(Resolution5m)
	if !hists {
		require.NoError(tb, d.Floats(s.ts, s.vs))
	}
	for i := range s.ts {
		if hists {
			require.NoError(tb, d.Histogram(s.ts[i], mergeHist(s.vs[i])))
		}
	}
	chunks, err := d.Finish(Resolution5m)
	require.NoError(tb, err)
	for _, c := range chunks {
		out = append(out, slices.Clone(c.Payload))
	}
	return out
}

func mergeHist(v float64) *histogram.FloatHistogram {
	h := tsdbutil.GenerateTestFloatHistogram(0).Mul(v)
	h.CounterResetHint = histogram.UnknownCounterReset
	return h
}

// laneOf decodes chunks to the windows of one lane, and checks that they follow one another.
func laneOf(tb testing.TB, payloads [][]byte) *lane {
	tb.Helper()
	var all *lane
	for _, p := range payloads {
		c, err := Decode(p)
		require.NoError(tb, err)
		l := &lane{}
		if l.hist = isHistogram(c[Counter].Encoding); l.hist {
			require.NoError(tb, l.readHists(c, Resolution5m))
		} else {
			require.NoError(tb, l.readFloats(c, Resolution5m))
		}
		if all == nil {
			all = l
			continue
		}
		require.Greater(tb, l.windows[0].firstT, all.windows[len(all.windows)-1].t)
		require.NoError(tb, all.goOn(l))
	}
	return all
}

func (a number) equal(b number) bool {
	if a.h == nil || b.h == nil {
		return a.h == b.h && same(a.f, b.f)
	}
	return a.h.Equals(b.h)
}

func merged(tb testing.TB, parts ...Part) *lane {
	tb.Helper()
	chunks, err := Merge(Resolution5m, parts)
	require.NoError(tb, err)
	var payloads [][]byte
	for _, c := range chunks {
		l := laneOf(tb, [][]byte{c.Payload})
		require.Equal(tb, l.windows[0].firstT, c.MinTime)
		require.Equal(tb, l.windows[len(l.windows)-1].t, c.MaxTime)
		require.Len(tb, l.windows, c.Windows)
		require.LessOrEqual(tb, c.Windows, chunkWindows)
		require.Equal(tb, l.hist, c.Histograms)
		payloads = append(payloads, c.Payload)
	}
	return laneOf(tb, payloads)
}

// total is what the counter of a lane grew from its first sample.
func (l *lane) grew(tb testing.TB) float64 {
	tb.Helper()
	first, last := l.windows[0].first, l.windows[len(l.windows)-1].counter
	for i := 1; i < len(l.windows); i++ {
		require.False(tb, l.windows[i].counter.below(l.windows[i-1].counter), "the counter goes down at %d", l.windows[i].t)
	}
	if l.hist {
		return last.h.Count - first.h.Count
	}
	return last.f - first.f
}

func (s mergeSource) grew(hists bool) (sum float64) {
	scale := 1.0
	if hists {
		scale = mergeHist(1).Count
	}
	for i := 1; i < len(s.vs); i++ {
		if s.vs[i] < s.vs[i-1] {
			sum += s.vs[i] * scale
		} else {
			sum += (s.vs[i] - s.vs[i-1]) * scale
		}
	}
	return sum
}

// truth is a counter of 1 a second that is reset at some times.
func truth(resets []int64) func(t int64) float64 {
	return func(t int64) float64 {
		since := int64(0)
		for _, r := range resets {
			if r <= t {
				since = r
			}
		}
		return float64((t - since) / 1000)
	}
}

func scraped(r *rand.Rand, f func(int64) float64, from, to int64, lost func(t int64) bool) (s mergeSource) {
	for t := from + r.Int64N(15_000); t < to; t += 15_000 {
		if !lost(t) {
			s.ts, s.vs = append(s.ts, t), append(s.vs, f(t))
		}
	}
	return s
}

// RELIABILITY C9, P4: copies of a replica are one, to the bit but for where
// chunks end.
func TestMergeCopies(t *testing.T) {
	for _, hists := range []bool{false, true} {
		r := rand.New(rand.NewPCG(1, 1))
		s := scraped(r, truth([]int64{20_000_000, 41_000_000}), 0, 100_000_000, func(int64) bool { return r.IntN(10) == 0 })
		var parts []Part
		for _, p := range s.tier(t, hists) {
			for k := range 3 {
				parts = append(parts, Part{Payload: p, Replica: k})
			}
		}
		want, got := laneOf(t, s.tier(t, hists)), merged(t, parts...)
		require.Len(t, got.windows, len(want.windows))
		for i, w := range want.windows {
			g := got.windows[i]
			require.Equal(t, w.t, g.t)
			require.True(t, w.count == g.count && w.min == g.min && w.max == g.max && w.sum.equal(g.sum))
		}
		require.InEpsilon(t, s.grew(hists), got.grew(t), 1e-9)

		// The same of one replica, from two places.
		for i := range parts {
			parts[i].Replica = 0
		}
		again := merged(t, parts...)
		require.Equal(t, len(got.windows), len(again.windows))
		for i := range got.windows {
			require.Equal(t, got.windows[i].count, again.windows[i].count)
		}
	}
}

// Replicas with outages: every window is of one of them, none is left out, and
// the counter has every reset once and no other.
func TestMergeReplicas(t *testing.T) {
	for seed := range uint64(200) {
		for _, hists := range []bool{false, true} {
			t.Run(fmt.Sprintf("hists=%t/seed=%d", hists, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 2))
				const span = 60_000_000
				var resets []int64
				for at := r.Int64N(span); at < span; at += r.Int64N(span) {
					resets = append(resets, at)
				}
				f := truth(resets)
				var parts []Part
				var lanes []*lane
				var sources []mergeSource
				for k := range 2 + r.IntN(2) {
					from, to := r.Int64N(10_000_000), span-r.Int64N(10_000_000)
					var gaps [3]int64
					for i := range gaps {
						gaps[i] = r.Int64N(span)
					}
					s := scraped(r, f, from, to, func(at int64) bool {
						return slices.ContainsFunc(gaps[:], func(g int64) bool { return g <= at && at < g+2_000_000 }) || r.IntN(50) == 0
					})
					sources = append(sources, s)
					payloads := s.tier(t, hists)
					lanes = append(lanes, laneOf(t, payloads))
					for _, p := range payloads {
						parts = append(parts, Part{Payload: p, Replica: k})
					}
				}
				got := merged(t, parts...)
				slots := map[int64]bool{}
				for _, l := range lanes {
					for i := range l.windows {
						slots[l.windows[i].slot()] = true
					}
				}
				require.Len(t, got.windows, len(slots))
				for i := range got.windows {
					g := &got.windows[i]
					require.True(t, slices.ContainsFunc(lanes, func(l *lane) bool {
						return slices.ContainsFunc(l.windows, func(w mergeWindow) bool {
							return w.t == g.t && w.count == g.count && w.min == g.min && w.max == g.max && w.sum.equal(g.sum)
						})
					}), "window at %d", g.t)
				}
				// What there was to be seen, give or take a window at each change of replica.
				first, last := int64(math.MaxInt64), int64(0)
				for _, s := range sources {
					first, last = min(first, s.ts[0]), max(last, s.ts[len(s.ts)-1])
				}
				whole := mergeSource{}
				for at := first; at <= last; at += 1000 {
					whole.ts, whole.vs = append(whole.ts, at), append(whole.vs, f(at))
				}
				scale := 1.0
				if hists {
					scale = mergeHist(1).Count
				}
				grew := got.grew(t)
				require.LessOrEqual(t, grew, whole.grew(hists)+scale*float64(60+300*3*len(sources)))
				// A reset within a gap of all hides what was before it.
				least := 0.0
				for _, s := range sources {
					least = max(least, s.grew(hists))
				}
				require.GreaterOrEqual(t, grew, 0.8*least-600*scale)
			})
		}
	}
}

// Late samples of the same replica, downsampled on their own: counts, sums,
// minima and maxima are those of all samples.
func TestMergeLate(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	all := scraped(r, func(int64) float64 { return float64(r.IntN(1000)) }, 0, 30_000_000, func(int64) bool { return false })
	var inTime, late mergeSource
	for i := range all.ts {
		to := &inTime
		if i > 300 && r.IntN(3) == 0 {
			to = &late
		}
		to.ts, to.vs = append(to.ts, all.ts[i]), append(to.vs, all.vs[i])
	}
	var parts []Part
	for _, p := range append(inTime.tier(t, false), late.tier(t, false)...) {
		parts = append(parts, Part{Payload: p})
	}
	want, got := laneOf(t, all.tier(t, false)), merged(t, parts...)
	require.Len(t, got.windows, len(want.windows))
	for i, w := range want.windows {
		g := got.windows[i]
		require.Equal(t, []any{w.slot(), w.count, w.sum, w.min, w.max}, []any{g.slot(), g.count, g.sum, g.min, g.max})
	}
}

// Samples that came twice, once in a chunk with coarser buckets and once in one
// that ends with them, count once.
func TestMergeCopiesOfOtherChunks(t *testing.T) {
	tier := func(until int64) (out []Part) {
		d := NewDownsampler(Resolution5m)
		for at := int64(10_000); at < until; at += 70_000 {
			schema := int32(2)
			if at > 3_600_000 {
				schema = 1
			}
			require.NoError(t, d.Histogram(at, &histogram.FloatHistogram{
				Schema: schema, Count: float64(at), Sum: float64(at) / 2, ZeroThreshold: 0.001,
				PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, float64(at) - 1},
			}))
		}
		chunks, err := d.Finish(Resolution5m)
		require.NoError(t, err)
		for _, c := range chunks {
			out = append(out, Part{Payload: slices.Clone(c.Payload)})
		}
		return out
	}
	short, long := tier(3_600_000), tier(7_200_000)
	want := merged(t, long...)
	for _, parts := range [][]Part{slices.Concat(short, long), slices.Concat(long, short)} {
		got := merged(t, parts...)
		require.Len(t, got.windows, len(want.windows))
		for i, w := range want.windows {
			g := got.windows[i]
			require.Equal(t, []float64{w.count, w.sum.h.Count, w.sum.h.Sum}, []float64{g.count, g.sum.h.Count, g.sum.h.Sum}, "window %d", i)
		}
	}
}

// A series that turns from floats to histograms within a window, in two replicas.
func TestMergeKinds(t *testing.T) {
	make := func(shift int64) (out [][]byte) {
		d := NewDownsampler(Resolution5m)
		for at := shift; at < 3_000_000; at += 15_000 {
			if at < 1_000_000 {
				require.NoError(t, d.Floats([]int64{at}, []float64{float64(at)}))
			} else {
				require.NoError(t, d.Histogram(at, mergeHist(float64(at))))
			}
		}
		chunks, err := d.Finish(Resolution5m)
		require.NoError(t, err)
		for _, c := range chunks {
			out = append(out, slices.Clone(c.Payload))
		}
		return out
	}
	var parts []Part
	for k := range 2 {
		for _, p := range make(int64(k) * 7000) {
			parts = append(parts, Part{Payload: p, Replica: k})
		}
	}
	chunks, err := Merge(Resolution5m, parts)
	require.NoError(t, err)
	require.Len(t, chunks, 2)
	require.False(t, chunks[0].Histograms)
	require.True(t, chunks[1].Histograms)
	require.Less(t, chunks[0].MaxTime, chunks[1].MinTime)
	require.Equal(t, 4, chunks[0].Windows)
	require.Equal(t, 7, chunks[1].Windows)
}

func TestMergeRefusesDamage(t *testing.T) {
	s := mergeSource{ts: []int64{1, 2, 3}, vs: []float64{1, 2, 3}}
	p := s.tier(t, false)[0]
	_, err := Merge(Resolution5m, []Part{{Payload: p}, {Payload: p[:len(p)-3], Replica: 1}})
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = Merge(Resolution5m, []Part{{Payload: p}, {Payload: append([]byte{0}, p...), Replica: 1}})
	require.ErrorIs(t, err, ErrCorrupt)
}

// Late samples of another kind may begin before the window ends that stands
// before theirs; the chunks of 1h follow one another all the same.
func TestAggregateBeginsBehindTheLast(t *testing.T) {
	chunk := func(hists bool, ts ...int64) Chunk {
		d := NewDownsampler(Resolution5m)
		for _, at := range ts {
			if hists {
				require.NoError(t, d.Histogram(at, mergeHist(float64(at))))
			} else {
				require.NoError(t, d.Floats([]int64{at}, []float64{float64(at)}))
			}
		}
		out, err := d.Finish(Resolution5m)
		require.NoError(t, err)
		require.Len(t, out, 1)
		c, err := Decode(slices.Clone(out[0].Payload))
		require.NoError(t, err)
		return c
	}
	for _, hists := range []bool{false, true} {
		d := NewDownsampler(Resolution1h)
		require.NoError(t, d.Aggregate(chunk(hists, 10_000, 590_000)))
		require.NoError(t, d.Aggregate(chunk(!hists, 580_000, 700_000)))
		out, err := d.Finish(Resolution1h)
		require.NoError(t, err)
		require.Len(t, out, 2)
		require.Less(t, out[0].MaxTime, out[1].MinTime)
		require.LessOrEqual(t, out[1].MinTime, out[1].MaxTime)
	}
}
