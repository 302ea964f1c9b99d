package compact

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/firnline/firnline/pkg/block"
)

// dataDir is the local folder of a compactor:
//
//	<dir>/lock          held while a process uses it
//	<dir>/owner         who we are in claims; stays with the folder
//	<dir>/compact/      results of jobs until they are uploaded; emptied at the start
//	<dir>/meta-syncer/  copies of meta.json (block.Fetcher), where no manifest can be written
type dataDir struct {
	path  string
	owner string
	lock  fileutil.Releaser
}

// openDataDir takes the folder for this process and clears what an earlier one left.
func openDataDir(path string) (_ *dataDir, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("--data-dir=%s: %w", path, err)
		}
	}()
	d := &dataDir{path: path}
	if d.lock, err = block.TakeFolder(path, "lock"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := os.RemoveAll(d.jobs()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.jobs(), 0o755); err != nil {
		return nil, err
	}
	d.owner, err = d.readOwner()
	return d, err
}

// jobs is the folder of jobs' results.
func (d *dataDir) jobs() string { return filepath.Join(d.path, "compact") }

func (d *dataDir) close() error { return d.lock.Release() }

// readOwner returns who we are, made up at the first start. The host's name is in
// it, so that a copy of the folder on another host is somebody else there.
func (d *dataDir) readOwner() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	prefix := "compact-" + strings.Map(plain, host) + "-"
	path := filepath.Join(d.path, "owner")
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if owner := strings.TrimSpace(string(data)); len(owner) > len(prefix) && strings.HasPrefix(owner, prefix) && strings.Map(plain, owner) == owner {
		return owner, nil
	}
	owner := prefix + strings.ToLower(rand.Text()[:10])
	return owner, block.WriteFile(path, []byte(owner+"\n"))
}

// usedBytes sums the files below dir. Jobs that end meanwhile take theirs away.
func usedBytes(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return ignoreGone(err)
	})
	return sum, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// plain keeps a character of a name that can be an object's.
func plain(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '.':
		return r
	}
	return '-'
}
