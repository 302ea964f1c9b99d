package compact_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// atPoint makes a compactor that does something else first at a fault point, once:
// what others do while it sleeps there.
func (w *world) atPoint(point string, meanwhile func(), change func(*compact.Config)) *compact.Compactor {
	return w.compactor(func(cfg *compact.Config, parts *compact.Parts) {
		if change != nil {
			change(cfg)
		}
		parts.Fault = func(_ context.Context, at, _ string) error {
			if at == point && meanwhile != nil {
				do := meanwhile
				meanwhile = nil
				do()
			}
			return nil
		}
	})
}

// TestLateRemoval lets a compactor sleep before it removes a block, while the
// mark is taken off, or the upload completed. The block stays. RELIABILITY C3, B4
func TestLateRemoval(t *testing.T) {
	ctx := context.Background()
	t.Run("marked", func(t *testing.T) {
		w := newWorld(t)
		m := w.ship(0, 2, 1)
		require.NoError(t, block.WriteDeletionMark(ctx, w.bkt, block.DeletionMark{ID: m.ULID, DeletionTime: w.clock.now().Unix()}))
		w.clock.add(49 * time.Hour)
		slept := false
		c := w.atPoint("compact/before-remove", func() {
			slept = true
			require.NoError(t, block.Unmark(ctx, w.bkt, m.ULID, block.DeletionMarkFilename))
		}, nil)
		require.NoError(t, c.Once(ctx))
		require.True(t, slept)
		require.True(t, w.has(m.ULID, block.MetaFilename))
	})
	t.Run("partial", func(t *testing.T) {
		w := newWorld(t)
		m := w.ship(0, 2, 1)
		meta := w.bkt.Objects()[block.Name(m.ULID, block.MetaFilename)]
		require.NoError(t, w.bkt.Memory.Delete(ctx, block.Name(m.ULID, block.MetaFilename)))
		w.clock.add(49 * time.Hour)
		slept := false
		c := w.atPoint("compact/before-remove-partial", func() {
			slept = true
			require.NoError(t, w.bkt.Upload(ctx, block.Name(m.ULID, block.MetaFilename), bytes.NewReader(meta)))
		}, nil)
		require.NoError(t, c.Once(ctx))
		require.True(t, slept)
		require.True(t, w.has(m.ULID, block.MetaFilename))
		require.True(t, w.has(m.ULID, block.IndexFilename))
	})
}

// TestRetiredAndNeededAgain marks raw data by retention. Before it is removed the
// 5m data turns out to be unusable: the raw data stays. RELIABILITY C7
func TestRetiredAndNeededAgain(t *testing.T) {
	ctx, w := context.Background(), days(t)
	w.ship(48, 50, 2)
	retain := func(cfg *compact.Config) { cfg.Retention.Raw = duration(40 * time.Hour) }
	c := w.atPoint("", nil, retain)
	require.NoError(t, c.Once(ctx))
	require.Empty(t, w.liveRaw(), "it is marked")
	for _, coarse := range w.live() {
		require.NoError(t, block.WriteNoCompactMark(ctx, w.bkt, block.NoCompactMark{ID: coarse.ULID, Details: "set aside by firnline compact: corrupt", Reason: block.ReasonManual}))
	}
	w.clock.add(49 * time.Hour)
	require.NoError(t, c.Once(ctx))
	w.clock.add(time.Hour)
	require.NoError(t, c.Once(ctx))
	raw := slices.DeleteFunc(slices.Collect(maps.Values(w.visible())), func(m *block.Meta) bool { return m.Resolution() != 0 })
	require.NotEmpty(t, raw)
	require.Equal(t, w.want, w.samples(raw))

	// What can't be used is made anew, under another name, and goes itself.
	for range 3 {
		w.clock.add(49 * time.Hour)
		require.NoError(t, c.Once(ctx))
	}
	require.Empty(t, w.liveRaw())
	require.Len(t, w.live(), 2)
	for _, m := range w.live() {
		require.False(t, w.has(m.ULID, block.NoCompactMarkFilename))
	}
}

// visible returns all blocks with a meta.json, marked or not.
func (w *world) visible() map[ulid.ULID]*block.Meta {
	out := map[ulid.ULID]*block.Meta{}
	for name, data := range w.bkt.Objects() {
		if id, rel, ok := block.SplitName(name); ok && rel == block.MetaFilename {
			m, err := block.ParseMeta(id, data)
			require.NoError(w, err)
			out[id] = m
		}
	}
	return out
}

// TestReplacedByEachOther marks two blocks as replaced by one another, as a hand
// that takes a third one away leaves them. They don't both go.
func TestReplacedByEachOther(t *testing.T) {
	ctx, w := context.Background(), newWorld(t)
	w.ship(0, 2, 2)
	w.coveredTwin()
	for _, m := range w.live() {
		require.NoError(t, block.WriteDeletionMark(ctx, w.bkt, block.DeletionMark{
			ID: m.ULID, DeletionTime: w.clock.now().Unix(), Details: "firnline: replaced by 01HZZZZZZZZZZZZZZZZZZZZZZZ",
		}))
	}
	w.clock.add(49 * time.Hour)
	require.NoError(t, w.compactor(nil).Once(ctx))
	require.NotEmpty(t, w.live())
	w.requireSamples()
}

// TestLateBlockOfFirstShards ships a late block whose series all belong to the first
// shard of a group that was split, when its neighbours are there as 5m data alone.
// The closing shard of what it brings to the 5m tier is empty, so there is none to
// tell that all of the block is there. It comes to that tier once.
func TestLateBlockOfFirstShards(t *testing.T) {
	w := split(t)
	begun := map[string]int{}
	c := w.compactor(func(cfg *compact.Config, parts *compact.Parts) {
		smallIndex(cfg)
		cfg.Retention.Raw = duration(40 * time.Hour)
		parts.Log = slog.New(jobsBegun{n: begun})
	})
	settle := func() {
		for range 3 {
			ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
			require.NoError(t, c.Once(ctx))
			require.NoError(t, ctx.Err(), "%v", begun)
			stop()
			w.clock.add(49 * time.Hour)
		}
	}
	settle()
	require.Empty(t, w.liveRaw())
	w.ship(10, 12, 1)
	clear(begun)
	settle()
	require.Empty(t, w.liveRaw(), "it is in the 5m tier")
	require.NotEmpty(t, begun)
	for job, n := range begun {
		require.Equal(t, 1, n, "%s of %v", job, begun)
	}
}

// jobsBegun counts the jobs that a compactor says it begins.
type jobsBegun struct {
	n   map[string]int
	job string
}

// Enabled implements slog.Handler.
func (jobsBegun) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h jobsBegun) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "job begins" {
		h.n[h.job]++
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h jobsBegun) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "job" {
			h.job = a.Value.String()
		}
	}
	return h
}

// WithGroup implements slog.Handler.
func (h jobsBegun) WithGroup(string) slog.Handler { return h }
