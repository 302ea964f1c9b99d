package compact

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
)

// deleteWorld is a bucket of a few blocks, and a local copy of each.
type deleteWorld struct {
	bkt   *bucket.Memory
	dir   string
	metas []*block.Meta
}

func newDeleteWorld(t testing.TB, rnd *rand.Rand) *deleteWorld {
	w := &deleteWorld{bkt: bucket.NewMemory(), dir: t.TempDir()}
	for b := range 4 {
		seen := map[string]bool{}
		var series []blocktest.Series
		for range 30 {
			lb := labels.NewBuilder(labels.FromStrings("__name__", []string{"up", "down"}[rnd.IntN(2)]))
			for _, name := range []string{"job", "pod", "zone"} {
				if rnd.IntN(3) > 0 {
					lb.Set(name, fmt.Sprint(rnd.IntN(4)))
				}
			}
			lset := lb.Labels()
			if seen[lset.String()] {
				continue
			}
			seen[lset.String()] = true
			from := int64(b)*7_200_000 + int64(rnd.IntN(3_600_000))
			series = append(series, blocktest.Series{Labels: lset, Samples: blocktest.Floats(from, from+1+int64(rnd.IntN(3_600_000)), 15_000, func(int64) float64 { return 1 })})
		}
		m := blocktest.Write(t, w.dir, series, labels.FromStrings("cluster", []string{"a", "b"}[b%2]), blocktest.Options{SamplesPerChunk: 20})
		sent := blocktest.Upload(t, w.bkt, w.dir, m)
		w.metas = append(w.metas, &sent)
	}
	return w
}

// counted is the slow and obvious dry run: it reads each block by Prometheus'
// module and looks at the labels of each series.
func (w *deleteWorld) counted(t testing.TB, r *block.DeleteRequest) (series, chunkCount int64) {
	sets, err := r.Matchers()
	require.NoError(t, err)
	for _, m := range w.metas {
		b, err := tsdb.OpenBlock(nil, filepath.Join(w.dir, m.ULID.String()), nil, nil)
		require.NoError(t, err)
		ix, err := b.Index()
		require.NoError(t, err)
		name, value := index.AllPostingsKey()
		all, err := ix.Postings(context.Background(), name, value)
		require.NoError(t, err)
		var lb labels.ScratchBuilder
		var metas []chunks.Meta
		for all.Next() {
			require.NoError(t, ix.Series(all.At(), &lb, &metas))
			full := labels.NewBuilder(lb.Labels()).Set("cluster", m.Thanos.Labels["cluster"]).Labels()
			hit := int64(0)
			for _, c := range metas {
				if c.MinTime <= r.MaxTime && r.MinTime <= c.MaxTime && anyMatches(sets, full) {
					hit++
				}
			}
			if chunkCount += hit; hit > 0 {
				series++
			}
		}
		require.NoError(t, all.Err())
		require.NoError(t, ix.Close())
		require.NoError(t, b.Close())
	}
	return series, chunkCount
}

func anyMatches(sets [][]*labels.Matcher, lset labels.Labels) bool {
	for _, ms := range sets {
		all := true
		for _, m := range ms {
			all = all && m.Matches(lset.Get(m.Name))
		}
		if all {
			return true
		}
	}
	return false
}

func TestDryRunCountsWhatASlowWalkDoes(t *testing.T) {
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, seed))
	w := newDeleteWorld(t, rnd)
	hit := 0
	for i := range 60 {
		var selectors []string
		for range 1 + rnd.IntN(2) {
			var parts []string
			for range 1 + rnd.IntN(3) {
				parts = append(parts, []string{"__name__", "job", "pod", "zone", "cluster", "absent"}[rnd.IntN(6)]+
					[]string{"=", "!=", "=~", "!~"}[rnd.IntN(4)]+[]string{`""`, `"1"`, `"up"`, `"a"`, `"b|2"`, `".+"`}[rnd.IntN(6)])
			}
			selectors = append(selectors, "{"+strings.Join(parts, ",")+"}")
		}
		from := int64(rnd.IntN(20_000_000))
		r := &block.DeleteRequest{Selectors: selectors, MinTime: from, MaxTime: from + int64(rnd.IntN(20_000_000))}
		got, err := DryRunDelete(t.Context(), w.bkt, w.metas, r)
		require.NoError(t, err)
		require.Zero(t, got.Failed)
		series, chunkCount := w.counted(t, r)
		require.Equal(t, []int64{series, chunkCount}, []int64{got.Series, got.Chunks}, "seed %d, request %d: %v %d-%d", seed, i, selectors, r.MinTime, r.MaxTime)
		require.LessOrEqual(t, got.Samples, 20*got.Chunks+int64(len(got.Blocks)))
		if series > 0 {
			hit++
		}
	}
	require.Greater(t, hit, 20, "most requests should hit something")
}

