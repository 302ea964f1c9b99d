package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/fileutil"
)

// TakeFolder makes a folder this process' own until the lock is released, and makes
// the folder if there is none. lock names the file in it that is held. The error
// tells an operator what to do; the caller names the flag.
func TakeFolder(dir, lock string) (fileutil.Releaser, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, NotWritable(err)
	}
	held, _, err := fileutil.Flock(filepath.Join(dir, lock))
	switch {
	case err == nil:
		return held, nil
	case errors.As(err, new(*fs.PathError)) || errors.Is(err, fs.ErrPermission): // it could not be opened
		return nil, NotWritable(err)
	}
	return nil, fmt.Errorf("in use by another process: stop that one, or give each a folder of its own: %w", err)
}

// CheckFolder makes a folder that several may use, if there is none, and finds out
// whether it can be written to. The error is as that of TakeFolder.
func CheckFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return NotWritable(err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return NotWritable(err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// NotWritable says what to do about a folder that can't be written to.
func NotWritable(err error) error {
	return fmt.Errorf("can't be written to: %w; make it writable for this user, or choose another folder", err)
}
