package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/firnline/firnline/pkg/block"
)

// allDir is the one folder of `firnline all`:
//
//	<dir>/lock      held while a process uses it
//	<dir>/version   of this layout, a number
//	<dir>/bucket/   the bucket, where no other is given
//	<dir>/ingest/   a TSDB a tenant
//	<dir>/store/    copies of meta.json and index headers
//	<dir>/compact/  the compactor's
type allDir struct {
	path string
	lock fileutil.Releaser
}

// allDirVersion is the layout that this version writes and reads.
const allDirVersion = 1

// openAllDir takes the folder for this process.
func openAllDir(path string) (_ *allDir, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("--data-dir=%s: %w", path, err)
		}
	}()
	d := &allDir{path: path}
	if d.lock, err = block.TakeFolder(path, "lock"); err != nil {
		return nil, err
	}
	if err := d.checkVersion(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// checkVersion refuses a layout that it does not know, and notes ours in a new folder.
func (d *allDir) checkVersion() error {
	path := filepath.Join(d.path, "version")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := block.WriteFile(path, []byte(strconv.Itoa(allDirVersion)+"\n")); err != nil {
			return block.NotWritable(err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	found, err := strconv.Atoi(strings.TrimSpace(string(data)))
	switch {
	case err != nil:
		return fmt.Errorf("%s is damaged: it has no number but %q; if nothing else wrote there, write %d into it", path, clip(string(data), 40), allDirVersion)
	case found > allDirVersion:
		return fmt.Errorf("the folder is of a newer version of firnline (layout %d, this one knows up to %d): start that version, or another folder", found, allDirVersion)
	case found < 1:
		return fmt.Errorf("%s says layout %d, which there never was", path, found)
	}
	return nil
}

// Close gives the folder back.
func (d *allDir) Close() error { return d.lock.Release() }
