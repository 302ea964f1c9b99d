package heads

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCollectSeldom: the collector waits, and is as it was afterwards. No other test runs
// meanwhile.
func TestCollectSeldom(t *testing.T) {
	percent := func() int {
		now := debug.SetGCPercent(-1)
		debug.SetGCPercent(now)
		return now
	}
	for _, c := range []struct{ before, during int }{{40, seldomPercent}, {300, 300}, {-1, -1}} {
		func() {
			defer debug.SetGCPercent(debug.SetGCPercent(c.before))
			var gc collector
			gc.seldom()
			require.Equal(t, c.during, percent())
			for range 2 {
				gc.asBefore()
				require.Equal(t, c.before, percent())
			}
		}()
	}
}
