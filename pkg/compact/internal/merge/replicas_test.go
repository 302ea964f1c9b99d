package merge_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	promvalue "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/downsample"
)

// behind reads chunks one after the other, as a querier reads a replica.
type behind struct {
	chunkenc.Iterator
	rest []chunks.Meta
}

func newBehind(in []chunks.Meta) chunkenc.Iterator {
	return &behind{Iterator: in[0].Chunk.Iterator(nil), rest: in[1:]}
}

func (b *behind) Next() chunkenc.ValueType {
	for {
		if typ := b.Iterator.Next(); typ != chunkenc.ValNone || len(b.rest) == 0 {
			return typ
		}
		b.Iterator, b.rest = b.rest[0].Chunk.Iterator(nil), b.rest[1:]
	}
}

// scrape is what a replica has of a target: skewed, with jitter, lost scrapes,
// outages and restarts.
func scrape(r *rand.Rand, truth func(t int64) blocktest.Sample, from, to int64) (out []blocktest.Sample) {
	interval := []int64{5_000, 15_000, 60_000}[r.IntN(3)]
	jitter := 1 + r.Int64N(interval/4)
	for t := from + r.Int64N(interval); t < to; t += interval {
		switch {
		case r.IntN(150) == 0:
			if r.IntN(2) == 0 {
				out = append(out, blocktest.Sample{T: t, F: math.Float64frombits(promvalue.StaleNaN)})
			}
			t += r.Int64N(100 * interval)
			continue
		case r.IntN(25) == 0:
			continue
		}
		s := truth(t)
		s.T = t + r.Int64N(jitter)
		out = append(out, s)
	}
	return out
}

// truths returns a function of time, of random kind.
func truths(r *rand.Rand, kind int) func(t int64) blocktest.Sample {
	reset := 1_000_000 + r.Int64N(4_000_000)
	return func(t int64) blocktest.Sample {
		n := t % reset / 1000
		switch kind {
		case 0, 1:
			return blocktest.Sample{F: float64(n)}
		case 2:
			return blocktest.Sample{H: blocktest.Histogram(n)}
		case 3:
			return blocktest.Sample{FH: blocktest.FloatHistogram(n)}
		case 4:
			h := blocktest.CustomBuckets(n)
			h.CounterResetHint = histogram.GaugeType
			return blocktest.Sample{H: h}
		default: // from floats to histograms
			if t > 3_000_000 {
				return blocktest.Sample{H: blocktest.CustomBuckets(n)}
			}
			return blocktest.Sample{F: float64(n)}
		}
	}
}

// The result of merging replicas is what dedup.New makes of them, to the bit,
// and what can be copied of them is.
func TestReplicasAreDeduplicated(t *testing.T) {
	for seed := range uint64(10) {
		for i, kind := range []dedup.Kind{dedup.Firnline, dedup.Penalty, dedup.Chain} {
			if i > 0 && seed%4 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/seed=%d", kind, seed), func(t *testing.T) {
				testReplicas(t, kind, rand.New(rand.NewPCG(seed, 3)))
			})
		}
	}
}

func testReplicas(t *testing.T, kind dedup.Kind, r *rand.Rand) {
	t.Helper()
	const span = 7_200_000
	n, nSeries := 2+r.IntN(2), 16
	perBlock := make([][][]blocktest.Series, n) // replica, block, series
	for i := range perBlock {
		perBlock[i] = make([][]blocktest.Series, 3) // the last one of what came late
	}
	opts := blocktest.Options{SamplesPerChunk: 1 + r.IntN(130), MaxTime: 3 * span}
	want := map[string][]string{}
	for k := range nSeries {
		name := fmt.Sprint([]string{"a_total", "b", "c_bucket", "d"}[r.IntN(4)], k)
		if k%2 == 0 {
			name = fmt.Sprint("s", k, []string{"_total", "_sum", "_count", "_bucket", ""}[r.IntN(5)])
		}
		l := lset("__name__", name)
		truth := truths(r, r.IntN(6))
		var replicas [][]blocktest.Sample
		var ranges []chunkRange
		first := scrape(r, truth, 0, 2*span)
		for i := range n {
			samples := first
			switch r.IntN(8) {
			case 0:
				samples = nil // it does not have the series
			case 1: // the same
			default:
				samples = scrape(r, truth, r.Int64N(span), span+r.Int64N(span))
			}
			var parts [3][]blocktest.Sample
			from := r.Int64N(4 * span) // none in half of the cases
			for j, s := range samples {
				b := s.T / span
				if j > 0 && s.T > from && s.T < from+1_000_000 && r.IntN(3) == 0 {
					b = 2
				}
				parts[b] = append(parts[b], s)
			}
			for b, part := range parts {
				if len(part) > 0 {
					metas := blocktest.Chunks(t, part, opts)
					perBlock[i][b] = append(perBlock[i][b], blocktest.Series{Labels: l, Chunks: metas})
					for _, m := range metas {
						ranges = append(ranges, chunkRange{m.MinTime, m.MaxTime, i})
					}
				}
			}
			replicas = append(replicas, samples)
		}
		from, cuts := int64(math.MinInt64), []int64{math.MaxInt64}
		if kind == dedup.Penalty {
			cuts = handovers(ranges)
		}
		for _, until := range cuts {
			var parts [][]chunks.Meta
			for _, samples := range replicas {
				part := slices.DeleteFunc(slices.Clone(samples), func(s blocktest.Sample) bool { return s.T < from || s.T >= until })
				if len(part) > 0 {
					parts = append(parts, blocktest.Chunks(t, part, opts))
				}
			}
			if len(parts) > 0 {
				want[l.String()] = append(want[l.String()], twinOf(t, kind, name, parts)...)
			}
			from = until
		}
	}
	var in []made
	for i := range perBlock {
		for _, series := range perBlock[i] {
			in = append(in, made{series: series, opts: opts, replica: uint64(100 - i)})
		}
	}
	w := newWorld(t, in...)
	r.Shuffle(len(w.sources), func(i, j int) { w.sources[i], w.sources[j] = w.sources[j], w.sources[i] })
	_, got := w.must(merge.Config{Dedup: kind})
	sameSamples(t, want, got.samples(t))
	if kind == dedup.Firnline {
		require.NoError(t, hintsHold(got))
	}
}

