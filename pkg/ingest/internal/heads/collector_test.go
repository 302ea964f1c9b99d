package heads

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCollector: the collector waits while any TSDB is opened, and is as it was after the last. No
// other test runs meanwhile.
func TestCollector(t *testing.T) {
	percent := func() int {
		now := debug.SetGCPercent(-1)
		debug.SetGCPercent(now)
		return now
	}
	for _, c := range []struct{ before, during int }{{40, openingPercent}, {300, 300}, {-1, -1}} {
		func() {
			defer debug.SetGCPercent(debug.SetGCPercent(c.before))
			var gc collector
			first, second := gc.hold(), gc.hold()
			require.Equal(t, c.during, percent())
			first()
			require.Equal(t, c.during, percent())
			second()
			require.Equal(t, c.before, percent())
		}()
	}
}
