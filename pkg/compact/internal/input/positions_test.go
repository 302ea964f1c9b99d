package input_test

import (
	"bytes"
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

// TestPositionsOnTheWay: what comes changed once is read again. RELIABILITY B1
func TestPositionsOnTheWay(t *testing.T) {
	bkt, m, _ := upload(t, series(500, 3), blocktest.Options{})
	for n := range 12 {
		through := &spoiled{Bucket: bkt, spoil: func(i int, body []byte) []byte {
			if i == n {
				body = bytes.Clone(body)
				body[0] ^= 0x41
			}
			return body
		}}
		b, err := input.Open(t.Context(), through, m, input.Config{})
		require.NoError(t, err)
		all, err := b.Positions(t.Context())
		require.NoError(t, err)
		for _, i := range []int64{250, 3, 499} {
			s, err := all.At(t.Context(), i)
			require.NoError(t, err, "request %d", n)
			require.NotEmpty(t, s.Chunks)
		}
		require.NoError(t, b.Close())
	}
}
