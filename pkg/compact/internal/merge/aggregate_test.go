package merge_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/downsample"
)

const fiveMinutes, oneHour = downsample.Resolution5m, downsample.Resolution1h

// tier downsamples samples to chunks as they stand in a block.
func tier(tb testing.TB, resolution int64, samples []blocktest.Sample) (out []chunks.Meta) {
	tb.Helper()
	d := downsample.NewDownsampler(resolution)
	for _, c := range blocktest.Chunks(tb, samples, blocktest.Options{}) {
		feed(tb, d, foundChunk{enc: c.Chunk.Encoding(), data: c.Chunk.Bytes()})
	}
	encoded, err := d.Finish(resolution)
	require.NoError(tb, err)
	for _, e := range encoded {
		out = append(out, chunks.Meta{MinTime: e.MinTime, MaxTime: e.MaxTime, Chunk: aggr(slices.Clone(e.Payload))})
	}
	return out
}

func asFound(in ...chunks.Meta) (out []foundChunk) {
	for _, c := range in {
		out = append(out, foundChunk{c.MinTime, c.MaxTime, c.Chunk.Encoding(), c.Chunk.Bytes()})
	}
	return out
}

// coarser makes 1h chunks of 5m ones.
func coarser(tb testing.TB, in []foundChunk) (out []foundChunk) {
	tb.Helper()
	d := downsample.NewDownsampler(oneHour)
	for _, c := range in {
		decoded, err := downsample.Decode(c.data)
		require.NoError(tb, err)
		require.NoError(tb, d.Aggregate(decoded))
	}
	encoded, err := d.Finish(oneHour)
	require.NoError(tb, err)
	for _, e := range encoded {
		out = append(out, foundChunk{e.MinTime, e.MaxTime, downsample.Encoding, e.Payload})
	}
	return out
}

const twoDays = 48 * 3_600_000

// Downsampled blocks one behind the other are copied, and the coarser tier made
// of them is the same as from all of it at once.
func TestAggregatesAreCopied(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var in []made
	want := map[string][]foundChunk{}
	for i := range int64(2) {
		var series []blocktest.Series
		for k := range 6 {
			l := lset("__name__", fmt.Sprint("s", k))
			c := tier(t, fiveMinutes, scrape(r, truths(r, k), i*twoDays, (i+1)*twoDays-300_000))
			series = append(series, blocktest.Series{Labels: l, Chunks: c})
			want[l.String()] = append(want[l.String()], asFound(c...)...)
		}
		in = append(in, made{series: series, opts: blocktest.Options{Resolution: fiveMinutes, MinTime: i * twoDays, MaxTime: (i + 1) * twoDays}})
	}
	w := newWorld(t, in...)
	report, dirs, err := w.run(merge.Config{Resolution: fiveMinutes, MinTime: 0, MaxTime: 2 * twoDays}, fiveMinutes, oneHour)
	require.NoError(t, err)
	fine, coarse := readResult(t, dirs[0]), readResult(t, dirs[1])
	require.Len(t, fine, 6)
	for i, f := range fine {
		require.Equal(t, want[f.lset.String()], f.chunks)
		require.Equal(t, coarser(t, f.chunks), coarse[i].chunks)
	}
	require.Equal(t, report.Read, report.Copied)
	require.Equal(t, report.SamplesIn, report.SamplesOut)
	require.Equal(t, report.SamplesOut, report.Targets[0].Stats.NumSamples)
	require.Positive(t, report.Targets[0].Stats.NumHistogramSamples)
}

// Replicas, late blocks and copies: what downsample.Merge makes of the chunks
// that overlap, the same bytes of the others.
func TestAggregatesAreMerged(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	f := truths(r, 0)
	a, b := tier(t, fiveMinutes, scrape(r, f, 0, twoDays)), tier(t, fiveMinutes, scrape(r, f, twoDays/2, twoDays))
	later := tier(t, fiveMinutes, scrape(r, f, twoDays+1_000_000, twoDays+2_000_000))
	l := lset("__name__", "x_total")
	block := func(replica uint64, c ...chunks.Meta) made {
		return made{series: []blocktest.Series{{Labels: l, Chunks: c}}, replica: replica, opts: blocktest.Options{Resolution: fiveMinutes, MaxTime: 2 * twoDays}}
	}
	for name, c := range map[string]struct {
		blocks []made
		copies int // of the first chunks, unchanged
	}{
		"replicas":  {[]made{block(1, a...), block(2, b...)}, 1},
		"late":      {[]made{block(1, a...), block(1, b...)}, 1},
		"copies":    {[]made{block(1, a...), block(1, a...), block(2, a...)}, len(a)},
		"different": {[]made{block(1, a...), block(2, a...), block(2, b[0])}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c.blocks = append(c.blocks, block(1, later...))
			w := newWorld(t, c.blocks...)
			report, dirs, err := w.run(merge.Config{Resolution: fiveMinutes, Dedup: dedup.Firnline}, fiveMinutes, oneHour)
			require.NoError(t, err)
			fine, coarse := readResult(t, dirs[0]), readResult(t, dirs[1])
			got := fine[0].chunks
			require.Equal(t, asFound(a[:c.copies]...), got[:c.copies])
			require.Equal(t, asFound(later...), got[len(got)-len(later):])
			require.Equal(t, coarser(t, got), coarse[0].chunks)
			require.Equal(t, report.Targets[0].Stats.NumSamples, report.SamplesOut)
			last := int64(-1)
			for _, c := range got {
				require.Greater(t, c.mint, last)
				last = c.maxt
			}
		})
	}
}

