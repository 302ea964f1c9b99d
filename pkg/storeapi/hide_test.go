package storeapi_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// randomSamples are n samples of one of the kinds that a series may have, some
// resets and stale markers among them.
func randomSamples(r *rand.Rand, n int, withST bool) []storetest.Sample {
	kind := r.IntN(4)
	out := make([]storetest.Sample, n)
	t, count := int64(-1000), int64(1)
	for i := range out {
		t += 1 + r.Int64N(30)
		if count += r.Int64N(4); r.IntN(15) == 0 {
			count = r.Int64N(3) + 1
		}
		s := storetest.Sample{T: t}
		if withST && r.IntN(3) > 0 {
			s.ST = t - r.Int64N(50) - 1
		}
		stale := r.IntN(12) == 0
		switch kind {
		case 0:
			if s.V = float64(count); stale {
				s.V = math.Float64frombits(value.StaleNaN)
			}
		case 1:
			if s.H = blocktest.Histogram(count); stale {
				s.H = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
			}
		case 2:
			if s.FH = blocktest.FloatHistogram(count); stale {
				s.FH = &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
			}
			if r.IntN(2) == 0 {
				s.FH.CounterResetHint = histogram.GaugeType
			}
		default:
			s.H = blocktest.CustomBuckets(count)
		}
		out[i] = s
	}
	return out
}

func randomCuts(r *rand.Rand, mint, maxt int64) (cuts tombstones.Intervals) {
	for range r.IntN(4) {
		from := mint - 5 + r.Int64N(maxt-mint+10)
		cuts = cuts.Add(tombstones.Interval{Mint: from, Maxt: from + r.Int64N(1+(maxt-mint)/2)})
	}
	return cuts
}

// TestHideEqualsSamplesRemoved: what a set shows is what is left when the hidden
// samples are taken out one by one, in every encoding.
func TestHideEqualsSamplesRemoved(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			withST := r.IntN(2) == 0
			cuts := map[string]tombstones.Intervals{}
			var in, whole []storeapi.Series
			var want [][]storetest.Sample
			for i := range 4 {
				lset := labels.FromStrings("i", fmt.Sprint(i))
				samples := randomSamples(r, 1+r.IntN(60), withST)
				chunks := storetest.Chunks(t, samples, withST, 1+r.IntN(20))
				in = append(in, storeapi.Series{Labels: lset, Chunks: chunks})
				whole = append(whole, storeapi.Series{Labels: lset, Chunks: cloneChunks(chunks)})
				cuts[lset.String()] = randomCuts(r, samples[0].T, samples[len(samples)-1].T)
				left := storetest.Samples(t, chunks, math.MinInt64, math.MaxInt64)
				left = slices.DeleteFunc(left, func(s storetest.Sample) bool {
					return slices.ContainsFunc(cuts[lset.String()], func(in tombstones.Interval) bool { return in.InBounds(s.T) })
				})
				if len(left) > 0 {
					want = append(want, left)
				}
			}
			set := storeapi.Hide(storeapi.SliceSet(in, storeapi.Report{}), storeapi.Selection{Mint: math.MinInt64, Maxt: math.MaxInt64},
				func(lset labels.Labels) tombstones.Intervals { return cuts[lset.String()] })
			var got [][]storetest.Sample
			for set.Next() {
				s := set.At()
				require.NotEmpty(t, s.Chunks)
				for i, c := range s.Chunks {
					require.Equal(t, c.MinTime, storetest.Samples(t, s.Chunks[i:i+1], math.MinInt64, math.MaxInt64)[0].T)
					require.LessOrEqual(t, c.MinTime, c.MaxTime)
				}
				requireHintsHold(t, s.Chunks)
				got = append(got, storetest.Samples(t, s.Chunks, math.MinInt64, math.MaxInt64))
			}
			require.NoError(t, set.Err())
			require.Equal(t, fmt.Sprint(want), fmt.Sprint(got))
			require.Equal(t, whole, in, "what was handed out is not written to")
		})
	}
}