type chunkRange struct {
	mint, maxt int64
	replica    int
}

// handovers returns where other replicas go on than were there before, and no
// chunk reaches over; and the end of time.
func handovers(ranges []chunkRange) (out []int64) {
	slices.SortFunc(ranges, func(a, b chunkRange) int { return int(a.mint - b.mint) })
	replicasIn := func(from, to int64) (set [8]bool) {
		for _, c := range ranges {
			if from <= c.mint && c.mint < to {
				set[c.replica] = true
			}
		}
		return set
	}
	cuts := []int64{math.MinInt64}
	for _, c := range ranges {
		if !slices.ContainsFunc(ranges, func(o chunkRange) bool { return o.mint < c.mint && c.mint <= o.maxt }) {
			cuts = append(cuts, c.mint)
		}
	}
	cuts = append(slices.Compact(cuts), math.MaxInt64)
	for i := 2; i < len(cuts)-1; i++ {
		if replicasIn(cuts[i-1], cuts[i]) != replicasIn(cuts[i], cuts[i+1]) {
			out = append(out, cuts[i])
		}
	}
	return append(out, math.MaxInt64)
}

// twinOf reads the replicas as a querier would.
func twinOf(tb testing.TB, kind dedup.Kind, name string, replicas [][]chunks.Meta) (out []string) {
	tb.Helper()
	var all []chunks.Meta
	for i, metas := range replicas {
		for _, m := range metas {
			m.Ref = chunks.ChunkRef(100 - i)
			all = append(all, m)
		}
	}
	counter := false
	for _, suffix := range []string{"_total", "_sum", "_count", "_bucket"} {
		counter = counter || len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix
	}
	var its []chunkenc.Iterator
	for i, replica := range dedup.Split(all) {
		require.Len(tb, replica, 1)
		if i == 0 {
			it := replica[0][0].Chunk.Iterator(nil)
			if typ := it.Next(); typ != chunkenc.ValFloat {
				_, fh := it.AtFloatHistogram(nil)
				counter = counter || fh.CounterResetHint != histogram.GaugeType
			}
		}
		its = append(its, newBehind(replica[0]))
	}
	it := dedup.New(kind, counter, its...)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		out = append(out, line(it, typ, false))
	}
	require.NoError(tb, it.Err())
	return out
}

// A dense replica is copied; only the chunks around a gap are encoded anew.
func TestDenseReplicaIsCopied(t *testing.T) {
	a := blocktest.Floats(0, 7_200_000, 15_000, value)
	b := blocktest.Floats(7_000, 7_200_000, 15_000, value)
	holed := slices.DeleteFunc(slices.Clone(a), func(s blocktest.Sample) bool { return s.T > 3_700_000 && s.T < 3_900_000 })
	l := lset("__name__", "x_total")
	w := newWorld(t,
		made{series: []blocktest.Series{{Labels: l, Samples: holed}}, replica: 1},
		made{series: []blocktest.Series{{Labels: l, Samples: b}}, replica: 2})
	report, got := w.must(merge.Config{Dedup: dedup.Firnline})
	source := blocktest.Chunks(t, holed, blocktest.Options{})
	for _, i := range []int{0, 1} {
		require.Equal(t, source[i].Chunk.Bytes(), got[0].chunks[i].data, "chunk %d", i)
	}
	require.GreaterOrEqual(t, report.Copied, uint64(3))
	require.LessOrEqual(t, report.Encoded, uint64(3))
}