// COMPAT A2.2: plain chunks in a downsampled block are aggregated.
func TestPlainChunkAmongAggregates(t *testing.T) {
	f := floats(0, 7_200_000, 15_000)
	aggregated, plain := tier(t, fiveMinutes, f[:240]), chunksOf(t, 120, f[240:]...)
	w := newWorld(t, made{series: []blocktest.Series{{Labels: lset("a", "b"), Chunks: append(aggregated, plain...)}}, opts: blocktest.Options{Resolution: fiveMinutes, MaxTime: 7_200_000}})
	_, dirs, err := w.run(merge.Config{Resolution: fiveMinutes}, fiveMinutes, oneHour)
	require.NoError(t, err)
	got := readResult(t, dirs[0])[0].chunks
	require.Len(t, got, 3)
	require.Equal(t, asFound(aggregated...), got[:1])
	windows := 0
	for _, c := range got {
		require.Equal(t, downsample.Encoding, c.enc)
		decoded, err := downsample.Decode(c.data)
		require.NoError(t, err)
		windows += decoded.NumSamples()
	}
	require.Equal(t, 24, windows)
	require.Equal(t, coarser(t, got), readResult(t, dirs[1])[0].chunks)
}

// Deleted ranges leave downsampled blocks by windows.
func TestCutAggregates(t *testing.T) {
	c := tier(t, fiveMinutes, floats(0, twoDays, 60_000))
	require.Greater(t, len(c), 3)
	cuts := tombstones.Intervals{{Mint: c[1].MinTime, Maxt: c[2].MinTime + 700_000}}
	w := newWorld(t, made{series: []blocktest.Series{{Labels: lset("a", "b"), Chunks: c}}, opts: blocktest.Options{Resolution: fiveMinutes}})
	report, got := w.must(merge.Config{Resolution: fiveMinutes, Cut: func(labels.Labels) (bool, tombstones.Intervals) { return false, cuts }})
	first := c[3].Chunk.Bytes()
	decoded, err := downsample.Decode(first)
	require.NoError(t, err)
	it := xorIterator(decoded[downsample.Counter].Bytes)
	it.Next()
	_, next := it.At()
	left, ok, err := downsample.Cut(c[2].Chunk.Bytes(), fiveMinutes, cuts, &next)
	require.NoError(t, err)
	require.True(t, ok)
	want := append(asFound(c[0]), foundChunk{left.MinTime, left.MaxTime, downsample.Encoding, left.Payload})
	require.Equal(t, append(want, asFound(c[3:]...)...), got[0].chunks)
	require.EqualValues(t, 1, report.Cut)
	require.EqualValues(t, 3, report.SamplesCut)
}

func xorIterator(data []byte) chunkenc.Iterator {
	c := chunkenc.NewXORChunk()
	c.Reset(data)
	return c.Iterator(nil)
}

// RELIABILITY C4: an aggregate chunk that can't be right is its block's fault.
func TestRefusedAggregates(t *testing.T) {
	c := tier(t, fiveMinutes, floats(0, 7_200_000, 60_000))
	damaged := chunks.Meta{MinTime: c[0].MinTime, MaxTime: c[0].MaxTime, Chunk: c[0].Chunk.(aggr)[:30]}
	for name, overlapped := range map[string]bool{"alone": false, "overlapped": true} {
		t.Run(name, func(t *testing.T) {
			good := made{series: []blocktest.Series{{Labels: lset("a", "0"), Chunks: c}}, opts: blocktest.Options{Resolution: fiveMinutes}}
			if overlapped {
				good.series[0].Labels = lset("a", "b")
			}
			w := newWorld(t, good)
			w.craft(1, 0, 7_200_000, blocktest.Series{Labels: lset("a", "b"), Chunks: []chunks.Meta{damaged}})
			_, _, err := w.run(merge.Config{Resolution: fiveMinutes}, fiveMinutes, oneHour)
			require.ErrorIs(t, err, block.ErrCorrupt)
			var of *input.Error
			require.ErrorAs(t, err, &of)
			require.Equal(t, w.ids[1], of.Block, "%v", err)
		})
	}
}

// RELIABILITY C4: where aggregate chunks have to be taken apart, windows of
// another time than the index says are their block's fault.
func TestAggregatesOfOtherTimes(t *testing.T) {
	l, samples := lset("a", "b"), floats(0, 7_200_000, 60_000)
	good, late := tier(t, fiveMinutes, samples[:60])[0], tier(t, fiveMinutes, samples[60:])[0]
	false1 := good
	false1.MinTime, false1.MaxTime = late.MinTime, late.MaxTime
	w := newWorld(t, made{series: []blocktest.Series{{Labels: l, Chunks: []chunks.Meta{good, late}}}, opts: blocktest.Options{Resolution: fiveMinutes}})
	w.craft(0, 0, 7_200_000, blocktest.Series{Labels: l, Chunks: []chunks.Meta{false1}})
	_, _, err := w.run(merge.Config{Resolution: fiveMinutes}, fiveMinutes)
	require.ErrorIs(t, err, block.ErrCorrupt)
	var of *input.Error
	require.ErrorAs(t, err, &of)
	require.Equal(t, w.ids[1], of.Block, "%v", err)
}
