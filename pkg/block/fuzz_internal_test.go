package block

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

// FuzzParseMark: a mark that is taken comes out the same after writing and reading.
// One of an unknown version is kept as such where it says to leave the block alone.
func FuzzParseMark(f *testing.F) {
	id := ulid.MustParse("01HZZZZZZZZZZZZZZZZZZZZZZZ")
	f.Add([]byte(`{"id":"01HZZZZZZZZZZZZZZZZZZZZZZZ","version":1,"details":"x","deletion_time":17}`))
	f.Add([]byte(`{"id":"01HZZZZZZZZZZZZZZZZZZZZZZZ","version":1,"no_compact_time":17,"reason":"manual"}`))
	f.Add([]byte(`{"id":{"block":"01HZZZZZZZZZZZZZZZZZZZZZZZ"},"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{DeletionMarkFilename, NoCompactMarkFilename, NoDownsampleMarkFilename} {
			var once, twice Marks
			err := once.set(id, name, data)
			if err != nil && (name == DeletionMarkFilename || !errors.Is(err, ErrUnknownVersion)) {
				require.Equal(t, Marks{}, once, "what is refused is not kept")
				continue
			}
			require.NotEqual(t, Marks{}, once)
			var mark any = once.Deletion
			switch name {
			case NoCompactMarkFilename:
				mark = once.NoCompact
			case NoDownsampleMarkFilename:
				mark = once.NoDownsample
			}
			written, err := encodeJSON(mark)
			require.NoError(t, err)
			require.NoError(t, twice.set(id, name, written))
			require.Equal(t, once, twice)
		}
	})
}

// FuzzShipState: whatever lies in the state files, the shipper starts with a
// list that Prometheus can read, or says which file is too new.
func FuzzShipState(f *testing.F) {
	f.Add([]byte(`{"version":1,"uploaded":["01HZZZZZZZZZZZZZZZZZZZZZZZ"]}`), []byte(`{"version":1,"owner":"a-b","rebuild":false,"labels":[{"since":0,"labels":{"a":"b"}}]}`))
	f.Add([]byte(`{"version":1,"uploaded":null}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, list, own []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, DefaultShipperFilename), list, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, ownStateFilename), own, 0o600))
		s, err := readState(dir, DefaultShipperFilename, func() string { return "new" })
		if err != nil {
			require.ErrorIs(t, err, ErrUnknownVersion)
			return
		}
		require.NotEmpty(t, s.own.Owner)
		again, err := readState(dir, DefaultShipperFilename, func() string { return "never" })
		require.NoError(t, err)
		require.Equal(t, s.shipped, again.shipped)
		require.Equal(t, s.own.Owner, again.own.Owner)
		require.Equal(t, s.own.Rebuild, again.own.Rebuild)
	})
}
