package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/thanos-io/objstore"
)

// How a file gets into a Folder:
//
//	write    scratchDir/<random>     fsync
//	publish  rename or link to name  fsync every folder that is new or changed
//
// A create links, since link(2) refuses to replace; a replace compares and
// renames under a lock that all processes take. A reader sees the old object or
// the new one, and a power cut leaves one of them.

const (
	lockName = "lock"
	lockPoll = 5 * time.Millisecond // between tries for the lock: it is held for one fsync
)

// Upload implements [objstore.Bucket].
func (f *Folder) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	tmp, err := f.scratch(ctx, r)
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	if err := f.publish(tmp, name, f.root.Rename); err != nil {
		_ = f.root.Remove(tmp)
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return nil
}

// PutIf implements [Bucket].
func (f *Folder) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	tmp, err := f.scratch(ctx, bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	defer func() { _ = f.root.Remove(tmp) }() // renamed already, or not wanted
	if etag == "" {
		err = f.publish(tmp, name, f.root.Link)
		if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EPERM) {
			return conditional(name, body, err)
		}
		// No hard links here: the lock has to do, as for a replace.
	}
	return conditional(name, body, f.replace(ctx, tmp, name, etag))
}

// conditional turns the outcome of a conditional write into PutIf's.
func conditional(name string, body []byte, err error) (string, error) {
	switch {
	case err == nil:
		return bodyETag(body), nil
	case errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("put %s: it exists: %w", name, ErrConditionFailed)
	default:
		return "", fmt.Errorf("put %s: %w", name, err)
	}
}

// replace renames tmp to name if name's ETag is etag, where "" is that of no object.
func (f *Folder) replace(ctx context.Context, tmp, name, etag string) error {
	unlock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_, have, err := f.GetIf(ctx, name, "")
	if err != nil && !f.IsObjNotFoundErr(err) {
		return err
	}
	if have != etag {
		return fmt.Errorf("have ETag %q, want %q: %w", have, etag, ErrConditionFailed)
	}
	return f.publish(tmp, name, f.root.Rename)
}

// lock waits for the folder's lock, which holds between processes and between goroutines.
func (f *Folder) lock(ctx context.Context) (unlock func(), err error) {
	file, err := f.root.OpenFile(path.Join(scratchDir, lockName), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		locked, err := tryLock(file)
		if locked {
			return func() { _ = file.Close() }, nil // closing unlocks
		}
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("lock: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// scratch writes r to a new file and syncs it; the caller owns the file.
func (f *Folder) scratch(ctx context.Context, r io.Reader) (name string, err error) {
	if err := f.root.MkdirAll(scratchDir, 0o777); err != nil {
		return "", err
	}
	name = path.Join(scratchDir, rand.Text())
	file, err := f.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(file, contextReader{ctx, r})
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = f.root.Remove(name)
		return "", err
	}
	return name, nil
}

// contextReader ends a copy when ctx is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// publish moves tmp to name by move and syncs the folders. A Delete may take
// away a folder between its making and the move: then it is made again.
func (f *Folder) publish(tmp, name string, move func(from, to string) error) error {
	if err := objectPath(name); err != nil {
		return err
	}
	const tries = 10
	var err error
	for range tries {
		if err = f.root.MkdirAll(path.Dir(name), 0o777); err != nil {
			return err
		}
		if err = move(tmp, name); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return err
	}
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if err := f.syncDir(dir); err != nil && !gone(err) {
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

// objectPath refuses names that are not the path of a file below the root.
func objectPath(name string) error {
	if !fs.ValidPath(name) || name == "." || name == scratchDir || path.Dir(name) == scratchDir {
		return fmt.Errorf("object name %q: %w", name, fs.ErrInvalid)
	}
	return nil
}

func (f *Folder) syncDir(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Delete implements [objstore.Bucket], and removes the folders it empties.
func (f *Folder) Delete(ctx context.Context, name string) error {
	file, _, err := f.open(ctx, "delete", name)
	if err != nil {
		return err
	}
	_ = file.Close() // opened to see that it is no folder
	if err := f.root.Remove(name); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	dir := path.Dir(name)
	for ; dir != "."; dir = path.Dir(dir) {
		if f.root.Remove(dir) != nil { // not empty
			break
		}
	}
	if err := f.syncDir(dir); err != nil && !gone(err) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// Copy implements [Bucket].
func (f *Folder) Copy(ctx context.Context, from, to string) error {
	r, err := f.Get(ctx, from)
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return errors.Join(f.Upload(ctx, to, r), r.Close())
}
