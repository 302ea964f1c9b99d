//go:build !windows

package bucket

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file against other processes and other openings of it; false:
// somebody has it. Closing the file unlocks it.
func tryLock(file *os.File) (bool, error) {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}
