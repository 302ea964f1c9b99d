package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thanos-io/objstore"
)

const (
	reloadEvery   = 10 * time.Second // between looks at the file
	reloadAtLeast = time.Second      // between looks because of refused credentials
)

// errSwapped has the retry layer make a request once more, with new credentials.
var errSwapped = errors.New("the store refused the credentials, and the configuration file has new ones")

// reloading is a bucket opened from a file, and opened anew when the file has
// other credentials. Requests under way end on the bucket they began on; that
// one is not closed, for the same reason: its idle connections time out.
//
// A file that does not parse, or that names another bucket, changes nothing: it
// is logged and counted once, and the next content is looked at afresh.
type reloading struct {
	*layer
	file    string
	open    func(*Target) (Bucket, error)
	target  *Target // as first read: the place never changes
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	mu struct {
		sync.Mutex
		content []byte // last looked at, good or bad
		looked  time.Time
	}
}

// newReloading serves first, which open made of target and target of content.
func newReloading(file string, content []byte, target *Target, first Bucket, open func(*Target) (Bucket, error)) *reloading {
	r := &reloading{file: file, open: open, target: target, now: time.Now}
	r.mu.content = content
	inner := &current{}
	inner.bucket.Store(&first)
	r.layer = &layer{Bucket: inner, around: r.around}
	return r
}

// around looks at the file when the store refuses the credentials.
func (r *reloading) around(ctx context.Context, _ Call, do func(context.Context) error) error {
	in := r.Bucket.(*current)
	before := in.bucket.Load()
	err := do(ctx)
	if classify(err) == classDenied && (r.look(reloadAtLeast) || in.bucket.Load() != before) {
		return fmt.Errorf("%w: %w", errSwapped, err)
	}
	return err
}

// run looks at the file every so often until ctx is done.
func (r *reloading) run(ctx context.Context) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.look(0)
		}
	}
}

// look reads the file unless that was done within atLeast, and tells whether
// there are other credentials than before.
func (r *reloading) look(atLeast time.Duration) (swapped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now.Sub(r.mu.looked) < atLeast {
		return false
	} else {
		r.mu.looked = now
	}
	content, err := os.ReadFile(r.file)
	if err == nil && bytes.Equal(content, r.mu.content) {
		return false
	}
	if err != nil {
		content = []byte(err.Error()) // so that the same failure is told once
		if bytes.Equal(content, r.mu.content) {
			return false
		}
	}
	r.mu.content = content
	if err == nil {
		err = r.swap(content)
	}
	if err != nil {
		r.metrics.reloadFailed.Inc()
		r.metrics.reloadOK.Set(0)
		r.log.Error("objstore configuration not taken over, the one before stays in use", "file", r.file, "err", err)
		return false
	}
	r.metrics.reloads.Inc()
	r.metrics.reloadOK.Set(1)
	r.log.Info("objstore configuration read anew", "file", r.file, "bucket", r.target)
	return true
}

// swap opens the bucket that content describes and serves it from now on.
func (r *reloading) swap(content []byte) error {
	t, err := ParseConfig(content)
	if err != nil {
		return err
	}
	if !t.same(r.target) {
		return fmt.Errorf("it names another place, %v instead of %v: restart to use it", t, r.target)
	}
	b, err := r.open(t)
	if err != nil {
		return err
	}
	r.Bucket.(*current).bucket.Store(&b)
	return nil
}

// current is the bucket that is in use at the moment.
type current struct{ bucket atomic.Pointer[Bucket] }

func (c *current) now() Bucket { return *c.bucket.Load() }

func (c *current) Provider() objstore.ObjProvider { return c.now().Provider() }
func (c *current) Name() string                   { return c.now().Name() }
func (c *current) Close() error                   { return c.now().Close() }
func (c *current) SupportedIterOptions() []objstore.IterOptionType {
	return c.now().SupportedIterOptions()
}
func (c *current) IsObjNotFoundErr(err error) bool               { return c.now().IsObjNotFoundErr(err) }
func (c *current) IsAccessDeniedErr(err error) bool              { return c.now().IsAccessDeniedErr(err) }
func (c *current) IsConditionFailedErr(err error) bool           { return c.now().IsConditionFailedErr(err) }
func (c *current) Delete(ctx context.Context, name string) error { return c.now().Delete(ctx, name) }
func (c *current) Exists(ctx context.Context, name string) (bool, error) {
	return c.now().Exists(ctx, name)
}

func (c *current) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	return c.now().Iter(ctx, dir, f, opts...)
}

func (c *current) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return c.now().IterWithAttributes(ctx, dir, f, opts...)
}

func (c *current) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	return c.now().ListSizes(ctx, prefix, f)
}

func (c *current) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.now().Get(ctx, name)
}

func (c *current) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return c.now().GetRange(ctx, name, off, length)
}

func (c *current) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	return c.now().Attributes(ctx, name)
}

func (c *current) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return c.now().Upload(ctx, name, r, opts...)
}

func (c *current) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	return c.now().GetIf(ctx, name, etag)
}

func (c *current) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	return c.now().PutIf(ctx, name, body, etag)
}

func (c *current) Copy(ctx context.Context, from, to string) error {
	return c.now().Copy(ctx, from, to)
}