// A series that only one replica has isn't touched, and neither are the tiers
// made of the whole different from those made of the result.
func TestTiersOfReplicas(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var in [2]made
	for k := range 10 {
		truth := truths(r, k%6)
		l := lset("__name__", fmt.Sprint("s", k, "_total"))
		for i := range in {
			in[i].replica = uint64(i + 1)
			if k == 7 && i == 1 {
				continue
			}
			in[i].series = append(in[i].series, blocktest.Series{Labels: l, Samples: scrape(r, truth, 0, 7_200_000)})
		}
	}
	w := newWorld(t, in[0], in[1])
	_, dirs, err := w.run(merge.Config{Dedup: dedup.Firnline}, 0, downsample.Resolution5m, downsample.Resolution1h)
	require.NoError(t, err)
	raw := readResult(t, dirs[0])
	for i, resolution := range []int64{downsample.Resolution5m, downsample.Resolution1h} {
		var want result
		for _, f := range raw {
			d := downsample.NewDownsampler(resolution)
			for _, c := range f.chunks {
				feed(t, d, c)
			}
			chunks, err := d.Finish(resolution)
			require.NoError(t, err)
			x := found{lset: f.lset}
			for _, c := range chunks {
				x.chunks = append(x.chunks, foundChunk{c.MinTime, c.MaxTime, downsample.Encoding, c.Payload})
			}
			want = append(want, x)
		}
		require.Equal(t, want, readResult(t, dirs[i+1]))
	}
}

// feed gives the samples of a chunk to a Downsampler one by one.
func feed(tb testing.TB, d *downsample.Downsampler, c foundChunk) {
	tb.Helper()
	chunk, err := chunkenc.FromData(c.enc, c.data)
	require.NoError(tb, err)
	it := chunk.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if typ == chunkenc.ValFloat {
			t, v := it.At()
			require.NoError(tb, d.Floats([]int64{t}, []float64{v}))
			continue
		}
		t, fh := it.AtFloatHistogram(nil)
		require.NoError(tb, d.Histogram(t, fh))
	}
}

// Replicas with equal samples have each of them once in the result, by whatever
// algorithm, also where some stretches of time were deduplicated before and so
// count as a third replica. RELIABILITY C4
func TestEqualReplicas(t *testing.T) {
	for seed := range uint64(8) {
		for _, kind := range []dedup.Kind{dedup.Firnline, dedup.Penalty, dedup.Chain} {
			t.Run(fmt.Sprintf("%s/seed=%d", kind, seed), func(t *testing.T) {
				testEqualReplicas(t, kind, rand.New(rand.NewPCG(seed, 4)))
			})
		}
	}
}

func testEqualReplicas(t *testing.T, kind dedup.Kind, r *rand.Rand) {
	t.Helper()
	const span = 7_200_000
	var in []made
	want := map[string][]string{}
	interval, n := []int64{15_000, 60_000, 240_000}[r.IntN(3)], 2+r.IntN(2)
	counter := float64(0)
	for from := int64(0); from < 6*span; from += span {
		var series []blocktest.Series
		for _, name := range []string{"x_total", "y"} {
			var samples []blocktest.Sample
			for at := from + interval/3; at < from+span; at += interval {
				if counter += float64(r.IntN(5)); r.IntN(30) == 0 || at < from+interval && r.IntN(2) == 0 {
					counter = 0
				}
				if r.IntN(20) > 0 {
					samples = append(samples, blocktest.Sample{T: at, F: counter})
				}
			}
			l := lset("__name__", name)
			series = append(series, blocktest.Series{Labels: l, Samples: samples})
			want[l.String()] = append(want[l.String()], linesOf(samples)...)
		}
		opts := blocktest.Options{SamplesPerChunk: 1 + r.IntN(130), MinTime: from, MaxTime: from + span}
		if r.IntN(3) == 0 {
			in = append(in, made{series: series, opts: opts, replica: 7}) // what was deduplicated
			continue
		}
		for i := range n {
			in = append(in, made{series: series, opts: opts, replica: uint64(10 + i)})
		}
	}
	w := newWorld(t, in...)
	r.Shuffle(len(w.sources), func(i, j int) { w.sources[i], w.sources[j] = w.sources[j], w.sources[i] })
	_, got := w.must(merge.Config{Dedup: kind})
	require.Equal(t, want, got.samples(t))
}
