package blocktest_test

import (
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
)

func histograms(n int64) []blocktest.Series {
	var h, fh, custom []blocktest.Sample
	for i := range n {
		t := i * 15_000
		h = append(h, blocktest.Sample{T: t, ST: 1, H: blocktest.Histogram(i)})
		fh = append(fh, blocktest.Sample{T: t, ST: 1, FH: blocktest.FloatHistogram(i)})
		custom = append(custom, blocktest.Sample{T: t, ST: 1, H: blocktest.CustomBuckets(i)})
	}
	return []blocktest.Series{
		{Labels: labels.FromStrings("__name__", "h"), Samples: h},
		{Labels: labels.FromStrings("__name__", "fh"), Samples: fh},
		{Labels: labels.FromStrings("__name__", "custom"), Samples: custom},
		{Labels: labels.FromStrings("__name__", "f", "a", "b"), Samples: blocktest.Floats(0, n*15_000, 15_000, func(t int64) float64 { return float64(t) })},
	}
}

// TestWrite reads what was written back with Prometheus' own block reader.
func TestWrite(t *testing.T) {
	for name, opts := range map[string]blocktest.Options{
		"default":          {},
		"xor2":             {XOR2: true},
		"start timestamps": {StartTimestamps: true},
		"many segments":    {SegmentBytes: 2048, SamplesPerChunk: 7},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := blocktest.Write(t, dir, histograms(300), labels.EmptyLabels(), opts)
			require.EqualValues(t, 4*300, m.Stats.NumSamples)
			require.EqualValues(t, 300, m.Stats.NumFloatSamples)

			b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), filepath.Join(dir, m.ULID.String()), nil, nil)
			require.NoError(t, err)
			defer func() { require.NoError(t, b.Close()) }()
			q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
			require.NoError(t, err)
			defer func() { require.NoError(t, q.Close()) }()

			samples := 0
			set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
			for set.Next() {
				it := set.At().Iterator(nil)
				for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
					samples++
					if opts.StartTimestamps && kind != chunkenc.ValFloat {
						require.EqualValues(t, 1, it.AtST())
					}
				}
				require.NoError(t, it.Err())
			}
			require.NoError(t, set.Err())
			require.Equal(t, 4*300, samples)
		})
	}
}

func TestUpload(t *testing.T) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	m := blocktest.Write(t, dir, histograms(10), labels.FromStrings("cluster", "a"), blocktest.Options{})
	sent := blocktest.Upload(t, bkt, dir, m)
	require.Equal(t, map[string]string{"cluster": "a"}, sent.Thanos.Labels)
	require.Contains(t, bkt.Objects(), block.Name(m.ULID, block.MetaFilename))
	require.Len(t, bkt.Objects(), 3)
}
