package main

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// asNobody runs do with the rights to files that nobody has. The tests' own user may
// be root, who writes everywhere.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	if os.Getuid() != 0 {
		do()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := syscall.Setfsuid(65534)
		if err == nil {
			do()
		}
		done <- err
	}()
	require.NoError(t, <-done)
}

func TestAllRefusesAReadOnlyFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // what is above can be looked into
	used := filepath.Join(dir, "used")
	d, err := openAllDir(used)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	for _, path := range []string{used, dir} {
		require.NoError(t, os.Chmod(path, 0o555))
	}
	for name, path := range map[string]string{"one that has data": used, "a new one in it": filepath.Join(dir, "new")} {
		asNobody(t, func() { _, err = openAllDir(path) })
		require.ErrorIs(t, err, os.ErrPermission, name)
		require.ErrorContains(t, err, "--data-dir="+path+": can't be written to: ", name)
		require.ErrorContains(t, err, "make it writable for this user, or choose another folder", name)
	}
}
