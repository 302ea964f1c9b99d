package block_test

import (
	"context"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/notes"
)

// noted makes r send a note with each block, and says which blocks have one.
func (r *rig) noted() (has func(ulid.ULID) bool) {
	r.notes = func(ctx context.Context, m *block.Meta) error {
		require.False(r.t, r.visible(m.ULID), "what is kept beside a block is there before it can be seen")
		require.Equal(r.t, labels.FromStrings("cluster", "a"), m.Labels())
		return notes.Upload(ctx, r.bkt, m.ULID, &notes.Note{MinTime: m.MinTime, MaxTime: m.MaxTime, Families: []notes.Family{{Name: "up", Type: "gauge"}}})
	}
	r.restart()
	return func(id ulid.ULID) bool {
		n, err := notes.Read(context.Background(), r.bkt, id)
		return err == nil && len(n.Families) == 1
	}
}

// TestShipperNotes: a block of level 1 has its note, one made from others has none of its own.
func TestShipperNotes(t *testing.T) {
	r := newRig(t)
	has := r.noted()
	a := r.cut(1, blocktest.Options{})
	b := r.cut(2, blocktest.Options{ID: testID(100), Level: 2, Sources: []ulid.ULID{testID(50), testID(51)}})
	require.Equal(t, 2, r.sync())
	require.True(t, has(a))
	require.False(t, has(b))
}

// RELIABILITY S1: killed between the note and meta.json, the block is sent again, and its note too.
func TestShipperKilledAfterNotes(t *testing.T) {
	r := newRig(t)
	r.fault = func(step string) error { return iff(step == block.StepNotes, errFault) }
	has := r.noted()
	a := r.cut(1, blocktest.Options{})
	_, err := r.Sync(context.Background())
	require.ErrorIs(t, err, errFault)
	require.True(t, has(a))
	require.False(t, r.visible(a))
	require.NoError(t, notes.Remove(t.Context(), r.bkt, a)) // as a cleaner might in between
	r.fault = nil
	r.restart()
	require.Equal(t, 1, r.sync())
	require.True(t, has(a))
	require.True(t, r.visible(a))
}

// TestShipperNotesFail: notes that can't be sent hold a block up for two passes
// and no longer, and never set it aside.
func TestShipperNotesFail(t *testing.T) {
	r := newRig(t)
	has := r.noted()
	tries := 0
	r.notes = func(context.Context, *block.Meta) error { tries++; return block.ErrCorrupt }
	r.restart()
	a := r.cut(1, blocktest.Options{})
	for range 2 {
		_, err := r.Sync(context.Background())
		require.ErrorIs(t, err, block.ErrCorrupt)
		require.False(t, r.visible(a))
		require.Empty(t, r.Status().Quarantined)
	}
	require.Equal(t, 1, r.sync())
	require.True(t, r.visible(a))
	require.False(t, has(a))
	require.Equal(t, 3, tries)
}
