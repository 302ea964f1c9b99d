package bucket

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // an ETag as S3 makes it, not a protection
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
)

// Memory is a bucket in memory, for tests and experiments. It is strongly
// consistent, and as strict as the strictest provider: deleting what is not
// there is an error, and so is a range that begins behind the object's end.
type Memory struct {
	localErrors
	mu struct {
		sync.RWMutex
		objects map[string]memoryObject
		now     func() time.Time
	}
}

type memoryObject struct {
	body     []byte // never changed once stored
	etag     string
	modified time.Time
}

var _ Bucket = (*Memory)(nil)

// NewMemory returns an empty bucket whose clock is the machine's.
func NewMemory() *Memory {
	m := &Memory{}
	m.mu.objects = map[string]memoryObject{}
	m.mu.now = time.Now
	return m
}

// SetClock makes now the bucket's clock, by which objects get their LastModified.
func (m *Memory) SetClock(now func() time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now = now
}

// Objects returns a copy of the whole bucket by object name. The bodies are
// shared and must not be changed.
func (m *Memory) Objects() map[string][]byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make(map[string][]byte, len(m.mu.objects))
	for name, o := range m.mu.objects {
		out[name] = o.body
	}
	return out
}

// Provider implements [objstore.Bucket].
func (m *Memory) Provider() objstore.ObjProvider { return objstore.MEMORY }

// Name implements [objstore.Bucket].
func (m *Memory) Name() string { return "memory" }

// Close implements [objstore.Bucket]. The bucket stays usable.
func (m *Memory) Close() error { return nil }

// SupportedIterOptions implements [objstore.Bucket].
func (m *Memory) SupportedIterOptions() []objstore.IterOptionType { return iterOptions() }

// Iter implements [objstore.Bucket]. As on S3, a level's objects come before its folders.
func (m *Memory) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	return m.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { return f(a.Name) }, recursiveOnly(opts)...)
}

// IterWithAttributes implements [objstore.Bucket].
func (m *Memory) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(iterOptions(), opts...); err != nil {
		return err
	}
	params := objstore.ApplyIterOptions(opts...)
	if dir != "" {
		dir = strings.TrimSuffix(dir, objstore.DirDelim) + objstore.DirDelim
	}
	objects, folders := m.level(dir, params.Recursive)
	for _, o := range objects {
		attrs := objstore.IterObjectAttributes{Name: o.Name}
		if params.LastModified {
			attrs.SetLastModified(o.LastModified)
		}
		if err := visit(ctx, f, attrs); err != nil {
			return err
		}
	}
	for _, folder := range folders {
		if err := visit(ctx, f, objstore.IterObjectAttributes{Name: folder}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// visit calls f unless ctx is done.
func visit[T any](ctx context.Context, f func(T) error, v T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return f(v)
}

// level lists one folder: its objects, and its folders unless recursive.
func (m *Memory) level(dir string, recursive bool) (objects []Object, folders []string) {
	for _, o := range m.sorted(dir) {
		folder, _, deeper := strings.Cut(strings.TrimPrefix(o.Name, dir), objstore.DirDelim)
		if recursive || !deeper {
			objects = append(objects, o)
			continue
		}
		if name := dir + folder + objstore.DirDelim; len(folders) == 0 || folders[len(folders)-1] != name {
			folders = append(folders, name)
		}
	}
	return objects, folders
}

// sorted returns the objects under prefix by name.
func (m *Memory) sorted(prefix string) []Object {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []Object
	for _, name := range slices.Sorted(maps.Keys(m.mu.objects)) {
		if o := m.mu.objects[name]; strings.HasPrefix(name, prefix) {
			out = append(out, Object{Name: name, SizeBytes: int64(len(o.body)), LastModified: o.modified})
		}
	}
	return out
}

// ListSizes implements [Bucket].
func (m *Memory) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	for _, o := range m.sorted(prefix) {
		if err := visit(ctx, f, o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// find returns the object called name, or an error that op names.
func (m *Memory) find(ctx context.Context, op, name string) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.mu.objects[name]
	if !ok {
		return memoryObject{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return o, nil
}

// Get implements [objstore.Bucket].
func (m *Memory) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return m.GetRange(ctx, name, 0, -1)
}

// GetRange implements [objstore.Bucket]. Length -1 is to the end.
func (m *Memory) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	o, err := m.find(ctx, "get", name)
	if err != nil {
		return nil, err
	}
	size := int64(len(o.body))
	if off < 0 || off > size || (off == size && size > 0) {
		return nil, fmt.Errorf("get %s: offset %d of %d bytes: invalid range", name, off, size)
	}
	end := size
	if length >= 0 {
		end = min(size, off+length)
	}
	return objstore.NopCloserWithSize(bytes.NewReader(o.body[off:end])), nil
}

// Exists implements [objstore.Bucket].
func (m *Memory) Exists(ctx context.Context, name string) (bool, error) {
	_, err := m.find(ctx, "stat", name)
	if m.IsObjNotFoundErr(err) {
		return false, nil
	}
	return err == nil, err
}

// Attributes implements [objstore.Bucket].
func (m *Memory) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	o, err := m.find(ctx, "stat", name)
	if err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return objstore.ObjectAttributes{Size: int64(len(o.body)), LastModified: o.modified}, nil
}

// Upload implements [objstore.Bucket]. The object appears when r has ended without an error.
func (m *Memory) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.store(name, body)
	return nil
}

// store puts body under name; m.mu is held for writing.
func (m *Memory) store(name string, body []byte) string {
	sum := md5.Sum(body) //nolint:gosec // see the import
	etag := hex.EncodeToString(sum[:])
	m.mu.objects[name] = memoryObject{body: body, etag: etag, modified: m.mu.now()}
	return etag
}

// Delete implements [objstore.Bucket].
func (m *Memory) Delete(ctx context.Context, name string) error {
	if _, err := m.find(ctx, "delete", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.objects, name)
	return nil
}

// GetIf implements [Bucket].
func (m *Memory) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	o, err := m.find(ctx, "get", name)
	if err != nil {
		return nil, "", err
	}
	if etag != "" && o.etag == etag {
		return nil, etag, nil
	}
	return append([]byte{}, o.body...), o.etag, nil
}

// PutIf implements [Bucket].
func (m *Memory) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.mu.objects[name].etag; have != etag {
		return "", fmt.Errorf("put %s: have ETag %q, want %q: %w", name, have, etag, ErrConditionFailed)
	}
	return m.store(name, append([]byte{}, body...)), nil
}

// Copy implements [Bucket].
func (m *Memory) Copy(ctx context.Context, from, to string) error {
	o, err := m.find(ctx, "copy", from)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.store(to, o.body)
	return nil
}
