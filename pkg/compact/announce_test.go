package compact_test

import (
	"context"
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// TestAnnouncementLost: a result can't be announced, and the marks of what it
// replaces are. Who starts then, goes by the manifest and leaves marked blocks
// alone misses nothing. No time passes, so that no listing helps. RELIABILITY P3
func TestAnnouncementLost(t *testing.T) {
	w := newWorld(t)
	w.ship(0, 2, 1, "cluster", "other")
	c := w.compactor(nil)
	require.NoError(t, c.Once(context.Background())) // writes a manifest
	for h := int64(0); h < 50; h += 2 {
		m := w.ship(h, h+2, 1)
		require.NoError(t, block.Announce(context.Background(), w.bkt, block.Change{Block: m.ULID, Meta: &m}))
	}
	lost := 0
	w.bkt.fail = func(op, name string) error {
		if op == "put" && strings.HasPrefix(name, "firnline/manifest.d/") && !w.anyMarked() {
			lost++
			return errors.New("503")
		}
		return nil
	}
	require.NoError(t, c.Once(context.Background()))
	w.bkt.fail = nil
	require.Positive(t, lost)
	require.True(t, w.anyMarked())

	v, err := w.reader().Fetch(context.Background())
	require.NoError(t, err)
	require.True(t, v.FromManifest)
	for _, m := range w.liveRaw() {
		require.Contains(t, v.Metas, m.ULID, "%d marked blocks are left out", v.Dropped[block.DroppedMarked])
	}
}

func (w *world) anyMarked() bool {
	for name := range w.bkt.Objects() {
		if strings.HasSuffix(name, block.DeletionMarkFilename) {
			return true
		}
	}
	return false
}

// reader is a new process that reads blocks, none that are marked.
func (w *world) reader() *block.Fetcher {
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.IgnoreDeletionMarksDelay = 0
	f, err := block.NewFetcher(cfg, w.bkt, "", logger(), prometheus.NewRegistry())
	require.NoError(w, err)
	f.SetClock(w.clock.now)
	return f
}
