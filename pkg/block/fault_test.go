package block_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/proctest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

var errFault = errors.New("injected fault")

// faulty is a bucket in memory that misbehaves as told. Its fields are set
// before use; nil ones do nothing.
type faulty struct {
	*bucket.Memory

	put    func(name string, body []byte) (stored []byte, err error) // what an Upload stores, and what it answers
	hide   func(name string) bool                                    // from listings
	fail   func(op, name string) error                               // before anything else
	noCond bool                                                      // PutIf overwrites whatever is there

	mu   sync.Mutex
	sent []string // names of Uploads, in order
}

func newFaulty() *faulty { return &faulty{Memory: bucket.NewMemory()} }

func (f *faulty) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if err := f.check("put", name); err != nil {
		return err
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.sent = append(f.sent, name)
	f.mu.Unlock()
	var answer error
	if f.put != nil {
		body, answer = f.put(name, body)
	}
	if body != nil {
		if err := f.Memory.Upload(ctx, name, bytes.NewReader(body), opts...); err != nil {
			return err
		}
	}
	return answer
}

func (f *faulty) ListSizes(ctx context.Context, prefix string, fn func(block.Object) error) error {
	if err := f.check("list", prefix); err != nil {
		return err
	}
	return f.Memory.ListSizes(ctx, prefix, func(o block.Object) error {
		if f.hide != nil && f.hide(o.Name) {
			return nil
		}
		return fn(o)
	})
}

func (f *faulty) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	if err := f.check("list", dir); err != nil {
		return err
	}
	return f.Memory.Iter(ctx, dir, func(name string) error {
		if f.hide != nil && f.hide(name) {
			return nil
		}
		return fn(name)
	}, opts...)
}

func (f *faulty) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := f.check("get", name); err != nil {
		return nil, err
	}
	return f.Memory.Get(ctx, name)
}

func (f *faulty) Delete(ctx context.Context, name string) error {
	if err := f.check("delete", name); err != nil {
		return err
	}
	return f.Memory.Delete(ctx, name)
}

func (f *faulty) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if err := f.check("putif", name); err != nil {
		return "", err
	}
	if f.noCond {
		if err := f.Memory.Upload(ctx, name, bytes.NewReader(body)); err != nil {
			return "", err
		}
		_, etag, err := f.GetIf(ctx, name, "")
		return etag, err
	}
	return f.Memory.PutIf(ctx, name, body, etag)
}

func (f *faulty) check(op, name string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(op, name)
}

// puts returns the names sent since the last call, without those of leases.
func (f *faulty) puts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, n := range f.sent {
		if !strings.HasPrefix(n, "firnline/") {
			out = append(out, n)
		}
	}
	f.sent = nil
	return out
}

// testID returns the n-th ULID cut at a time that tests start from.
func testID(n int) ulid.ULID { return idAt(epoch.Add(time.Duration(n) * time.Second)) }

// epoch is where the clocks of tests start.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func idAt(t time.Time) ulid.ULID {
	return ulid.MustNew(ulid.Timestamp(t), bytes.NewReader(make([]byte, 10)))
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: epoch} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}
