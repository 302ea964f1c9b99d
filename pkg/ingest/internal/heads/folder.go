package heads

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/tenant"
)

// folder is what --tsdb.path names:
//
//	<dir>/__lock                  held while a process uses it
//	<dir>/__firnline.json         {"version":1}
//	<dir>/<tenant>/               a TSDB: blocks, wal, wbl, chunks_head
//	<dir>/<tenant>/damaged/       what was put aside, never read again by us
//	<dir>/__removing-<tenant>/    a tenant on its way out
//
// One that a Thanos receiver has left is the same, without the version.
type folder struct {
	dir  string
	root *os.Root
	lock fileutil.Releaser
}

const (
	// No tenant's name begins like these.
	lockFilename    = "__lock"
	versionFilename = "__firnline.json"
	removingPrefix  = "__removing-"
	folderVersion   = 1
)

// openFolder takes the folder for this process, and clears what a removal has left.
func openFolder(dir string) (_ *folder, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("--tsdb.path=%s: %w", dir, err)
		}
	}()
	f := &folder{dir: dir}
	if f.lock, err = block.TakeFolder(dir, lockFilename); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.root, err = os.OpenRoot(dir); err != nil {
		return nil, err
	}
	return f, f.checkVersion()
}

func (f *folder) close() {
	if f.root != nil {
		f.root.Close()
	}
	_ = f.lock.Release() // the process ends, and the lock with it
}

// checkVersion refuses a folder that a later version has written.
func (f *folder) checkVersion() error {
	path := filepath.Join(f.dir, versionFilename)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return block.WriteFile(path, fmt.Appendf(nil, "{\"version\":%d}\n", folderVersion))
	}
	if err != nil {
		return err
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("%s: %w: %w", path, block.ErrCorrupt, err)
	}
	if v.Version != folderVersion {
		return fmt.Errorf("%s: %w %d, this program reads %d: start the version of firnline that wrote it, or give another folder", path, block.ErrUnknownVersion, v.Version, folderVersion)
	}
	return nil
}

// tenants are those who have a folder. What is no tenant's name, or no folder
// (a link out of here), is left alone.
func (f *folder) tenants() ([]tenant.ID, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("--tsdb.path: %w", err)
	}
	var ids []tenant.ID
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removingPrefix) {
			if err := f.root.RemoveAll(e.Name()); err != nil {
				return nil, fmt.Errorf("--tsdb.path: %w", err)
			}
			continue
		}
		if id, err := tenant.Parse(e.Name()); err == nil && e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
