package downsample

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"
)

// cutAll cuts every chunk of a series, as merging does.
func cutAll(tb testing.TB, chunks []Encoded, resolution int64, cuts tombstones.Intervals) (out []Encoded) {
	tb.Helper()
	for i, e := range chunks {
		var next *float64
		if i+1 < len(chunks) && !chunks[i+1].Histograms {
			next = &decodeFloats(tb, chunks[i+1]).first
		}
		cut, ok, err := Cut(e.Payload, resolution, cuts, next)
		require.NoError(tb, err)
		if !ok {
			continue
		}
		require.Equal(tb, e.Histograms, cut.Histograms)
		if cut.Windows == e.Windows {
			require.Equal(tb, e, cut, "what loses nothing stays as it is")
		}
		again, ok, err := Cut(cut.Payload, resolution, cuts, next)
		require.NoError(tb, err)
		require.True(tb, ok)
		require.Equal(tb, cut, again)
		out = append(out, cut)
	}
	return out
}

func randomCuts(rnd *rand.Rand, mint, maxt int64) (cuts tombstones.Intervals) {
	for range 1 + rnd.Intn(4) {
		from := mint - Resolution1h + rnd.Int63n(maxt-mint+2*Resolution1h)
		long := []int64{1, Resolution5m, 10 * Resolution1h}[rnd.Intn(3)]
		cuts = cuts.Add(tombstones.Interval{Mint: from, Maxt: from + rnd.Int63n(long)})
	}
	return cuts
}

// windowsOf returns all samples of an aggregate.
func windowsOf(tb testing.TB, chunks []Encoded, a Type) []sample {
	tb.Helper()
	out := []sample{}
	for _, e := range chunks {
		c, err := Decode(e.Payload)
		require.NoError(tb, err)
		if c.Has(a) && c[a].Encoding == chunkenc.EncXOR {
			out = append(out, floats(tb, chunkOf(c[a].Bytes).Iterator(nil))...)
		}
	}
	return out
}

// TestCutLeavesTheOthers compares every aggregate of every window that stays
// with what it was, and that those windows are the right ones.
func TestCutLeavesTheOthers(t *testing.T) {
	for seed := range int64(200) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewSource(seed))
			samples := randomHistograms(rnd)
			d := NewDownsampler(Resolution5m, Resolution1h)
			addSamples(t, d, samples)
			resolution := []int64{Resolution5m, Resolution1h}[rnd.Intn(2)]
			before := finish(t, d, resolution)
			if len(before) == 0 {
				return
			}
			cuts := randomCuts(rnd, samples[0].t, samples[len(samples)-1].t)
			after := cutAll(t, before, resolution, cuts)
			gone := func(s sample) bool { // the window of a chunk that begins within another's is taken to be whole
				for x := range cuts {
					if cuts[x].Mint <= s.t && cuts[x].Maxt >= WindowStart(s.t, resolution) {
						return true
					}
				}
				return false
			}
			for _, a := range []Type{Count, Sum, Min, Max} {
				want := slices.DeleteFunc(windowsOf(t, before, a), gone)
				require.Equal(t, want, windowsOf(t, after, a))
			}
			sums, counts := histogramWindows(t, after), windowsOf(t, after, Count)
			for ts, sum := range histogramWindows(t, before) {
				if !gone(sample{t: ts}) {
					require.True(t, sum.same(t, sums[ts]), "sum and counter at %d", ts)
				}
			}
			require.LessOrEqual(t, len(sums), len(counts))
		})
	}
}

// window is that of a histogram.
type window struct{ sum, counter fmt.Stringer }

func (w window) same(tb testing.TB, o window) bool {
	tb.Helper()
	return o.sum != nil && w.sum.String() == o.sum.String() && w.counter.String() == o.counter.String()
}

func histogramWindows(tb testing.TB, chunks []Encoded) map[int64]window {
	tb.Helper()
	out := map[int64]window{}
	for _, e := range chunks {
		if !e.Histograms {
			continue
		}
		sub, err := Decode(e.Payload)
		require.NoError(tb, err)
		c, err := decodeHists(sub)
		require.NoError(tb, err)
		for i, t := range c.t {
			out[t] = window{c.sum[i].Compact(0), c.counter[i].Compact(0)}
		}
	}
	return out
}

