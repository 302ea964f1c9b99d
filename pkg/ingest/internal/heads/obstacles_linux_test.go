package heads

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// readOnly makes the file system of the folder read only.
func readOnly() obstacle {
	return obstacle{"read-only file system", func(t *testing.T, r *rig) func() {
		there := filepath.Join(r.cfg.Dir, "t")
		if err := syscall.Mount(there, there, "", syscall.MS_BIND, ""); err != nil {
			t.Skipf("a folder can't be mounted here: %s", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(there, syscall.MNT_DETACH) })
		remount := func(flags uintptr) {
			require.NoError(t, syscall.Mount("", there, "", syscall.MS_BIND|syscall.MS_REMOUNT|flags, ""))
		}
		remount(syscall.MS_RDONLY)
		return func() { remount(0) }
	}, "read-only file system", false}
}
