package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/thanos-io/objstore"
)

// scratchDir holds what is being written, and the lock. Listings don't show it.
const scratchDir = ".firnline-tmp"

// Folder is a bucket in a folder of a local or shared file system, as Thanos'
// type FILESYSTEM lays it out: an object is a file of the same path.
//
// An object appears whole or not at all, and stays after a power cut: see
// folder_write.go. Symbolic links that leave the folder are not followed.
type Folder struct {
	localErrors
	root *os.Root
}

var _ Bucket = (*Folder)(nil)

// NewFolder opens the bucket in dir, which it creates if need be. What writers
// that died left behind is removed once it is a day old.
func NewFolder(dir string) (*Folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("bucket folder %s: %w", dir, err)
	}
	if err := os.MkdirAll(abs, 0o777); err != nil {
		return nil, fmt.Errorf("bucket folder: %w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("bucket folder: %w", err)
	}
	f := &Folder{root: root}
	f.sweep(time.Now().Add(-24 * time.Hour))
	return f, nil
}

// sweep removes scratch files last written before old. What it can't remove stays for the next start.
func (f *Folder) sweep(old time.Time) {
	entries, err := fs.ReadDir(f.root.FS(), scratchDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != lockName && info.ModTime().Before(old) {
			_ = f.root.Remove(path.Join(scratchDir, e.Name()))
		}
	}
}

// Provider implements [objstore.Bucket].
func (f *Folder) Provider() objstore.ObjProvider { return objstore.FILESYSTEM }

// Name implements [objstore.Bucket]: the folder's absolute path.
func (f *Folder) Name() string { return f.root.Name() }

// Close implements [objstore.Bucket].
func (f *Folder) Close() error { return f.root.Close() }

// SupportedIterOptions implements [objstore.Bucket].
func (f *Folder) SupportedIterOptions() []objstore.IterOptionType { return iterOptions() }

// Iter implements [objstore.Bucket].
func (f *Folder) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	return f.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { return fn(a.Name) }, recursiveOnly(opts)...)
}

// IterWithAttributes implements [objstore.Bucket]. A folder that is not there is empty.
func (f *Folder) IterWithAttributes(ctx context.Context, dir string, fn func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(iterOptions(), opts...); err != nil {
		return err
	}
	params := objstore.ApplyIterOptions(opts...)
	dir = path.Clean("./" + strings.Trim(dir, objstore.DirDelim))
	return f.walk(ctx, dir, !params.Recursive, func(name string, d fs.DirEntry) error {
		if d.IsDir() {
			return f.visitDir(name, fn)
		}
		attrs := objstore.IterObjectAttributes{Name: name}
		if params.LastModified {
			info, err := d.Info()
			if gone(err) {
				return nil
			} else if err != nil {
				return fmt.Errorf("list %s: %w", dir, err)
			}
			attrs.SetLastModified(info.ModTime())
		}
		return fn(attrs)
	})
}

// visitDir shows a folder unless it is empty, since a bucket has no empty ones.
func (f *Folder) visitDir(name string, fn func(objstore.IterObjectAttributes) error) error {
	entries, err := fs.ReadDir(f.root.FS(), name)
	if err != nil && !gone(err) {
		return fmt.Errorf("list %s: %w", name, err)
	}
	if len(entries) == 0 {
		return nil
	}
	return fn(objstore.IterObjectAttributes{Name: name + objstore.DirDelim})
}

// walk calls fn for the files below dir; with flat for the files and folders
// directly in it. What vanishes meanwhile is passed over.
func (f *Folder) walk(ctx context.Context, dir string, flat bool, fn func(name string, d fs.DirEntry) error) error {
	return fs.WalkDir(f.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case gone(err):
			return nil
		case err != nil:
			return fmt.Errorf("list %s: %w", dir, err)
		case name == scratchDir:
			return fs.SkipDir
		case name == dir && d.IsDir():
			return nil
		case name == dir: // a file where a folder was asked for
			return nil
		case d.IsDir() && !flat:
			return nil
		}
		if err := fn(name, d); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// ListSizes implements [Bucket].
func (f *Folder) ListSizes(ctx context.Context, prefix string, fn func(Object) error) error {
	dir, _ := path.Split(prefix)
	return f.walk(ctx, path.Clean("./"+dir), false, func(name string, d fs.DirEntry) error {
		if !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := d.Info()
		if gone(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		return fn(Object{Name: name, SizeBytes: info.Size(), LastModified: info.ModTime()})
	})
}

// gone tells that there is no such file, also because a folder of its path is a file.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// open opens the file of an object. Folders are not objects.
func (f *Folder) open(ctx context.Context, op, name string) (*os.File, fs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	missing := &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	file, err := f.root.Open(name)
	if gone(err) || name == "" {
		return nil, nil, missing
	} else if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", op, name, err)
	}
	info, err := file.Stat()
	if err == nil && !info.IsDir() {
		return file, info, nil
	}
	_ = file.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", op, name, err)
	}
	return nil, nil, missing
}

// Get implements [objstore.Bucket].
func (f *Folder) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return f.GetRange(ctx, name, 0, -1)
}

// GetRange implements [objstore.Bucket]. Length -1 is to the end.
func (f *Folder) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	file, info, err := f.open(ctx, "get", name)
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if off < 0 || off > size || (off == size && size > 0) {
		_ = file.Close()
		return nil, fmt.Errorf("get %s: offset %d of %d bytes: invalid range", name, off, size)
	}
	rest := size - off
	if length >= 0 {
		rest = min(rest, length)
	}
	return objstore.ObjectSizerReadCloser{
		ReadCloser: struct {
			io.Reader
			io.Closer
		}{io.NewSectionReader(file, off, rest), file},
		Size: func() (int64, error) { return rest, nil },
	}, nil
}

// Exists implements [objstore.Bucket].
func (f *Folder) Exists(ctx context.Context, name string) (bool, error) {
	_, err := f.Attributes(ctx, name)
	if f.IsObjNotFoundErr(err) {
		return false, nil
	}
	return err == nil, err
}

// Attributes implements [objstore.Bucket].
func (f *Folder) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	file, info, err := f.open(ctx, "stat", name)
	if err != nil {
		return objstore.ObjectAttributes{}, err
	}
	defer func() { _ = file.Close() }() // nothing was written
	return objstore.ObjectAttributes{Size: info.Size(), LastModified: info.ModTime()}, nil
}

// GetIf implements [Bucket]. The ETag is made of the body.
func (f *Folder) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	file, info, err := f.open(ctx, "get", name)
	if err != nil {
		return nil, "", err
	}
	body, err := readAll(file, info.Size())
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	have := bodyETag(body)
	if have == etag {
		return nil, etag, nil
	}
	return body, have, nil
}

func bodyETag(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}
