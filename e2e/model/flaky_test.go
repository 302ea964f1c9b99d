package model

import (
	"context"
	"fmt"
	"io"

	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

// flaky is a bucket that misbehaves in ways that are no plain failures: reads end
// early, listings lack keys, conditional writes are refused for no reason.
type flaky struct {
	*bucket.Memory
	faults *faults
	hides  bool // listings lack keys
}

func (f *flaky) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return f.cut(f.Memory.Get(ctx, name))
}

func (f *flaky) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return f.cut(f.Memory.GetRange(ctx, name, off, length))
}

// cut ends a body early, which a client sees as an error or, from some proxies,
// doesn't see.
func (f *flaky) cut(r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil || !f.faults.strikes() {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, 10), r}, nil
}

func (f *flaky) ListSizes(ctx context.Context, prefix string, fn func(block.Object) error) error {
	return f.Memory.ListSizes(ctx, prefix, func(o block.Object) error {
		if f.hides && f.faults.strikes() {
			return nil
		}
		return fn(o)
	})
}

func (f *flaky) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	return f.Memory.Iter(ctx, dir, func(name string) error {
		if f.hides && f.faults.strikes() {
			return nil
		}
		return fn(name)
	}, opts...)
}

func (f *flaky) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if f.faults.strikes() {
		return "", fmt.Errorf("put %s: %w", name, bucket.ErrConditionFailed)
	}
	return f.Memory.PutIf(ctx, name, body, etag)
}
