package compact_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// only lets a compactor see the blocks of one cluster.
func only(cluster string) func(*compact.Config, *compact.Parts) {
	return func(cfg *compact.Config, _ *compact.Parts) {
		cfg.Blocks.Selector = "- action: keep\n  source_labels: [cluster]\n  regex: " + cluster + "\n"
	}
}

// TestDeleteOfOthers has two compactors share a bucket by labels. A request is
// not done before both have removed its samples.
func TestDeleteOfOthers(t *testing.T) {
	ctx, w := context.Background(), days(t)
	for h := int64(0); h < 48; h += 16 {
		w.ship(h, h+16, 2, "cluster", "b")
	}
	made, err := block.CreateDelete(ctx, w.bkt, block.DeleteRequest{
		Selectors: []string{`{i="001"}`}, MinTime: 0, MaxTime: epoch.UnixMilli() + 48*hour,
	})
	require.NoError(t, err)
	w.clock.add(13 * time.Hour)
	state := func() block.DeleteState {
		r, err := block.GetDelete(ctx, w.bkt, made.ID)
		require.NoError(t, err)
		return r.State
	}
	a, b := w.compactor(only("a")), w.compactor(only("b"))
	for range 3 {
		require.NoError(t, a.Once(ctx))
		w.clock.add(49 * time.Hour)
	}
	require.Equal(t, block.DeletePending, state(), "cluster b has its samples still")
	for range 3 {
		require.NoError(t, b.Once(ctx))
		w.clock.add(49 * time.Hour)
	}
	require.NoError(t, b.Once(ctx))
	require.Equal(t, block.DeleteDone, state())
}

// TestMarkedBlocksOfOthers leaves marked blocks alone that are none of ours: they
// have another delete delay, and what replaces them we don't see.
func TestMarkedBlocksOfOthers(t *testing.T) {
	ctx, w := context.Background(), days(t)
	other := w.ship(0, 16, 2, "cluster", "b")
	mark := block.DeletionMark{ID: other.ULID, DeletionTime: w.clock.now().Unix(), Details: "firnline: replaced by 01HZZZZZZZZZZZZZZZZZZZZZZZ"}
	require.NoError(t, block.WriteDeletionMark(ctx, w.bkt, mark))
	w.clock.add(49 * time.Hour)
	require.NoError(t, w.compactor(only("a")).Once(ctx))
	require.True(t, w.has(other.ULID, block.MetaFilename))

	// The removal of a block that was cut off is finished by whoever sees it.
	require.NoError(t, w.bkt.Memory.Delete(ctx, block.Name(other.ULID, block.MetaFilename)))
	for range 2 {
		w.clock.add(time.Hour)
		require.NoError(t, w.compactor(only("a")).Once(ctx))
	}
	require.False(t, w.has(other.ULID, block.IndexFilename))
}
