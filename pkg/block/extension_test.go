package block_test

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// RELIABILITY C11: a Thanos compactor gives its results the extensions of one of
// their inputs, which say nothing of what it has made.
func TestExtensionOfAnotherBlock(t *testing.T) {
	ours := &block.Meta{ULID: ulid.MustNew(1, nil)}
	want := block.Extension{Deletes: []ulid.ULID{ulid.MustNew(7, nil)}, Thinned: true, Done: []int64{300_000}}
	require.NoError(t, ours.SetExtension(want))
	got, ok, err := ours.Extension()
	require.NoError(t, err)
	require.True(t, ok)
	want.Version, want.Block = 1, ours.ULID
	require.Equal(t, want, got)

	theirs := &block.Meta{ULID: ulid.MustNew(2, nil)}
	theirs.Thanos.Extensions = ours.Thanos.Extensions
	got, ok, err = theirs.Extension()
	require.NoError(t, err)
	require.False(t, ok, "somebody else's result passes for ours")
	require.Zero(t, got)
}
