// Package bucket is the object store as the rest of Firnline wants it: opened
// from Thanos' objstore YAML, with conditional writes and sizes in listings on
// every provider, and wrapped in layers for metrics, tracing, retries, limits,
// length checks, timeouts and faults.
//
// It knows objects and bytes, and never what a block is. Its only way out is
// [Open], which the command line calls once a process; everyone else is given
// the result as an interface of their own. Every bucket here is safe for
// concurrent use.
//
//	Config, ParseConfig      what an operator may set, and the objstore YAML
//	Open                     provider + prefix + layers + reload
//	NewMemory, NewFolder     the two buckets that need no network
//	SelfTest, Explain        what a bucket can do; what an error means
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/thanos-io/objstore"
)

// ErrConditionFailed is what a PutIf wraps that found another object, or
// another version of it, than it was told to expect. Nothing was written.
var ErrConditionFailed = errors.New("condition failed")

// Object is an entry of a listing with sizes.
type Object = struct {
	Name         string
	SizeBytes    int64
	LastModified time.Time // by the bucket's clock
}

// Bucket is objstore's bucket and the calls it lacks. Both buckets and layers
// are one, so that layers stack in any order.
type Bucket interface {
	objstore.Bucket

	// ListSizes calls f for every object whose name begins with prefix, in no
	// particular order. It stops at f's first error and returns it.
	ListSizes(ctx context.Context, prefix string, f func(Object) error) error

	// GetIf reads a small object whole, unless its ETag is still etag: then body
	// is nil and newETag equals etag. An empty etag always reads.
	GetIf(ctx context.Context, name, etag string) (body []byte, newETag string, err error)

	// PutIf writes a small object whole, provided that its ETag is etag or, when
	// etag is empty, that there is no such object. Otherwise it writes nothing
	// and returns an error that wraps ErrConditionFailed.
	PutIf(ctx context.Context, name string, body []byte, etag string) (newETag string, err error)

	// Copy makes the object to a copy of from, replacing what is there, without
	// the bytes passing through this process. Where the store can't, the error
	// wraps errors.ErrUnsupported and nothing was written.
	Copy(ctx context.Context, from, to string) error

	// IsConditionFailedErr tells a PutIf that lost its race from one that failed.
	IsConditionFailedErr(err error) bool
}

// conditions answers IsConditionFailedErr for every provider.
type conditions struct{}

func (conditions) IsConditionFailedErr(err error) bool { return errors.Is(err, ErrConditionFailed) }

// localErrors answers the questions about errors for buckets whose errors are
// those of package fs.
type localErrors struct{ conditions }

func (localErrors) IsObjNotFoundErr(err error) bool  { return errors.Is(err, fs.ErrNotExist) }
func (localErrors) IsAccessDeniedErr(err error) bool { return errors.Is(err, fs.ErrPermission) }

// iterOptions are those that all of our providers know.
func iterOptions() []objstore.IterOptionType {
	return []objstore.IterOptionType{objstore.Recursive, objstore.UpdatedAt}
}

// recursiveOnly drops what Iter has no use for, so that asking Iter for
// attributes is harmless.
func recursiveOnly(opts []objstore.IterOption) []objstore.IterOption {
	for _, o := range opts {
		if o.Type == objstore.Recursive {
			return []objstore.IterOption{o}
		}
	}
	return nil
}

// maxWhole is the most that GetIf reads: its objects are small, and what the
// store says must not decide how much memory is taken.
const maxWhole = 256 << 20

// readAll reads and closes a body of size bytes, or of as many as there are if size is negative.
func readAll(body io.ReadCloser, size int64) ([]byte, error) {
	if size > maxWhole {
		return nil, errors.Join(fmt.Errorf("%d bytes, more than the %d that are read whole", size, maxWhole), body.Close())
	}
	content, err := io.ReadAll(io.LimitReader(body, maxWhole+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	if len(content) > maxWhole {
		return nil, fmt.Errorf("more than the %d bytes that are read whole", maxWhole)
	}
	if size >= 0 && int64(len(content)) != size {
		return nil, fmt.Errorf("%d of %d bytes: %w", len(content), size, ErrShort)
	}
	return content, nil // not nil, which would say that it has not changed
}