func cloneChunks(in []storeapi.Chunk) []storeapi.Chunk {
	out := slices.Clone(in)
	for i := range out {
		out[i].Raw.Bytes = slices.Clone(out[i].Raw.Bytes)
	}
	return out
}

// requireHintsHold: a histogram that says it is no reset is none against the
// sample that is before it now.
func requireHintsHold(t *testing.T, chunks []storeapi.Chunk) {
	t.Helper()
	var last *histogram.FloatHistogram
	for _, c := range chunks {
		chunk, err := c.Raw.Chunk()
		require.NoError(t, err)
		for it := chunk.Iterator(nil); ; {
			typ := it.Next()
			if typ != chunkenc.ValHistogram && typ != chunkenc.ValFloatHistogram {
				break
			}
			_, h := it.AtFloatHistogram(nil)
			if value.IsStaleNaN(h.Sum) {
				last = nil
				continue
			}
			if h.CounterResetHint == histogram.NotCounterReset && last != nil {
				h.CounterResetHint = histogram.UnknownCounterReset
				require.False(t, h.DetectReset(last), "at %d", it.AtT())
			}
			last = h
		}
	}
}

// TestHideKeepsHints: a chunk that began with a reset still says so, gauges stay
// gauges, and what is not known any more is not promised.
func TestHideKeepsHints(t *testing.T) {
	header := func(d storeapi.Data) chunkenc.CounterResetHeader {
		c, err := d.Chunk()
		require.NoError(t, err)
		return c.(interface {
			GetCounterResetHeader() chunkenc.CounterResetHeader
		}).GetCounterResetHeader()
	}
	for _, tc := range []struct{ was, headless, tailless chunkenc.CounterResetHeader }{
		{chunkenc.CounterReset, chunkenc.CounterReset, chunkenc.CounterReset},
		{chunkenc.NotCounterReset, chunkenc.UnknownCounterReset, chunkenc.NotCounterReset},
		{chunkenc.UnknownCounterReset, chunkenc.UnknownCounterReset, chunkenc.UnknownCounterReset},
		{chunkenc.GaugeType, chunkenc.GaugeType, chunkenc.GaugeType},
	} {
		for _, withST := range []bool{false, true} {
			var samples []storetest.Sample
			for i := range int64(4) {
				samples = append(samples, storetest.Sample{T: i, FH: blocktest.FloatHistogram(i + 1)})
			}
			for _, cut := range []struct {
				tombstones.Interval
				want chunkenc.CounterResetHeader
			}{{tombstones.Interval{Mint: -10, Maxt: 1}, tc.headless}, {tombstones.Interval{Mint: 2, Maxt: 9}, tc.tailless}} {
				c := storetest.Chunks(t, samples, withST, 0)[0]
				at := 2
				if withST {
					at = 0
				}
				c.Raw.Bytes[at] = c.Raw.Bytes[at]&^chunkenc.CounterResetHeaderMask | byte(tc.was)
				require.Equal(t, tc.was, header(c.Raw))
				keep, err := storeapi.CutChunk(&c, tombstones.Intervals{cut.Interval}, 0)
				require.NoError(t, err)
				require.True(t, keep)
				require.Equal(t, cut.want, header(c.Raw))
				require.Len(t, timesOf(t, c.Raw), 2)
			}
		}
	}
}

func TestHideLabelsOnly(t *testing.T) {
	in := []storeapi.Series{{Labels: labels.FromStrings("a", "1")}, {Labels: labels.FromStrings("a", "2")}}
	hidden := func(lset labels.Labels) tombstones.Intervals {
		if lset.Get("a") == "1" {
			return tombstones.Intervals{{Mint: 10, Maxt: 20}}
		}
		return nil
	}
	for name, tc := range map[string]struct {
		mint, maxt int64
		want       int
	}{"covered": {10, 20, 1}, "partly": {9, 20, 2}, "inside": {12, 13, 1}, "beside": {30, 40, 2}} {
		sel := storeapi.Selection{Mint: tc.mint, Maxt: tc.maxt, SkipChunks: true}
		set := storeapi.Hide(storeapi.SliceSet(in, storeapi.Report{}), sel, hidden)
		n := 0
		for set.Next() {
			n++
		}
		require.NoError(t, set.Err())
		require.Equal(t, tc.want, n, name)
	}
}

