package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
)

const (
	backoffFirst = 100 * time.Millisecond // doubles with every try; a random part of it is waited
	backoffMost  = 10 * time.Second

	// The budget: retries beyond a fifth of the requests that succeed are not
	// made, so that a store in trouble is not asked more than a healthy one.
	budgetMost = 100
	budgetGain = 1 // by a success
	budgetCost = 5 // of a retry
)

// retrying tries again what may work another time, and does so without harm:
//
//   - a listing that broke goes on without showing an entry twice
//   - a body that broke is read on from where it broke
//   - an upload is sent again from the start, if its reader can be rewound
//   - a PutIf or Delete whose answer was lost is not mistaken for one that
//     came too late
type retrying struct {
	*layer
	most    int // retries of one request
	metrics *metrics
	budget  budget
	wait    func(ctx context.Context, try int) error
}

// withRetry tries requests to b again at most most times each.
func withRetry(b Bucket, most int, m *metrics) *retrying {
	r := &retrying{most: most, metrics: m, wait: backoff}
	r.budget.mu.left = budgetMost
	r.layer = &layer{Bucket: b, around: func(ctx context.Context, c Call, do func(context.Context) error) error {
		return r.try(ctx, c, do)
	}}
	return r
}

// try calls do until it succeeds or trying again is of no use.
func (r *retrying) try(ctx context.Context, c Call, do func(context.Context) error) error {
	for try := 0; ; try++ {
		err := do(ctx)
		if err == nil || r.IsObjNotFoundErr(err) {
			r.budget.gain()
			return err
		}
		if !r.again(ctx, c, try, err) {
			return err
		}
	}
}

// again decides whether the request that failed with err is to be made once
// more, and waits for the moment.
func (r *retrying) again(ctx context.Context, c Call, try int, err error) bool {
	if k := classify(err); k != classTransient && k != classThrottled {
		return false
	}
	if try >= r.most || ctx.Err() != nil {
		return false
	}
	if !r.budget.spend() {
		r.metrics.retriesSpent.Inc()
		return false
	}
	if r.wait(ctx, try) != nil {
		return false
	}
	r.metrics.retries.WithLabelValues(string(c.Op)).Inc()
	return true
}

// backoff waits a random part of a time that doubles with each try.
func backoff(ctx context.Context, try int) error {
	ceiling := min(backoffMost, backoffFirst<<min(try, 10))
	timer := time.NewTimer(backoffFirst/2 + rand.N(ceiling))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// budget is how many retries all requests together have left.
type budget struct {
	mu struct {
		sync.Mutex
		left int
	}
}

func (b *budget) gain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.left = min(budgetMost, b.mu.left+budgetGain)
}

func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.left < budgetCost {
		return false
	}
	b.mu.left -= budgetCost
	return true
}

// Iter implements [objstore.Bucket].
func (r *retrying) Iter(ctx context.Context, dir string, f func(string) error, opts ...objstore.IterOption) error {
	return r.layer.Iter(ctx, dir, onceEach(f, func(name string) string { return name }), opts...)
}

// IterWithAttributes implements [objstore.Bucket].
func (r *retrying) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return r.layer.IterWithAttributes(ctx, dir, onceEach(f, func(a objstore.IterObjectAttributes) string { return a.Name }), opts...)
}

// ListSizes implements [Bucket].
func (r *retrying) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	return r.layer.ListSizes(ctx, prefix, onceEach(f, func(o Object) string { return o.Name }))
}

// onceEach calls f for the first entry of each name. It keeps 16 bytes a name:
// two hashes, as the names of a million objects would take far more.
func onceEach[T any](f func(T) error, name func(T) string) func(T) error {
	type sum [2]uint64
	a, b := maphash.MakeSeed(), maphash.MakeSeed()
	seen := map[sum]struct{}{}
	return func(v T) error {
		key := sum{maphash.String(a, name(v)), maphash.String(b, name(v))}
		if _, ok := seen[key]; ok {
			return nil
		}
		seen[key] = struct{}{}
		return f(v)
	}
}

