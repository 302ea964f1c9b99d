package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/oklog/ulid/v2"
)

// scanLocal reads the meta.json of every block in a TSDB's folder. Blocks whose
// meta can't be used are in bad; folders that vanish meanwhile are left out.
func scanLocal(dir string) (metas []*Meta, bad map[ulid.ULID]error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("look for blocks in the TSDB's folder: %w", err)
	}
	bad = map[ulid.ULID]error{}
	for _, e := range entries {
		id, ok := ParseID(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		m, err := ReadMeta(filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			metas = append(metas, m)
		case exists(filepath.Join(dir, e.Name())):
			bad[id] = err
		}
	}
	return metas, bad, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// uploadDir is where blocks are linked to while they are sent, below the TSDB's folder.
func uploadDir(dir string) string { return filepath.Join(dir, "thanos", "upload") }

// linkBlock links the files of a local block into thanos/upload/<ULID>, so that
// they stay when Prometheus' retention removes the block meanwhile. It returns
// that folder or, where the file system has no hard links, the block's own.
func linkBlock(dir string, id ulid.ULID) (string, error) {
	src, dst := filepath.Join(dir, id.String()), filepath.Join(uploadDir(dir), id.String())
	if err := os.RemoveAll(dst); err != nil { // left behind by a crash
		return "", fmt.Errorf("block %s: clear %s: %w", id, dst, err)
	}
	if err := os.MkdirAll(filepath.Join(dst, ChunksDirname), 0o755); err != nil {
		return "", fmt.Errorf("block %s: link: %w", id, err)
	}
	err := linkFiles(src, dst)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EXDEV) || errors.Is(err, errors.ErrUnsupported) {
		return src, os.RemoveAll(dst)
	}
	if err != nil {
		return "", fmt.Errorf("block %s: link: %w", id, err)
	}
	return dst, nil
}

// linkFiles links what a block in a bucket consists of, and its meta.json.
func linkFiles(src, dst string) error {
	names := []string{MetaFilename, IndexFilename}
	entries, err := os.ReadDir(filepath.Join(src, ChunksDirname))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		names = append(names, filepath.Join(ChunksDirname, e.Name()))
	}
	for _, name := range names {
		err := os.Link(filepath.Join(src, name), filepath.Join(dst, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // Verify says what is missing
			return err
		}
	}
	return nil
}