func TestHideNothingIsFree(t *testing.T) {
	set := storeapi.EmptySet(storeapi.Report{})
	require.Equal(t, set, storeapi.Hide(set, storeapi.Selection{}, nil))
}

// TestHideCorrupt: bytes that can't be read end the set with an error; nothing
// that was to be hidden is shown instead.
func TestHideCorrupt(t *testing.T) {
	for name, d := range map[string]storeapi.Data{
		"encoding": {Encoding: 77, Bytes: []byte{0, 1, 2, 3}},
		"cut":      {Encoding: chunkenc.EncXOR, Bytes: []byte{0, 9, 2, 3}},
		"no bytes": {Encoding: chunkenc.EncHistogram},
	} {
		in := []storeapi.Series{{Labels: labels.FromStrings("a", "1"), Chunks: []storeapi.Chunk{{MinTime: 0, MaxTime: 9, Raw: d}}}}
		set := storeapi.Hide(storeapi.SliceSet(in, storeapi.Report{}), storeapi.Selection{Mint: 0, Maxt: 100},
			func(labels.Labels) tombstones.Intervals { return tombstones.Intervals{{Mint: 5, Maxt: 6}} })
		if name == "no bytes" {
			continue // an absent chunk has nothing to hide
		}
		require.False(t, set.Next(), name)
		require.ErrorIs(t, set.Err(), storeapi.ErrCorrupt, name)
		require.ErrorContains(t, set.Err(), `{a="1"}`, name)
	}
}

// aggregates makes an aggregate chunk of the windows that end at times: every
// aggregate is the window's number. The counter has a first raw sample and, at
// the end, the true last value.
func aggregates(t *testing.T, first int64, times ...int64) *storeapi.Aggregates {
	xor := func(ts []int64) storeapi.Data {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for i, at := range ts {
			app.Append(0, at, float64(i))
		}
		return storeapi.DataOf(c)
	}
	counter := append(append([]int64{first}, times...), times[len(times)-1])
	return &storeapi.Aggregates{Count: xor(times), Sum: xor(times), Min: xor(times), Max: xor(times), Counter: xor(counter)}
}

func timesOf(t *testing.T, d storeapi.Data) (out []int64) {
	c, err := d.Chunk()
	require.NoError(t, err)
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		out = append(out, it.AtT())
	}
	require.NoError(t, it.Err())
	return out
}

