package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thanos-io/objstore"
)

// uploadChunk is how much of an upload gets one timeout: 16 MiB a minute is 2.2 Mbit/s.
const uploadChunk = 16 << 20

// stalling ends requests to a bucket that stand still. A listing may take as
// long as it brings entries, and a body as long as it brings bytes; an upload
// gets one timeout for every 16 MiB begun, or is left alone if its size is not
// known.
type stalling struct {
	*layer
	timeout time.Duration
}

// withTimeout ends requests to b that make no progress for timeout.
func withTimeout(b Bucket, timeout time.Duration) Bucket {
	s := &stalling{timeout: timeout}
	s.layer = &layer{Bucket: b, around: s.bound}
	return s
}

func (s *stalling) bound(ctx context.Context, c Call, do func(context.Context) error) error {
	if c.Op == OpUpload && c.Size < 0 {
		return do(ctx)
	}
	ctx, w := newWatch(ctx, s.timeout*time.Duration(1+max(c.Size, 0)/uploadChunk))
	defer w.stop()
	return w.explain(ctx, do(ctx))
}

// watch cancels a context unless it is told of progress.
type watch struct {
	timer   *time.Timer
	timeout time.Duration
	cancel  context.CancelCauseFunc
}

func newWatch(ctx context.Context, timeout time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{timeout: timeout, cancel: cancel, timer: time.AfterFunc(timeout, func() { cancel(ErrTimeout) })}
}

func (w *watch) progress() { w.timer.Reset(w.timeout) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain makes an error that the watch caused ErrTimeout.
func (w *watch) explain(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(ctx), ErrTimeout) {
		return fmt.Errorf("%w (%s)", ErrTimeout, w.timeout)
	}
	return err
}

// Iter implements [objstore.Bucket].
func (s *stalling) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	return listWatched(ctx, s.timeout, f, func(ctx context.Context, f func(string) error) error {
		return s.Bucket.Iter(ctx, dir, f, opts...)
	})
}

// IterWithAttributes implements [objstore.Bucket].
func (s *stalling) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return listWatched(ctx, s.timeout, f, func(ctx context.Context, f func(objstore.IterObjectAttributes) error) error {
		return s.Bucket.IterWithAttributes(ctx, dir, f, opts...)
	})
}

// ListSizes implements [Bucket].
func (s *stalling) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	return listWatched(ctx, s.timeout, f, func(ctx context.Context, f func(Object) error) error {
		return s.Bucket.ListSizes(ctx, prefix, f)
	})
}

// listWatched runs a listing whose every entry is progress. The time that f takes does not count.
func listWatched[T any](ctx context.Context, timeout time.Duration, f func(T) error, do func(context.Context, func(T) error) error) error {
	inner, w := newWatch(ctx, timeout)
	defer w.stop()
	var stop error
	err := do(inner, func(v T) error {
		w.timer.Stop()
		defer w.progress()
		stop = f(v)
		return stop
	})
	if stop != nil {
		return stop
	}
	return w.explain(inner, err)
}

// Get implements [objstore.Bucket].
func (s *stalling) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return s.open(ctx, func(ctx context.Context) (io.ReadCloser, error) { return s.Bucket.Get(ctx, name) })
}

// GetRange implements [objstore.Bucket].
func (s *stalling) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return s.open(ctx, func(ctx context.Context) (io.ReadCloser, error) { return s.Bucket.GetRange(ctx, name, off, length) })
}

func (s *stalling) open(ctx context.Context, do func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	ctx, w := newWatch(ctx, s.timeout)
	body, err := do(ctx)
	if err != nil {
		err = w.explain(ctx, err)
		w.stop()
		return nil, err
	}
	w.timer.Stop() // nobody reads yet
	return &watchedBody{ReadCloser: body, ctx: ctx, watch: w}, nil
}

// watchedBody is watched while somebody waits in Read; ctx is that of the request.
type watchedBody struct {
	io.ReadCloser
	ctx   context.Context
	watch *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.progress()
	n, err := b.ReadCloser.Read(p)
	b.watch.timer.Stop()
	return n, b.watch.explain(b.ctx, err)
}

// Close implements [io.Closer].
func (b *watchedBody) Close() error {
	defer b.watch.stop()
	return b.ReadCloser.Close()
}

// ObjectSize implements [objstore.ObjectSizer].
func (b *watchedBody) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }
