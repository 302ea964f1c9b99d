package bucket

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks a file against other processes and other openings of it; false:
// somebody has it. Closing the file unlocks it.
func tryLock(file *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}
