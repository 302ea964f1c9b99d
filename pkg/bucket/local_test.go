package bucket_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/bucket/buckettest"
)

// What components ask for is what this package offers.
var (
	_ block.Bucket  = bucket.Bucket(nil)
	_ bucket.Bucket = block.Bucket(nil)
)

func TestMemory(t *testing.T) {
	buckettest.Run(t, func(*testing.T) bucket.Bucket { return bucket.NewMemory() })
}

func TestMemoryClock(t *testing.T) {
	m := bucket.NewMemory()
	then := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	m.SetClock(func() time.Time { return then })
	require.NoError(t, m.Upload(t.Context(), "o", bytes.NewReader([]byte("x"))))
	attrs, err := m.Attributes(t.Context(), "o")
	require.NoError(t, err)
	require.Equal(t, then, attrs.LastModified)
	require.Equal(t, map[string][]byte{"o": []byte("x")}, m.Objects())
}

func newFolder(t *testing.T, dir string) *bucket.Folder {
	f, err := bucket.NewFolder(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func TestFolder(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket { return newFolder(t, t.TempDir()) })
}

// Two processes on one folder: the lock is in the folder, not in the process.
func TestFolderShared(t *testing.T) {
	dir := t.TempDir()
	a, b := newFolder(t, dir), newFolder(t, dir)
	etag, err := a.PutIf(t.Context(), "o", []byte("a"), "")
	require.NoError(t, err)
	_, err = b.PutIf(t.Context(), "o", []byte("b"), "")
	require.True(t, b.IsConditionFailedErr(err))
	_, err = b.PutIf(t.Context(), "o", []byte("b"), etag)
	require.NoError(t, err)
	_, err = a.PutIf(t.Context(), "o", []byte("a"), etag)
	require.True(t, a.IsConditionFailedErr(err))
}

func TestFolderRefusesPathsOutside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "in")
	f := newFolder(t, dir)
	for _, name := range []string{"../out", "a/../../out", "/etc/out", "", ".", "a//b", ".firnline-tmp/lock"} {
		require.ErrorIs(t, f.Upload(t.Context(), name, bytes.NewReader(nil)), fs.ErrInvalid, name)
		_, err := f.PutIf(t.Context(), name, nil, "")
		require.ErrorIs(t, err, fs.ErrInvalid, name)
	}
	_, err := f.Get(t.Context(), "../in")
	require.Error(t, err)
	left, err := os.ReadDir(filepath.Join(dir, ".firnline-tmp"))
	require.NoError(t, err)
	require.Empty(t, left, "nothing is left of a refused upload")
}

// What a killed writer leaves is invisible, and removed once it is old.
func TestFolderSweepsScratch(t *testing.T) {
	dir := t.TempDir()
	scratch := filepath.Join(dir, ".firnline-tmp")
	require.NoError(t, os.MkdirAll(scratch, 0o777))
	for _, name := range []string{"old", "new"} {
		require.NoError(t, os.WriteFile(filepath.Join(scratch, name), []byte("half"), 0o666))
	}
	require.NoError(t, os.Chtimes(filepath.Join(scratch, "old"), time.Time{}, time.Now().Add(-25*time.Hour)))
	f := newFolder(t, dir)
	require.NoFileExists(t, filepath.Join(scratch, "old"))
	require.FileExists(t, filepath.Join(scratch, "new"))
	require.NoError(t, f.ListSizes(t.Context(), "", func(o bucket.Object) error {
		t.Errorf("listing shows %s", o.Name)
		return nil
	}))
	require.NoError(t, f.Iter(t.Context(), "", func(name string) error {
		t.Errorf("listing shows %s", name)
		return nil
	}))
}
