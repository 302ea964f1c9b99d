package block

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteFile replaces the file at path by data so that after a crash at any
// moment either the old or the new content is there, whole: it writes a
// temporary file beside it, syncs, renames and syncs the folder. All state is
// written this way.
func WriteFile(path string, data []byte) error {
	return CreateFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// CreateFile is WriteFile for content that is produced as it is written. When
// write fails, or anything after it, the file that was there stays as it is.
func CreateFile(path string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	// A fixed name: what a crash leaves behind is overwritten by the next try.
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, ignoreNotExist(os.Remove(tmp))))
		}
	}()
	if err := fill(f, write); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// fill writes, syncs and closes f.
func fill(f *os.File, write func(io.Writer) error) error {
	buf := bufio.NewWriter(f)
	err := write(buf)
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes the names in a folder durable: files that were created, renamed
// or removed.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
