package block_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
)

// TestVerifyEveryByte flips a bit of every byte of index and segments, and cuts
// them at every length. Only bytes that no reader looks at may go unnoticed:
// padding between series, and sections that no reader uses any more.
func TestVerifyEveryByte(t *testing.T) {
	dir := t.TempDir()
	series := []blocktest.Series{
		{Labels: labels.FromStrings("__name__", "a"), Samples: blocktest.Floats(0, 100, 10, func(t int64) float64 { return float64(t) })},
		{Labels: labels.FromStrings("__name__", "b", "x", "y"), Samples: blocktest.Floats(0, 100, 10, func(t int64) float64 { return 1 })},
	}
	m := blocktest.Write(t, dir, series, labels.EmptyLabels(), blocktest.Options{SamplesPerChunk: 5})
	bdir := filepath.Join(dir, m.ULID.String())
	c, err := block.Verify(context.Background(), bdir)
	require.NoError(t, err)
	require.EqualValues(t, 2, c.Series)
	require.EqualValues(t, 4, c.Chunks)

	for _, f := range c.Files {
		path := filepath.Join(bdir, filepath.FromSlash(f.RelPath))
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		unnoticed := 0
		for at := range whole {
			data := bytes.Clone(whole)
			data[at] ^= 0x40
			require.NoError(t, os.WriteFile(path, data, 0o644))
			if _, err := block.Verify(context.Background(), bdir); err == nil {
				unnoticed++
			} else {
				require.ErrorContains(t, err, m.ULID.String())
			}
			require.NoError(t, os.WriteFile(path, whole[:at], 0o644))
			_, err := block.Verify(context.Background(), bdir)
			require.Error(t, err, "%s cut at %d", f.RelPath, at)
		}
		require.NoError(t, os.WriteFile(path, whole, 0o644))
		most := 3 // the unused bytes of a segment's header
		if f.RelPath == block.IndexFilename {
			most = len(whole) / 10
		}
		require.LessOrEqual(t, unnoticed, most, f.RelPath)
		t.Logf("%s: %d of %d bytes are not looked at", f.RelPath, unnoticed, len(whole))
	}
}

// TestVerifyBounds: no entry is longer than what the statistics tell a reader to fetch.
func TestVerifyBounds(t *testing.T) {
	dir := t.TempDir()
	m := smallBlock(t, dir)
	c, err := block.Verify(context.Background(), filepath.Join(dir, m.ULID.String()))
	require.NoError(t, err)
	require.EqualValues(t, m.Stats.NumSeries, c.Series)
	require.EqualValues(t, m.Stats.NumChunks, c.Chunks)
	require.Positive(t, c.IndexStats.SeriesMaxSize)
	var segments int64
	for _, f := range c.Files {
		if f.RelPath != block.IndexFilename {
			segments += f.SizeBytes - 8
		}
	}
	require.Greater(t, c.IndexStats.ChunkMaxSize*int64(c.Chunks), segments-1)
	require.Less(t, c.IndexStats.ChunkMaxSize, segments)
}
