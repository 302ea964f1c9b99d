package wire

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// What is asked for stays; what is not is forgotten after two generations.
func TestRecent(t *testing.T) {
	c := recent[int]{most: 10}
	for i := range 100 {
		c.put(batch.Key{Lo: uint64(i)}, i)
		v, ok := c.get(batch.Key{Lo: 0})
		require.True(t, ok)
		require.Zero(t, v)
		require.LessOrEqual(t, len(c.mu.young)+len(c.mu.old), 20)
	}
	_, ok := c.get(batch.Key{Lo: 50})
	require.False(t, ok)
	v, ok := c.get(batch.Key{Lo: 99})
	require.True(t, ok)
	require.Equal(t, 99, v)
}