// TestCutCountersReadAsBefore: between windows that stay, a counter grows as it
// did, unless it was reset exactly where a chunk ends or in a chunk that is cut
// whole; then what the cut windows had may be missing, and no more than that.
func TestCutCountersReadAsBefore(t *testing.T) {
	for seed := range int64(400) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewSource(seed))
			var raw []sample
			ts, vs := randomSeries(rnd, 0)
			if raw = kept(ts, vs); len(raw) == 0 {
				return
			}
			var before []Encoded
			resets := map[int64]bool{} // first times of chunks that begin with one
			for i := 0; i < len(raw); {
				n := min(len(raw)-i, 1+rnd.Intn(500))
				d := NewDownsampler(Resolution5m)
				for _, s := range raw[i : i+n] {
					require.NoError(t, d.Floats([]int64{s.t}, []float64{s.v}))
				}
				before = append(before, finish(t, d, Resolution5m)...)
				i += n
			}
			last := 0.0
			for _, e := range before {
				c := decodeFloats(t, e)
				resets[e.MaxTime] = c.first < last
				last = c.last
			}
			cuts := randomCuts(rnd, raw[0].t, raw[len(raw)-1].t)
			after := cutAll(t, before, Resolution5m, cuts)
			was, is := counters(t, before), counters(t, after)
			stay := windowsOf(t, after, Count)
			for i := 1; i < len(stay); i++ {
				from, to := stay[i-1].t, stay[i].t
				grew, grows := was[to]-was[from], is[to]-is[from]
				crossed := false
				for _, e := range before {
					whole := e.MinTime > from && e.MaxTime < to // cut with its resets
					crossed = crossed || whole || resets[e.MaxTime] && e.MaxTime > from && e.MinTime <= to
				}
				if crossed {
					require.LessOrEqual(t, grows, grew, "%d to %d", from, to)
					require.GreaterOrEqual(t, grows, 0.0, "%d to %d", from, to)
				} else {
					require.Equal(t, grew, grows, "%d to %d", from, to)
				}
			}
		})
	}
}

// counters returns what NewCounter reads at each time.
func counters(tb testing.TB, chunks []Encoded) map[int64]float64 {
	tb.Helper()
	var its []chunkenc.Iterator
	for _, e := range chunks {
		its = append(its, counterOf(tb, e))
	}
	out := map[int64]float64{}
	for _, s := range floats(tb, NewCounter(its)) {
		out[s.t] = s.v
	}
	return out
}

func TestCutAtAReset(t *testing.T) {
	minute := func(m int64) int64 { return m * 60_000 }
	encode := func(samples ...sample) Encoded {
		d := NewDownsampler(Resolution5m)
		for _, s := range samples {
			require.NoError(t, d.Floats([]int64{s.t}, []float64{s.v}))
		}
		return finish(t, d, Resolution5m)[0]
	}
	// Windows end with 10, 50, 100.
	e := encode(sample{minute(1), 10}, sample{minute(6), 50}, sample{minute(11), 100})
	cuts := tombstones.Intervals{{Mint: minute(11), Maxt: minute(11)}}
	for name, c := range map[string]struct{ next, last float64 }{
		"goes on":                         {120, 50},  // 120-50 = 70, of which 50 are of the window that was cut
		"reset, seen anyhow":              {7, 50},    // 7 < 50: +7
		"reset, hidden by the cut if not": {60, 100},  // 60 < 100: +60
		"the same value":                  {100, 50},  // no reset
		"reset to the value that stays":   {50, 100},  // 50 < 100: +50
		"far above":                       {1e18, 50}, //
	} {
		cut, ok, err := Cut(e.Payload, Resolution5m, cuts, &c.next)
		require.NoError(t, err)
		require.True(t, ok)
		f := decodeFloats(t, cut)
		require.Equal(t, c.last, f.last, name)
		require.Equal(t, []float64{10, 50}, f.counter, name)
	}
	cut, ok, err := Cut(e.Payload, Resolution5m, tombstones.Intervals{{Mint: 0, Maxt: minute(1)}}, nil)
	require.NoError(t, err)
	require.True(t, ok)
	f := decodeFloats(t, cut)
	require.Equal(t, sample{f.t[0], 50}, sample{f.firstT, f.first}, "nothing of what was cut stays visible")

	_, ok, err = Cut(e.Payload, Resolution5m, tombstones.Intervals{{Mint: 0, Maxt: minute(60)}}, nil)
	require.NoError(t, err)
	require.False(t, ok)
}

// FuzzCut gives Cut, Merge, and the way into the 1h tier, bytes of any kind.
func FuzzCut(f *testing.F) {
	for seed := range int64(8) {
		rnd := rand.New(rand.NewSource(seed))
		d := NewDownsampler(Resolution5m)
		inBatches(f, rnd, d, []int64{1 << 41, 1<<41 + 400_000}, []float64{5, 3})
		for i := range int64(20) {
			require.NoError(f, d.Histogram(1<<41+500_000+i*60_000, &histogram.FloatHistogram{
				Schema: 1, ZeroThreshold: 0.1, ZeroCount: float64(i), Count: float64(2*i + seed), Sum: 1,
				PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []float64{float64(i), float64(seed)},
			}))
		}
		for _, e := range finish(f, d, Resolution5m) {
			f.Add(e.Payload, e.MinTime, e.MaxTime-400_000)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, from, to int64) {
		c, _ := Decode(in)
		cuts := tombstones.Intervals{{Mint: from, Maxt: to}}
		cut, ok, err := Cut(in, Resolution5m, cuts, &[]float64{1}[0])
		if err == nil && ok {
			again, ok, err := Cut(cut.Payload, Resolution5m, cuts, nil)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, cut.Windows, again.Windows)
		}
		d := NewDownsampler(Resolution1h)
		if d.Aggregate(c) == nil {
			_, _ = d.Finish(Resolution1h)
		}
		_, _ = Merge(Resolution5m, []Part{{Payload: in}, {Payload: in, Replica: 1}})
	})
}