func TestCutAggregates(t *testing.T) {
	const m5, h1 = int64(300_000), int64(3_600_000)
	five := []int64{m5 - 1, 2*m5 - 1, 3*m5 - 1, 3*m5 + 17}
	hours := []int64{h1 - 1, 2*h1 - 1, 3*h1 - 1}
	for name, tc := range map[string]struct {
		times      []int64
		cut        tombstones.Interval
		resolution int64
		want       []int64
	}{
		"middle":                 {five, tombstones.Interval{Mint: m5 + 5, Maxt: m5 + 5}, m5, []int64{five[0], five[2], five[3]}},
		"two by an edge":         {five, tombstones.Interval{Mint: m5 - 1, Maxt: m5}, m5, five[2:]},
		"first":                  {five, tombstones.Interval{Mint: 0, Maxt: 0}, m5, five[1:]},
		"last, short":            {five, tombstones.Interval{Mint: 3*m5 + 17, Maxt: 5 * m5}, m5, five[:3]},
		"after the last sample":  {five, tombstones.Interval{Mint: 3*m5 + 18, Maxt: 5 * m5}, m5, five},
		"all":                    {five, tombstones.Interval{Mint: 0, Maxt: 4 * m5}, m5, nil},
		"beside":                 {five, tombstones.Interval{Mint: 4 * m5, Maxt: 5 * m5}, m5, five},
		"resolution unknown":     {five, tombstones.Interval{Mint: m5 + 5, Maxt: m5 + 5}, 0, []int64{five[0], five[2], five[3]}},
		"hours, unknown":         {hours, tombstones.Interval{Mint: h1 + 5, Maxt: h1 + 5}, 0, []int64{hours[0], hours[2]}},
		"one window, unknown":    {five[:1], tombstones.Interval{Mint: m5 + 5, Maxt: m5 + 5}, 0, five[:1]},
		"before the chunk's end": {[]int64{-h1 - 1, -1}, tombstones.Interval{Mint: -h1, Maxt: -h1}, h1, []int64{-h1 - 1}},
	} {
		t.Run(name, func(t *testing.T) {
			first := tc.times[0] - 100
			for _, only := range []string{"all", "counter", "count and sum"} {
				a := aggregates(t, first, tc.times...)
				switch only {
				case "counter":
					a = &storeapi.Aggregates{Counter: a.Counter}
				case "count and sum":
					a = &storeapi.Aggregates{Count: a.Count, Sum: a.Sum}
				}
				c := storeapi.Chunk{MinTime: tc.times[0], MaxTime: tc.times[len(tc.times)-1], Aggr: a}
				before := *a
				keep, err := storeapi.CutChunk(&c, tombstones.Intervals{tc.cut}, tc.resolution)
				require.NoError(t, err)
				require.Equal(t, before, *a, "what was handed out is not written to")
				require.Equal(t, tc.want != nil, keep)
				if !keep {
					continue
				}
				require.Equal(t, tc.want[0], c.MinTime)
				require.Equal(t, tc.want[len(tc.want)-1], c.MaxTime)
				if only != "counter" {
					require.Equal(t, tc.want, timesOf(t, c.Aggr.Count))
					require.Equal(t, tc.want, timesOf(t, c.Aggr.Sum))
				}
				if only != "count and sum" {
					want := tc.want
					if want[0] == tc.times[0] {
						want = append([]int64{first}, want...)
					}
					want = append(slices.Clone(want), want[len(want)-1]) // the true last value
					require.Equal(t, want, timesOf(t, c.Aggr.Counter))
				}
			}
		})
	}
}

// FuzzCutChunk: whatever the bytes, a chunk is cut, dropped or refused.
func FuzzCutChunk(f *testing.F) {
	for _, s := range [][]storetest.Sample{
		{{T: 1, V: 1}, {T: 5, V: 2}, {T: 9, V: 3}},
		{{T: 1, H: blocktest.Histogram(1)}, {T: 5, H: blocktest.Histogram(2)}},
		{{T: 1, FH: blocktest.FloatHistogram(1)}, {T: 5, FH: blocktest.FloatHistogram(2)}},
	} {
		enc := storeapi.Encoder{StartTimestamps: s[0].V == 1}
		for _, x := range s {
			switch {
			case x.H != nil:
				require.NoError(f, enc.Histogram(0, x.T, x.H))
			case x.FH != nil:
				require.NoError(f, enc.FloatHistogram(0, x.T, x.FH))
			default:
				require.NoError(f, enc.Float(0, x.T, x.V))
			}
		}
		d := enc.Chunks()[0].Raw
		f.Add(byte(d.Encoding), d.Bytes, int64(2), int64(6))
	}
	f.Fuzz(func(t *testing.T, enc byte, data []byte, from, to int64) {
		c := storeapi.Chunk{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Raw: storeapi.Data{Encoding: chunkenc.Encoding(enc), Bytes: data}}
		cuts := tombstones.Intervals{{Mint: min(from, to), Maxt: max(from, to)}}
		keep, err := storeapi.CutChunk(&c, cuts, 0)
		if err != nil {
			require.ErrorIs(t, err, storeapi.ErrCorrupt)
			return
		}
		if !keep || c.Raw.IsZero() {
			return
		}
		for _, at := range timesOf(t, c.Raw) {
			require.False(t, cuts[0].InBounds(at))
		}
	})
}

