package block

import (
	"context"
	"time"

	"github.com/thanos-io/objstore"
)

// Bucket is the object store a component is given: objstore's calls and the few
// that pkg/bucket adds to them. Implementations are safe for concurrent use.
type Bucket interface {
	objstore.Bucket

	// ListSizes calls f for every object whose name begins with prefix, in no
	// particular order, with its size in bytes and its age by the bucket's clock.
	ListSizes(ctx context.Context, prefix string, f func(Object) error) error

	// GetIf reads a small object whole, unless its ETag is still etag: then body
	// is nil and newETag equals etag. An empty etag always reads.
	GetIf(ctx context.Context, name, etag string) (body []byte, newETag string, err error)

	// PutIf writes a small object whole, provided that its ETag is etag or, when
	// etag is empty, that there is no such object. Otherwise it writes nothing
	// and returns an error that IsConditionFailedErr knows.
	PutIf(ctx context.Context, name string, body []byte, etag string) (newETag string, err error)

	// Copy makes the object to a copy of from, replacing what is there, without
	// the bytes passing through this process. Where the store can't, the error
	// wraps errors.ErrUnsupported and nothing was written.
	Copy(ctx context.Context, from, to string) error

	// IsConditionFailedErr tells a PutIf that lost its race from one that failed.
	IsConditionFailedErr(err error) bool
}

// Object is an entry of a listing.
// An alias of a plain struct, so that pkg/bucket can satisfy Bucket without importing this package.
type Object = struct {
	Name         string
	SizeBytes    int64
	LastModified time.Time // by the bucket's clock
}
