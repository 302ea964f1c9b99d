package compact_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/compact"
)

func defaults() (cfg compact.Config) {
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	return cfg
}

// TestOnce makes one pass over four days of blocks and finds the same samples in
// fewer blocks, both tiers, and nothing left on disk.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	w.shipDays(4, 3)
	w.requireSamples()
	dir := t.TempDir()
	c := w.compactor(func(cfg *compact.Config, _ *compact.Parts) { cfg.DataDir = dir })
	require.NoError(t, c.Once(context.Background()))

	w.requireSamples()
	require.Len(t, w.liveRaw(), 2, "two blocks of two days")
	require.Len(t, w.live(), 4, "and the same at 5m")
	requireTidy(t, dir)

	before := w.blockObjects()
	require.NoError(t, c.Once(context.Background()))
	require.Equal(t, before, w.blockObjects(), "nothing to do")

	w.clock.add(49 * time.Hour)
	require.NoError(t, c.Once(context.Background()))
	require.Len(t, w.liveRaw(), 2)
	w.requireSamples()
	require.Less(t, w.blockObjects(), before, "the inputs are gone after the delete delay")
}