// TestDryRunGoesOnAfterABadBlock: it is told, and the others are counted.
func TestDryRunGoesOnAfterABadBlock(t *testing.T) {
	w := newDeleteWorld(t, rand.New(rand.NewPCG(1, 1)))
	r := &block.DeleteRequest{Selectors: []string{"up"}, MinTime: math.MinInt64, MaxTime: 1 << 62}
	whole, err := DryRunDelete(t.Context(), w.bkt, w.metas, r)
	require.NoError(t, err)
	require.Len(t, whole.Blocks, 4)
	bad := w.metas[1].ULID
	index := bytes.Clone(w.bkt.Objects()[block.Name(bad, "index")])
	for i := 40; i < len(index)-60; i++ {
		index[i] ^= 0x55
	}
	require.NoError(t, w.bkt.Upload(t.Context(), block.Name(bad, "index"), bytes.NewReader(index)))
	got, err := DryRunDelete(t.Context(), w.bkt, w.metas, r)
	require.NoError(t, err)
	require.Equal(t, 1, got.Failed)
	require.Len(t, got.Blocks, 4)
	var table bytes.Buffer
	require.NoError(t, got.Write(&table))
	require.Contains(t, table.String(), "could not be read: block "+bad.String())
	require.Less(t, got.Series, whole.Series)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = DryRunDelete(ctx, w.bkt, w.metas, r)
	require.ErrorIs(t, err, context.Canceled)
}

func TestDryRunTable(t *testing.T) {
	h := DeleteHits{}
	h.add(BlockHits{Block: ulid.MustParse("01HZZZZZZZZZZZZZZZZZZZZZZZ"), Labels: labels.FromStrings("cluster", "a"),
		MinTime: 0, MaxTime: 7_200_000, Series: 3, Chunks: 12, Samples: 1400})
	h.add(BlockHits{Block: ulid.MustParse("01J0000000000000000000000Z"), Labels: labels.FromStrings("cluster", "a"),
		MinTime: 7_200_000, MaxTime: 14_400_000, Resolution: 300_000, Error: "block 01J: index: corrupt"})
	h.add(BlockHits{Block: ulid.MustParse("01J0000000000000000000000A")}) // nothing hit
	var out bytes.Buffer
	require.NoError(t, h.Write(&out))
	require.Equal(t, `BLOCK                       FROM              TO                RES  SERIES  CHUNKS  SAMPLES ~  LABELS
01HZZZZZZZZZZZZZZZZZZZZZZZ  1970-01-01 00:00  1970-01-01 02:00  raw  3       12      1400       {cluster="a"}
01J0000000000000000000000Z  1970-01-01 02:00  1970-01-01 04:00  5m   ?       ?       ?          {cluster="a"}
2 blocks                                                             3       12      1400       
could not be read: block 01J: index: corrupt
`, out.String())
}

func TestLiveBlocks(t *testing.T) {
	w := newDeleteWorld(t, rand.New(rand.NewPCG(2, 2)))
	require.NoError(t, block.WriteDeletionMark(t.Context(), w.bkt, block.DeletionMark{ID: w.metas[0].ULID, DeletionTime: 1}))
	got, err := LiveBlocks(t.Context(), w.bkt, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Len(t, got, 3, "what is marked is on its way out")
}
