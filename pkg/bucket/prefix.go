package bucket

import (
	"context"
	"io"
	"strings"

	"github.com/thanos-io/objstore"
)

// prefixed shows the part of a bucket that lies under a prefix as a whole bucket.
type prefixed struct {
	Bucket
	prefix string // ends in a slash
}

// WithPrefix puts all names of b under prefix, whose slashes at the ends don't
// count. Without a prefix it returns b.
func WithPrefix(b Bucket, prefix string) Bucket {
	prefix = strings.Trim(prefix, objstore.DirDelim)
	if prefix == "" {
		return b
	}
	return &prefixed{Bucket: b, prefix: prefix + objstore.DirDelim}
}

func (p *prefixed) inner(name string) string { return p.prefix + name }
func (p *prefixed) outer(name string) string { return strings.TrimPrefix(name, p.prefix) }

func (p *prefixed) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	return p.Bucket.Iter(ctx, p.inner(dir), func(name string) error { return f(p.outer(name)) }, opts...)
}

func (p *prefixed) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return p.Bucket.IterWithAttributes(ctx, p.inner(dir), func(a objstore.IterObjectAttributes) error {
		a.Name = p.outer(a.Name)
		return f(a)
	}, opts...)
}

func (p *prefixed) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	return p.Bucket.ListSizes(ctx, p.inner(prefix), func(o Object) error {
		o.Name = p.outer(o.Name)
		return f(o)
	})
}

func (p *prefixed) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return p.Bucket.Get(ctx, p.inner(name))
}

func (p *prefixed) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return p.Bucket.GetRange(ctx, p.inner(name), off, length)
}

func (p *prefixed) Exists(ctx context.Context, name string) (bool, error) {
	return p.Bucket.Exists(ctx, p.inner(name))
}

func (p *prefixed) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	return p.Bucket.Attributes(ctx, p.inner(name))
}

func (p *prefixed) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return p.Bucket.Upload(ctx, p.inner(name), r, opts...)
}

func (p *prefixed) Delete(ctx context.Context, name string) error {
	return p.Bucket.Delete(ctx, p.inner(name))
}

func (p *prefixed) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	return p.Bucket.GetIf(ctx, p.inner(name), etag)
}

func (p *prefixed) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	return p.Bucket.PutIf(ctx, p.inner(name), body, etag)
}

func (p *prefixed) Copy(ctx context.Context, from, to string) error {
	return p.Bucket.Copy(ctx, p.inner(from), p.inner(to))
}
