package model

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing/iotest"

	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
)

// flaky is a bucket that misbehaves in ways that are no plain failures: reads end
// early or bring wrong bytes, listings lack keys, conditional writes are refused for
// no reason.
type flaky struct {
	*bucket.Memory
	faults *faults
	hides  bool // listings lack keys
}

func (f *flaky) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := f.Memory.Get(ctx, name)
	return f.spoil(name, r, err)
}

func (f *flaky) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := f.Memory.GetRange(ctx, name, off, length)
	return f.spoil(name, r, err)
}

// spoil has a body end early, which a client sees as an error or, from some proxies,
// doesn't see, or flips a byte of one that has checksums.
func (f *flaky) spoil(name string, r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil || !f.faults.strikes() {
		return r, err
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	_, rel, _ := block.SplitName(name)
	switch at := f.faults.below(len(body) + 1); f.faults.below(3) {
	case 0:
		return io.NopCloser(bytes.NewReader(body[:min(10, len(body))])), nil
	case 1:
		return io.NopCloser(io.MultiReader(bytes.NewReader(body[:at]), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
	default:
		if at < len(body) && (rel == block.IndexFilename || strings.HasPrefix(rel, "chunks/")) {
			body[at] ^= 1 << (at % 8)
		}
		return io.NopCloser(bytes.NewReader(body)), nil
	}
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