// Upload implements [objstore.Bucket].
func (r *retrying) Upload(ctx context.Context, name string, body io.Reader, opts ...objstore.ObjectUploadOption) error {
	seeker, ok := body.(io.Seeker)
	if !ok {
		return r.Bucket.Upload(ctx, name, body, opts...)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return r.try(ctx, Call{OpUpload, name, sizeOf(body)}, func(ctx context.Context) error {
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("upload %s: rewind: %w", name, err)
		}
		return r.Bucket.Upload(ctx, name, body, opts...)
	})
}

// Delete implements [objstore.Bucket].
func (r *retrying) Delete(ctx context.Context, name string) error {
	tries := 0
	return r.try(ctx, Call{OpDelete, name, 0}, func(ctx context.Context) error {
		tries++
		err := r.Bucket.Delete(ctx, name)
		if tries > 1 && r.IsObjNotFoundErr(err) {
			return nil // the try before did it, and its answer was lost
		}
		return err
	})
}

// PutIf implements [Bucket]. Bodies must differ between writers, by an owner or
// a nonce: a condition that fails after an answer was lost is held to be our own
// success when the object has our body.
func (r *retrying) PutIf(ctx context.Context, name string, body []byte, etag string) (newETag string, err error) {
	tries := 0
	err = r.try(ctx, Call{OpPutIf, name, int64(len(body))}, func(ctx context.Context) (err error) {
		tries++
		newETag, err = r.Bucket.PutIf(ctx, name, body, etag)
		if tries == 1 || !r.IsConditionFailedErr(err) {
			return err
		}
		have, haveETag, readErr := r.Bucket.GetIf(ctx, name, "")
		switch {
		case r.IsObjNotFoundErr(readErr), readErr == nil && !bytes.Equal(have, body):
			return err
		case readErr != nil:
			return fmt.Errorf("put %s: read back: %w", name, readErr)
		}
		newETag = haveETag
		return nil
	})
	return newETag, err
}

// Get implements [objstore.Bucket]. A body that breaks is read on by ranges: an
// object that is replaced in place is to be read by GetIf.
func (r *retrying) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	body, err := r.layer.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return &resumedBody{body: body, size: sizeOf(body), r: r, ctx: ctx, call: Call{OpGet, name, 0}, length: -1}, nil
}

// GetRange implements [objstore.Bucket].
func (r *retrying) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	body, err := r.layer.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	return &resumedBody{body: body, size: sizeOf(body), r: r, ctx: ctx, call: Call{OpGetRange, name, 0}, off: off, length: length}, nil
}

// resumedBody is a body that outlives its answer; ctx is that of the request.
type resumedBody struct {
	body   io.ReadCloser
	size   int64 // of the first answer; -1 if not known
	r      *retrying
	ctx    context.Context
	call   Call
	off    int64 // of the byte to be read next, in the object
	length int64 // bytes still wanted; -1 for all
	try    int   // retries since the last byte
}

func (b *resumedBody) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.off += int64(n)
		if b.length >= 0 {
			b.length -= int64(n)
		}
		if n > 0 {
			b.try = 0
		}
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if n > 0 {
			return n, b.resume(err)
		}
		if err := b.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume asks for the rest after the body failed with err. It returns nil when
// the rest can be read, and otherwise the error of the body.
func (b *resumedBody) resume(err error) error {
	if !b.r.again(b.ctx, b.call, b.try, err) {
		return err
	}
	b.try++
	if b.length == 0 {
		return io.EOF // all there was to read, but for the end itself
	}
	rest, openErr := b.r.layer.GetRange(b.ctx, b.call.Name, b.off, b.length)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	_ = b.body.Close() // broken
	b.body = rest
	return nil
}

// Close implements [io.Closer].
func (b *resumedBody) Close() error { return b.body.Close() }

// ObjectSize implements [objstore.ObjectSizer].
func (b *resumedBody) ObjectSize() (int64, error) {
	if b.size < 0 {
		return 0, errors.New("size not known")
	}
	return b.size, nil
}
