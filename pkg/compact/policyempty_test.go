package compact_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/compact"
)

// TestEmptyPolicyFile empties the policy's file, as a writer does that is cut
// off: what is kept for longer than the flags say stays. RELIABILITY K1
func TestEmptyPolicyFile(t *testing.T) {
	w := newWorld(t)
	w.ship(-200*24, -200*24+2, 1)
	path := filepath.Join(t.TempDir(), "retention.yml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o644)) }
	write("rules:\n- selectors: ['{cluster=\"a\"}']\n  raw: forever\n  5m: forever\n  1h: forever\n")
	c, reg := w.watched(func(cfg *compact.Config, _ *compact.Parts) {
		cfg.Retention.PolicyFile = path
		month := duration(30 * 24 * time.Hour)
		cfg.Retention.Raw, cfg.Retention.FiveMinutes, cfg.Retention.OneHour = month, month, month
	})
	write(" \n")
	require.ErrorContains(t, c.Reload(), "is empty")
	require.Zero(t, value(t, reg, "policy_config_last_reload_successful"))
	require.NoError(t, c.Once(context.Background()))
	require.NotEmpty(t, w.live())
}
