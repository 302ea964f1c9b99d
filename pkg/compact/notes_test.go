package compact_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/compact"
)

// writeNotes puts a note beside blocks, or where one would be.
func (w *world) writeNotes(ids ...ulid.ULID) {
	w.Helper()
	for _, id := range ids {
		require.NoError(w, notes.Upload(context.Background(), w.bkt, id, &notes.Note{MaxTime: 1, Families: []notes.Family{{Name: "m"}}}))
	}
}

func (w *world) hasNote(id ulid.ULID) bool {
	w.Helper()
	_, err := notes.Read(context.Background(), w.bkt, id)
	if err != nil {
		require.ErrorIs(w, err, notes.ErrNone)
	}
	return err == nil
}

// TestNotesOfBlocks: a note stays for as long as anything is made of its block,
// through compaction and retention, and goes when nothing has been for the delete delay.
func TestNotesOfBlocks(t *testing.T) {
	w := newWorld(t)
	w.shipDays(2, 1)
	var sources []ulid.ULID
	for _, m := range w.live() {
		sources = append(sources, m.ULID)
	}
	w.writeNotes(sources...)
	stray := ulid.MustNew(1, nil)
	w.writeNotes(stray)
	dir := t.TempDir()
	pass := func(change func(*compact.Config)) { // each in a process of its own
		c := w.killable(&process{}, dir, func(cfg *compact.Config) {
			cfg.DisableDownsampling = true
			if change != nil {
				change(cfg)
			}
		})
		require.NoError(t, c.Once(t.Context()))
		require.NoError(t, c.Close())
	}
	pass(nil)
	require.True(t, w.hasNote(stray), "not yet")
	w.clock.add(47 * time.Hour)
	pass(nil)
	require.True(t, w.hasNote(stray), "not yet")
	w.clock.add(2 * time.Hour)
	pass(nil)
	require.False(t, w.hasNote(stray))
	for range 3 { // the blocks of two hours are gone by then
		w.clock.add(49 * time.Hour)
		pass(nil)
	}
	require.Less(t, len(w.live()), len(sources), "they were compacted")
	for _, id := range sources {
		require.True(t, w.hasNote(id), "a block is made of %s", id)
	}
	// Retention takes what is older than a day, that is, all; a new block shows that the listing is none of nothing.
	w.ship(24*30, 24*30+2, 1)
	for range 4 {
		w.clock.add(49 * time.Hour)
		pass(func(cfg *compact.Config) { require.NoError(t, cfg.Retention.Raw.Set("8d")) })
	}
	for _, id := range sources {
		require.False(t, w.hasNote(id), "nothing is left of %s", id)
	}
}

// TestNotesAreKept while nobody can tell whether they are needed.
//
// RELIABILITY B3
func TestNotesAreKept(t *testing.T) {
	for name, spoil := range map[string]func(w *world, id ulid.ULID){
		"a bucket without blocks": func(w *world, id ulid.ULID) {
			require.NoError(w, block.Delete(context.Background(), w.bkt, id))
		},
		"a block that can't be read": func(w *world, id ulid.ULID) {
			require.NoError(w, w.bkt.Memory.Upload(context.Background(), block.Name(id, block.MetaFilename), strings.NewReader("{")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.ship(0, 2, 1)
			stray := ulid.MustNew(1, nil)
			w.writeNotes(m.ULID, stray)
			spoil(w, m.ULID)
			dir := t.TempDir()
			for range 5 {
				c := w.killable(&process{}, dir, nil)
				_ = c.Once(t.Context())
				require.NoError(t, c.Close())
				w.clock.add(49 * time.Hour)
			}
			require.True(t, w.hasNote(m.ULID))
			require.True(t, w.hasNote(stray))
		})
	}
}

// TestNotesWaitAnew: where the data folder is lost, or torn, the wait begins again.
func TestNotesWaitAnew(t *testing.T) {
	w := newWorld(t)
	w.ship(0, 2, 1)
	stray := ulid.MustNew(1, nil)
	w.writeNotes(stray)
	dir := t.TempDir()
	pass := func() {
		c := w.killable(&process{}, dir, nil)
		require.NoError(t, c.Once(t.Context()))
		require.NoError(t, c.Close())
	}
	pass()
	w.clock.add(49 * time.Hour)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "orphans.json"), []byte(`{"01`), 0o600))
	pass()
	require.True(t, w.hasNote(stray))
	w.clock.add(49 * time.Hour)
	pass()
	require.False(t, w.hasNote(stray))
}

// TestNotesOfDeletedSeries: when a delete request is done its exemplars are in
// no note any more, and the others are.
func TestNotesOfDeletedSeries(t *testing.T) {
	w := newWorld(t)
	m := w.ship(0, 2, 3)
	at := epoch.UnixMilli() + hour
	n := &notes.Note{MinTime: m.MinTime, MaxTime: m.MaxTime}
	for _, i := range []string{"000", "001"} {
		n.Series = append(n.Series, notes.Series{Labels: labels.FromStrings("__name__", "m", "i", i), Exemplars: []exemplar.Exemplar{{Ts: at}, {Ts: at + 1000}}})
	}
	require.NoError(t, notes.Upload(t.Context(), w.bkt, m.ULID, n))
	r, err := block.CreateDelete(t.Context(), w.bkt, block.DeleteRequest{Selectors: []string{`m{i="001",cluster="a"}`}, MinTime: at + 1, MaxTime: at + 2*hour})
	require.NoError(t, err)
	dir := t.TempDir()
	for range 6 {
		c := w.killable(&process{}, dir, nil)
		require.NoError(t, c.Once(t.Context()))
		require.NoError(t, c.Close())
		w.clock.add(49 * time.Hour)
	}
	all, err := block.ListDeletes(t.Context(), w.bkt)
	require.NoError(t, err)
	require.Equal(t, r.ID, all[0].ID)
	require.Equal(t, block.DeleteDone, all[0].State)
	got, err := notes.Read(t.Context(), w.bkt, m.ULID)
	require.NoError(t, err)
	require.Len(t, got.Series, 2)
	require.Len(t, got.Series[0].Exemplars, 2)
	require.Len(t, got.Series[1].Exemplars, 1)
	require.Equal(t, at, got.Series[1].Exemplars[0].Ts)
}
