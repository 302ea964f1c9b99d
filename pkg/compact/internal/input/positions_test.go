package input_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// TestPositions finds each series by its number where reading on finds it.
func TestPositions(t *testing.T) {
	ctx := context.Background()
	bkt, m, _ := upload(t, series(500, 3), blocktest.Options{})
	b, err := input.Open(ctx, bkt, m, input.Config{})
	require.NoError(t, err)
	defer b.Close()
	all, err := b.Positions(ctx)
	require.NoError(t, err)
	n := int64(0)
	for ; ; n++ {
		want, err := b.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		got, err := all.At(ctx, n)
		require.NoError(t, err)
		require.Equal(t, want.Labels, got.Labels)
	}
	require.Equal(t, n, all.Count())
	require.Positive(t, n)
}
