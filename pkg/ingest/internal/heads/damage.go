package heads

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/firnline/firnline/pkg/block"
)

// isDamage tells whether an error speaks of what is in the files, or of a file that is missing. Only
// that leads to mending, which takes data away. A system that can't open or read a file says nothing
// about what is in it, though the TSDB calls both corruption; and what
// is not known to be damage is not.
func isDamage(err error) bool {
	if ofSystem(err) {
		return false
	}
	var (
		log    *wlog.CorruptionErr
		chunks *chunks.CorruptionErr
	)
	return errors.As(err, &log) || errors.As(err, &chunks) ||
		errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrPartial) || errors.Is(err, fs.ErrNotExist)
}

// ofSystem tells whether the system stood in the way, whatever else an error says: the first to
// look at is then the system. That there is no such file is no fault of the system's.
func ofSystem(err error) bool {
	for _, e := range errnos(err) {
		if e != syscall.ENOENT {
			return true
		}
	}
	return false
}

// errnos are the system's errors that one is made of.
func errnos(err error) []syscall.Errno {
	switch e := err.(type) { //nolint:errorlint // it goes through all of them
	case syscall.Errno:
		return []syscall.Errno{e}
	case interface{ Unwrap() error }:
		return errnos(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []syscall.Errno
		for _, one := range e.Unwrap() {
			all = append(all, errnos(one)...)
		}
		return all
	}
	return nil
}

// withRemedy adds to what kept a TSDB from being opened what can be done.
func withRemedy(err error) error {
	for _, e := range errnos(err) {
		if remedy := remedyOf(e); remedy != "" {
			return fmt.Errorf("%w; what is on disk is left as it is: %s", err, remedy)
		}
	}
	return err
}

func remedyOf(e syscall.Errno) string {
	switch e {
	case syscall.EMFILE, syscall.ENFILE:
		return "let the process have more open files (ulimit -n, fs.file-max)"
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return "let the process read and write all of the folder"
	case syscall.ENOMEM:
		return "it needs more memory, or more mappings of it (vm.max_map_count)"
	case syscall.ENOSPC, syscall.EDQUOT:
		return "the disk needs space"
	case syscall.EIO:
		return "look at the disk and the kernel's log"
	case syscall.ENOENT:
		return ""
	}
	return "see what is wrong with that file"
}
