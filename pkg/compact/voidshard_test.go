package compact_test

import (
	"context"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// TestShardWithoutSeries splits a group of which a request deletes all series of
// the first shards. That those have nothing for the 5m tier says nothing of the
// others: all that is left comes there. And to a reader that still has the inputs
// the shards are all there is.
func TestShardWithoutSeries(t *testing.T) {
	w := split(t)
	_, err := block.CreateDelete(context.Background(), w.bkt, block.DeleteRequest{
		Selectors: []string{`{i=~"0.."}`}, MinTime: 0, MaxTime: epoch.UnixMilli() + 100*hour,
	})
	require.NoError(t, err)
	inputs, all := w.live(), map[ulid.ULID]*block.Meta{}
	for _, m := range inputs {
		all[m.ULID] = m
	}
	w.drive(&process{}, smallIndex, 3)
	series := map[int64]uint64{}
	for _, m := range w.live() {
		ext, _, err := m.Extension()
		require.NoError(t, err)
		require.NotNil(t, ext.Shard)
		series[m.Resolution()] += m.Stats.NumSeries
		all[m.ULID] = m
	}
	require.Equal(t, map[int64]uint64{0: 200, block.Resolution5m: 200}, series)

	hidden := block.Duplicates(all)
	for _, m := range inputs {
		require.Contains(t, hidden, m.ULID)
	}
	w.mergeShards(compact.Unsplit{}, 200)
}

// TestLastShardWithoutSeries: nobody tells of the shard that was to close a split
// that it had no series. The way back asks whether that is so.
func TestLastShardWithoutSeries(t *testing.T) {
	w := split(t)
	_, err := block.CreateDelete(t.Context(), w.bkt, block.DeleteRequest{
		Selectors: []string{`{i=~"2.."}`}, MinTime: 0, MaxTime: epoch.UnixMilli() + 100*hour,
	})
	require.NoError(t, err)
	w.drive(&process{}, smallIndex, 3)
	_, err = w.compactor(nil).MergeShards(t.Context(), compact.Unsplit{DryRun: true})
	require.ErrorContains(t, err, "shards are missing")
	w.mergeShards(compact.Unsplit{AllowMissing: true}, 200)
}

// mergeShards goes the way back from a split of which some shards have no series.
func (w *world) mergeShards(u compact.Unsplit, series uint64) {
	w.Helper()
	require.Greater(w, len(w.liveRaw()), 1)
	_, err := w.compactor(nil).MergeShards(w.Context(), u)
	require.NoError(w, err)
	require.Len(w, w.live(), 2, "raw and 5m")
	for _, m := range w.live() {
		require.Equal(w, series, m.Stats.NumSeries)
	}
}