// TestHiddenIsWhatIsRemoved: a downsampled chunk shows after hiding what
// downsample.Cut, which compaction goes by, leaves of it.
func TestHiddenIsWhatIsRemoved(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			resolution := []int64{downsample.Resolution5m, downsample.Resolution1h}[r.IntN(2)]
			histograms := r.IntN(3) == 0
			d := downsample.NewDownsampler(resolution)
			at, count := int64(r.IntN(10_000_000)), int64(0)
			from := at
			for range 10 + r.IntN(300) {
				at += 1 + r.Int64N(resolution/3)
				if count += r.Int64N(5); r.IntN(20) == 0 {
					count = r.Int64N(3)
				}
				if histograms {
					require.NoError(t, d.Histogram(at, blocktest.FloatHistogram(count+1)))
				} else {
					require.NoError(t, d.Floats([]int64{at}, []float64{float64(count)}))
				}
			}
			encoded, err := d.Finish(resolution)
			require.NoError(t, err)
			for range 5 {
				cuts := randomCuts(r, from, at)
				for _, e := range encoded {
					compareCuts(t, e, resolution, cuts)
				}
			}
		})
	}
}

func compareCuts(t *testing.T, e downsample.Encoded, resolution int64, cuts tombstones.Intervals) {
	t.Helper()
	want, left, err := downsample.Cut(e.Payload, resolution, cuts, nil)
	require.NoError(t, err)
	c := storeapi.Chunk{MinTime: e.MinTime, MaxTime: e.MaxTime, Aggr: aggregatesOf(t, e.Payload)}
	keep, err := storeapi.CutChunk(&c, cuts, resolution)
	require.NoError(t, err)
	require.Equal(t, left, keep, "%v", cuts)
	if !keep {
		return
	}
	require.Equal(t, want.MaxTime, c.MaxTime)
	require.Equal(t, want.MinTime, c.MinTime)
	w := aggregatesOf(t, want.Payload)
	for _, pair := range [][2]storeapi.Data{{w.Count, c.Aggr.Count}, {w.Sum, c.Aggr.Sum}, {w.Min, c.Aggr.Min}, {w.Max, c.Aggr.Max}} {
		require.Equal(t, valuesOf(t, iteratorOf(t, pair[0])), valuesOf(t, iteratorOf(t, pair[1])))
	}
	require.Equal(t, valuesOf(t, downsample.NewCounter([]chunkenc.Iterator{iteratorOf(t, w.Counter)})),
		valuesOf(t, downsample.NewCounter([]chunkenc.Iterator{iteratorOf(t, c.Aggr.Counter)})))
	if w.Counter.Encoding == chunkenc.EncXOR { // what follows sees the same last value, too
		next := func(d storeapi.Data) []string {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			require.NoError(t, err)
			app.Append(0, e.MaxTime+1000, 3)
			return valuesOf(t, downsample.NewCounter([]chunkenc.Iterator{iteratorOf(t, d), c.Iterator(nil)}))
		}
		require.Equal(t, next(w.Counter), next(c.Aggr.Counter))
	}
}

func aggregatesOf(t *testing.T, payload []byte) *storeapi.Aggregates {
	c, err := downsample.Decode(payload)
	require.NoError(t, err)
	data := func(typ downsample.Type) storeapi.Data {
		return storeapi.Data{Encoding: c[typ].Encoding, Bytes: slices.Clone(c[typ].Bytes)}
	}
	return &storeapi.Aggregates{Count: data(downsample.Count), Sum: data(downsample.Sum), Min: data(downsample.Min),
		Max: data(downsample.Max), Counter: data(downsample.Counter)}
}

func iteratorOf(t *testing.T, d storeapi.Data) chunkenc.Iterator {
	if d.IsZero() {
		return chunkenc.NewNopIterator()
	}
	c, err := d.Chunk()
	require.NoError(t, err)
	return c.Iterator(nil)
}

func valuesOf(t *testing.T, it chunkenc.Iterator) (out []string) {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if typ == chunkenc.ValFloat {
			at, v := it.At()
			out = append(out, fmt.Sprint(at, " ", v))
			continue
		}
		at, h := it.AtFloatHistogram(nil)
		out = append(out, fmt.Sprint(at, " ", h))
	}
	require.NoError(t, it.Err())
	return out
}
