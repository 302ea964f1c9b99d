package bucket

import (
	"context"
	"io"

	"github.com/thanos-io/objstore"
)

// Op is a kind of request; as a label its values are these.
type Op string

// The kinds of request a Bucket takes.
const (
	OpIter       Op = "iter"
	OpList       Op = "list"
	OpGet        Op = "get"
	OpGetRange   Op = "get_range"
	OpExists     Op = "exists"
	OpAttributes Op = "attributes"
	OpUpload     Op = "upload"
	OpDelete     Op = "delete"
	OpGetIf      Op = "get_if"
	OpPutIf      Op = "put_if"
	OpCopy       Op = "copy"
)

func ops() []Op {
	return []Op{OpIter, OpList, OpGet, OpGetRange, OpExists, OpAttributes, OpUpload, OpDelete, OpGetIf, OpPutIf, OpCopy}
}

// Call is one request to a bucket.
type Call struct {
	Op   Op
	Name string // of the object; of the folder or prefix for listings
	Size int64  // bytes to send, for uploads and PutIf; -1 if not known
}

// layer passes every request to the bucket below through one function, so that
// what a layer adds stands in one place.
//
//	around  has the request made by calling do once, more often, or not at all;
//	        for Get and GetRange do ends when the body can be read
//	body    may wrap the body of a Get or GetRange; nil leaves it alone
//
// An error by which a caller stops a listing is not shown to around: do then
// returns nil, and the listing returns that error.
type layer struct {
	Bucket
	around func(ctx context.Context, c Call, do func(context.Context) error) error
	body   func(ctx context.Context, c Call, body io.ReadCloser) io.ReadCloser
}

// Iter implements [objstore.Bucket].
func (l *layer) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	return list(ctx, l, Call{OpIter, dir, 0}, f, func(ctx context.Context, f func(string) error) error {
		return l.Bucket.Iter(ctx, dir, f, opts...)
	})
}

// IterWithAttributes implements [objstore.Bucket].
func (l *layer) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return list(ctx, l, Call{OpIter, dir, 0}, f, func(ctx context.Context, f func(objstore.IterObjectAttributes) error) error {
		return l.Bucket.IterWithAttributes(ctx, dir, f, opts...)
	})
}

// ListSizes implements [Bucket].
func (l *layer) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	return list(ctx, l, Call{OpList, prefix, 0}, f, func(ctx context.Context, f func(Object) error) error {
		return l.Bucket.ListSizes(ctx, prefix, f)
	})
}

// list runs a listing and keeps the caller's own error apart from the bucket's.
func list[T any](ctx context.Context, l *layer, c Call, f func(T) error, do func(context.Context, func(T) error) error) error {
	var stop error
	err := l.around(ctx, c, func(ctx context.Context) error {
		err := do(ctx, func(v T) error {
			stop = f(v)
			return stop
		})
		if stop != nil {
			err = nil // the caller's, not the bucket's
		}
		return err
	})
	if stop != nil {
		return stop
	}
	return err
}

// open runs a request that answers with a body.
func (l *layer) open(ctx context.Context, c Call, do func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := l.around(ctx, c, func(ctx context.Context) (err error) {
		body, err = do(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if l.body != nil {
		body = l.body(ctx, c, body)
	}
	return body, nil
}

// Get implements [objstore.Bucket].
func (l *layer) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return l.open(ctx, Call{OpGet, name, 0}, func(ctx context.Context) (io.ReadCloser, error) {
		return l.Bucket.Get(ctx, name)
	})
}

// GetRange implements [objstore.Bucket].
func (l *layer) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return l.open(ctx, Call{OpGetRange, name, 0}, func(ctx context.Context) (io.ReadCloser, error) {
		return l.Bucket.GetRange(ctx, name, off, length)
	})
}

// Exists implements [objstore.Bucket].
func (l *layer) Exists(ctx context.Context, name string) (ok bool, err error) {
	err = l.around(ctx, Call{OpExists, name, 0}, func(ctx context.Context) (err error) {
		ok, err = l.Bucket.Exists(ctx, name)
		return err
	})
	return ok, err
}

// Attributes implements [objstore.Bucket].
func (l *layer) Attributes(ctx context.Context, name string) (attrs objstore.ObjectAttributes, err error) {
	err = l.around(ctx, Call{OpAttributes, name, 0}, func(ctx context.Context) (err error) {
		attrs, err = l.Bucket.Attributes(ctx, name)
		return err
	})
	return attrs, err
}

// Upload implements [objstore.Bucket]. The reader is passed on as it is, since
// providers look at its type to learn its size and to read it in parallel.
func (l *layer) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return l.around(ctx, Call{OpUpload, name, sizeOf(r)}, func(ctx context.Context) error {
		return l.Bucket.Upload(ctx, name, r, opts...)
	})
}

// sizeOf returns the bytes that r has, or -1.
func sizeOf(r io.Reader) int64 {
	size, err := objstore.TryToGetSize(r)
	if err != nil {
		return -1
	}
	return size
}

// Delete implements [objstore.Bucket].
func (l *layer) Delete(ctx context.Context, name string) error {
	return l.around(ctx, Call{OpDelete, name, 0}, func(ctx context.Context) error {
		return l.Bucket.Delete(ctx, name)
	})
}

// GetIf implements [Bucket].
func (l *layer) GetIf(ctx context.Context, name, etag string) (body []byte, newETag string, err error) {
	err = l.around(ctx, Call{OpGetIf, name, 0}, func(ctx context.Context) (err error) {
		body, newETag, err = l.Bucket.GetIf(ctx, name, etag)
		return err
	})
	return body, newETag, err
}

// PutIf implements [Bucket].
func (l *layer) PutIf(ctx context.Context, name string, content []byte, etag string) (newETag string, err error) {
	err = l.around(ctx, Call{OpPutIf, name, int64(len(content))}, func(ctx context.Context) (err error) {
		newETag, err = l.Bucket.PutIf(ctx, name, content, etag)
		return err
	})
	return newETag, err
}

// Copy implements [Bucket].
func (l *layer) Copy(ctx context.Context, from, to string) error {
	return l.around(ctx, Call{OpCopy, to, 0}, func(ctx context.Context) error {
		return l.Bucket.Copy(ctx, from, to)
	})
}
