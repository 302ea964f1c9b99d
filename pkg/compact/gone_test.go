package compact_test

import (
	"context"
	"flag"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact"
)

// fetcher looks at the bucket beside the compactor; with a name it publishes.
func (w *world) fetcher(name string) *block.Fetcher {
	w.Helper()
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.Owner = name
	f, err := block.NewFetcher(cfg, w.bkt, "", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(w, err)
	f.SetClock(w.clock.now)
	return f
}

// takeAway removes all objects of a block without a word.
func (w *world) takeAway(id ulid.ULID) {
	w.Helper()
	for name := range w.bkt.Objects() {
		if strings.HasPrefix(name, id.String()) {
			require.NoError(w, w.bkt.Memory.Delete(context.Background(), name))
		}
	}
}

// RELIABILITY C11: an input that the manifest lists and somebody has removed is
// found out by its job. The rest of the group is compacted in the same pass, and
// the manifest is put right, so that nobody looks for the block for long.
func TestInputIsGone(t *testing.T) {
	for name, point := range map[string]string{"before": "", "when it is claimed": "compact/after-claim", "when it is being read": "compact/after-reread"} {
		t.Run(name, func(t *testing.T) { inputIsGone(t, point) })
	}
}

// inputIsGone removes an input at a point of its job; "": before.
func inputIsGone(t *testing.T, point string) {
	ctx, w := context.Background(), newWorld(t)
	for h := int64(0); h < 48; h += 8 {
		w.ship(h, h+8, 2)
	}
	before := w.fetcher("another")
	for range 2 {
		_, err := before.Fetch(ctx)
		require.NoError(t, err)
		require.NoError(t, before.Publish(ctx))
	}
	all := w.live()
	gone := all[2]
	if point == "" {
		w.takeAway(gone.ULID)
	}
	c, reg := w.watched(func(cfg *compact.Config, parts *compact.Parts) {
		parts.Fault = func(_ context.Context, at, _ string) error {
			if at == point {
				w.takeAway(gone.ULID)
			}
			return nil
		}
		keepAll(cfg)
		cfg.Blocks.GoneDelay = duration(5 * time.Minute)
	})
	require.NoError(t, c.Once(ctx))
	raw := w.liveRaw()
	require.Len(t, raw, 1, "one job of what is left")
	require.NotContains(t, raw[0].Sources(), gone.ULID)
	require.Len(t, raw[0].Sources(), len(all)-1)
	require.Zero(t, value(t, reg, "job_failures_total"))

	v, err := w.fetcher("").Fetch(ctx)
	require.NoError(t, err)
	require.True(t, v.FromManifest)
	require.NotContains(t, v.Metas, gone.ULID, "readers are told")
}
