package block_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

func TestTakeFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	held, err := block.TakeFolder(dir, "lock")
	require.NoError(t, err)
	_, err = block.TakeFolder(dir, "lock")
	require.ErrorContains(t, err, "in use by another process: stop that one, or give each a folder of its own")
	require.NoError(t, held.Release())
	held, err = block.TakeFolder(dir, "lock")
	require.NoError(t, err, "it was given back")
	require.NoError(t, held.Release())

	require.NoError(t, block.CheckFolder(filepath.Join(dir, "shared")))
	left, err := os.ReadDir(filepath.Join(dir, "shared"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.ErrorContains(t, block.CheckFolder(filepath.Join(dir, "lock")), "can't be written to")

	_, err = block.TakeFolder(filepath.Join(dir, "lock"), "lock")
	require.ErrorContains(t, err, "can't be written to", "it is a file")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "other"), 0o755))
	_, err = block.TakeFolder(dir, "other")
	require.ErrorContains(t, err, "can't be written to", "the lock is a folder")
}
