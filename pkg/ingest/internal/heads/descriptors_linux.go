package heads

import (
	"os"
	"strconv"
	"syscall"
)

// freeDescriptors is how many files the process may open more; known is false if that can't be told.
func freeDescriptors() (n int, known bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, false
	}
	free := int64(min(limit.Cur, 1<<30)) + 1 // the one that the list was read by
	for _, f := range open {
		if number, err := strconv.ParseUint(f.Name(), 10, 32); err == nil && number < limit.Cur {
			free--
		}
	}
	return int(free), true
}
