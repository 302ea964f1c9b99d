package block_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	require.NoError(t, block.WriteFile(path, []byte("old")))
	require.NoError(t, block.WriteFile(path, []byte("newer")))

	err := block.CreateFile(path, func(w io.Writer) error {
		_, _ = w.Write([]byte("half of wha")) // cut off by the error below
		return errFault
	})
	require.ErrorIs(t, err, errFault)
	require.ErrorContains(t, err, path)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "newer", string(data), "what was there stays")

	// What a crash left of the temporary file is in nobody's way.
	require.NoError(t, os.WriteFile(path+".tmp", []byte("longer than what is to come"), 0o600))
	require.NoError(t, block.WriteFile(path, []byte("last")))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, fmt.Sprint(entries))
	require.Error(t, block.WriteFile(filepath.Join(path, "x"), nil))
}
