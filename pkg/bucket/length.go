package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/thanos-io/objstore"
)

// withLength makes a body that ends before the size its answer promised an
// ErrShort, since several stores and proxies cut answers off without a sign.
func withLength(b Bucket) Bucket {
	return &layer{
		Bucket: b,
		around: func(ctx context.Context, _ Call, do func(context.Context) error) error { return do(ctx) },
		body: func(_ context.Context, c Call, body io.ReadCloser) io.ReadCloser {
			size, err := objstore.TryToGetSize(body)
			if err != nil || size < 0 {
				return body // nothing was promised
			}
			return &checkedBody{ReadCloser: body, name: c.Name, size: size}
		},
	}
}

// checkedBody is a body that must have size bytes.
type checkedBody struct {
	io.ReadCloser
	name string
	size int64
	read int64
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if errors.Is(err, io.EOF) && b.read < b.size {
		err = fmt.Errorf("get %s: %d of %d bytes: %w", b.name, b.read, b.size, ErrShort)
	}
	return n, err
}

// ObjectSize implements [objstore.ObjectSizer].
func (b *checkedBody) ObjectSize() (int64, error) { return b.size, nil }
