package store

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

// aggrChunk is an aggregate chunk as a writer of blocks sees it.
type aggrChunk struct {
	chunkenc.Chunk // of the counts
	payload        []byte
}

func (c aggrChunk) Encoding() chunkenc.Encoding { return downsample.Encoding }
func (c aggrChunk) Bytes() []byte               { return c.payload }

// downsampled is a series with one aggregate chunk from mint to maxt, whose sub-chunks
// have one sample each: count 1, sum 2, min 3, max 4, counter 5.
func downsampled(t testing.TB, lset labels.Labels, mint, maxt int64) blocktest.Series {
	t.Helper()
	var c downsample.Chunk
	var count chunkenc.Chunk
	for typ := downsample.Count; typ <= downsample.Counter; typ++ {
		sub := chunkenc.NewXORChunk()
		app, err := sub.Appender()
		require.NoError(t, err)
		app.Append(0, maxt, float64(typ)+1)
		c[typ] = downsample.Sub{Encoding: sub.Encoding(), Bytes: sub.Bytes()}
		if typ == downsample.Count {
			count = sub
		}
	}
	payload, err := c.Append(nil)
	require.NoError(t, err)
	return blocktest.Series{Labels: lset, Chunks: []chunks.Meta{{MinTime: mint, MaxTime: maxt, Chunk: aggrChunk{count, payload}}}}
}

func value(t testing.TB, d storeapi.Data) float64 {
	t.Helper()
	c, err := d.Chunk()
	require.NoError(t, err)
	it := c.Iterator(nil)
	require.Equal(t, chunkenc.ValFloat, it.Next())
	_, v := it.At()
	return v
}

func TestDownsampledBlocks(t *testing.T) {
	const hour = 3_600_000
	bkt := bucket.NewMemory()
	lset := labels.FromStrings("__name__", "m")
	raw := upload(t, bkt, []blocktest.Series{{Labels: lset, Samples: blocktest.Floats(0, 4*hour, 60_000, func(int64) float64 { return 7 })}}, cluster, blocktest.Options{})
	coarse := upload(t, bkt, []blocktest.Series{downsampled(t, lset, 0, 2*hour-1)}, cluster,
		blocktest.Options{Resolution: block.Resolution5m, MinTime: 0, MaxTime: 2 * hour})
	s := newGateway(t, bkt)
	sel := selection(t, `{__name__="m"}`)
	sel.Maxt = 4 * hour

	series, report := drain(t, s, sel)
	require.Len(t, series, 1)
	require.Len(t, report.QueriedBlocks, 1, "raw is wanted")
	for _, c := range series[0].Chunks {
		require.Nil(t, c.Aggr)
	}

	sel.MaxResolution = block.Resolution5m
	sel.Aggregates = []storeapi.Aggregate{storeapi.AggregateMin, storeapi.AggregateCounter}
	series, report = drain(t, s, sel)
	require.ElementsMatch(t, []any{raw.ULID, coarse.ULID}, []any{report.QueriedBlocks[0], report.QueriedBlocks[1]}, "what is not downsampled yet comes raw")
	first := series[0].Chunks[0]
	if first.Aggr == nil {
		first = series[0].Chunks[1]
	}
	require.NotNil(t, first.Aggr)
	require.EqualValues(t, 3, value(t, first.Aggr.Min))
	require.EqualValues(t, 5, value(t, first.Aggr.Counter))
	require.True(t, first.Aggr.Count.IsZero() && first.Aggr.Sum.IsZero() && first.Aggr.Max.IsZero(), "what is not asked for is left out")

	sel.Maxt = hour
	_, report = drain(t, s, sel)
	require.Len(t, report.QueriedBlocks, 1)
	require.Equal(t, coarse.ULID, report.QueriedBlocks[0])
}

// Chunks of encodings that the StoreAPI has no name for pass as they are.
func TestNewEncodings(t *testing.T) {
	bkt := bucket.NewMemory()
	upload(t, bkt, []blocktest.Series{{Labels: labels.FromStrings("__name__", "m"), Samples: []blocktest.Sample{{T: 1000, ST: 500, F: 1}, {T: 2000, ST: 500, F: 2}}}},
		cluster, blocktest.Options{StartTimestamps: true})
	series, _ := drain(t, newGateway(t, bkt), selection(t, `{__name__="m"}`))
	require.Equal(t, chunkenc.EncXOR2, series[0].Chunks[0].Raw.Encoding)
}

func TestBlocksOfSeveralSources(t *testing.T) {
	bkt := bucket.NewMemory()
	lset := labels.FromStrings("__name__", "m", "job", "x")
	one := func(from int64) []blocktest.Series {
		return []blocktest.Series{{Labels: lset, Samples: blocktest.Floats(from, from+600_000, 15_000, func(t int64) float64 { return float64(t) })}}
	}
	a1 := upload(t, bkt, one(0), labels.FromStrings("cluster", "a", "replica", "1"), blocktest.Options{MaxTime: 600_000})
	a2 := upload(t, bkt, one(600_000), labels.FromStrings("cluster", "a", "replica", "1"), blocktest.Options{MinTime: 600_000, MaxTime: 1_200_000})
	b := upload(t, bkt, one(5_000_000), labels.FromStrings("cluster", "b", "replica", "1"), blocktest.Options{MinTime: 5_000_000, MaxTime: 5_600_000})
	s := newGateway(t, bkt)

	info, err := s.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, []storeapi.TSDBInfo{
		{Labels: a1.Labels(), Mint: 0, Maxt: 1_200_000},
		{Labels: b.Labels(), Mint: 5_000_000, Maxt: 5_600_000},
	}, info.TSDBs)
	require.Len(t, info.LabelSets, 2)
	require.EqualValues(t, 0, info.Mint)
	require.EqualValues(t, 5_600_000, info.Maxt)

	series, report := drain(t, s, selection(t, `{__name__="m"}`))
	require.Len(t, series, 2, "blocks of one source make one series")
	require.Len(t, series[0].Chunks, 2)
	require.EqualValues(t, 2, report.Stats.SeriesMerged)
	require.EqualValues(t, 3, report.Stats.BlocksQueried)
	require.EqualValues(t, 3, report.Stats.ChunksFetched)
	require.Positive(t, report.Stats.DownloadedBytes)

	sel := selection(t, `{__name__="m"}`)
	id, err := labels.NewMatcher(labels.MatchEqual, "__block_id", a2.ULID.String())
	require.NoError(t, err)
	sel.BlockMatchers = []*labels.Matcher{id}
	series, report = drain(t, s, sel)
	require.Len(t, series, 1)
	require.Equal(t, a2.ULID, report.QueriedBlocks[0])

	series, _ = drain(t, newGateway(t, bkt, "--max-time=1970-01-01T00:09:00Z"), selection(t, `{__name__="m"}`))
	require.Len(t, series[0].Chunks, 1, "--max-time bounds what is served")

	kept := newGateway(t, bkt, "--selector.relabel-config=[{action: keep, source_labels: [cluster], regex: b}]")
	series, _ = drain(t, kept, selection(t, `{__name__="m"}`))
	require.Len(t, series, 1)
	require.Equal(t, "b", series[0].Labels.Get("cluster"))
}

func TestRefusesNoMatchers(t *testing.T) {
	s := newGateway(t, bucket.NewMemory())
	_, err := s.Series(t.Context(), storeapi.Selection{Maxt: 1})
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
}
