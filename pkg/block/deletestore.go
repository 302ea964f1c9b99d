package block

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// ErrNoDelete tells that there is no delete request of an id.
var ErrNoDelete = errors.New("no such delete request")

const (
	maxDeletes        = 1000 // requests in a bucket, finished ones included
	deleteReads       = 16   // at once
	deleteUpdateTries = 10
	deleteClock       = "deletes" // owner of the object that the bucket's clock is read off

	// earliest is the year 1, in ms: before any sample, and a number that JSON keeps.
	earliest = -62_135_596_800_000

	// deleteKept is how long a finished request is kept as a record.
	deleteKept = 365 * 24 * time.Hour
)

// CreateDelete checks a request and writes it as pending. Version, state,
// creation time and, unless it is given, the id are filled in; an interval that
// reaches into the future ends now, since nothing is there yet to be removed.
// A request that was written already by an earlier try is no error.
// The error wraps ErrInvalidDelete where the request itself is at fault.
func CreateDelete(ctx context.Context, bkt Bucket, r DeleteRequest) (*DeleteRequest, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	if err := roomForDelete(ctx, bkt); err != nil {
		return nil, err
	}
	now, err := BucketTime(ctx, bkt, deleteClock)
	if err != nil {
		return nil, err
	}
	if r.ID.IsZero() {
		if r.ID, err = ulid.New(ulid.Timestamp(now), rand.Reader); err != nil {
			return nil, fmt.Errorf("name a delete request: %w", err)
		}
	}
	r.Version, r.State, r.Created, r.Clean, r.Finished = deleteVersion, DeletePending, now.UTC(), nil, time.Time{}
	r.MinTime, r.MaxTime = max(r.MinTime, earliest), min(r.MaxTime, now.UnixMilli())
	if r.MinTime > r.MaxTime {
		return nil, fmt.Errorf("%w: it begins at %s, which is to come", ErrInvalidDelete, timeText(r.MinTime))
	}
	data, err := encodeJSON(r)
	if err != nil {
		return nil, fmt.Errorf("delete request %s: encode: %w", r.ID, err)
	}
	if err := putDelete(ctx, bkt, r.ID, data, ""); err != nil {
		if !bkt.IsConditionFailedErr(err) {
			return nil, fmt.Errorf("delete request %s: write: %w", r.ID, err)
		}
		return taken(ctx, bkt, &r) // an earlier try may have landed without an answer
	}
	return &r, nil
}

// taken returns the request that is there under r's id, if it asks for the same.
func taken(ctx context.Context, bkt Bucket, r *DeleteRequest) (*DeleteRequest, error) {
	there, err := GetDelete(ctx, bkt, r.ID)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(there.Selectors, r.Selectors) || there.MinTime != r.MinTime || there.By != r.By || there.Reason != r.Reason {
		return nil, fmt.Errorf("%w: request %s exists and asks for something else", ErrInvalidDelete, r.ID)
	}
	return there, nil
}

// roomForDelete refuses to let requests become so many that reading them costs queries.
func roomForDelete(ctx context.Context, bkt Bucket) error {
	list, err := listDeletes(ctx, bkt)
	if err != nil {
		return err
	}
	if len(list) >= maxDeletes {
		return fmt.Errorf("%w: there are %d requests, %d are allowed; finished ones are removed %d days after their end",
			ErrInvalidDelete, len(list), maxDeletes, int(deleteKept.Hours()/24))
	}
	return nil
}

// putDelete writes a request's object under a condition or, where the bucket
// knows none, plainly: two who change one request in the same moment may then
// overwrite each other.
func putDelete(ctx context.Context, bkt Bucket, id ulid.ULID, data []byte, etag string) error {
	_, err := bkt.PutIf(ctx, deleteName(id), data, etag)
	if errors.Is(err, errors.ErrUnsupported) {
		return bkt.Upload(ctx, deleteName(id), bytes.NewReader(data))
	}
	return err
}

// GetDelete reads one request. The error wraps ErrNoDelete, ErrCorrupt or ErrUnknownVersion.
func GetDelete(ctx context.Context, bkt Bucket, id ulid.ULID) (*DeleteRequest, error) {
	r, _, err := readDelete(ctx, bkt, id, "")
	return r, err
}

// readDelete reads one request, unless its ETag is still etag: then r is nil.
func readDelete(ctx context.Context, bkt Bucket, id ulid.ULID, etag string) (r *DeleteRequest, newETag string, err error) {
	data, newETag, err := bkt.GetIf(ctx, deleteName(id), etag)
	switch {
	case err != nil && bkt.IsObjNotFoundErr(err):
		return nil, "", fmt.Errorf("delete request %s: %w", id, ErrNoDelete)
	case err != nil:
		return nil, "", fmt.Errorf("delete request %s: read: %w", id, err)
	case etag != "" && newETag == etag:
		return nil, etag, nil
	case len(data) > maxDeleteBytes:
		return nil, "", fmt.Errorf("delete request %s: object %s has %d bytes, %d are allowed: %w", id, deleteName(id), len(data), maxDeleteBytes, ErrCorrupt)
	}
	r, err = parseDelete(id, data)
	return r, newETag, err
}

// listDeletes lists the objects of requests, by id.
func listDeletes(ctx context.Context, bkt Bucket) (map[ulid.ULID]Object, error) {
	out := map[ulid.ULID]Object{}
	err := bkt.ListSizes(ctx, deletesPrefix, func(o Object) error {
		if id, ok := deleteID(o.Name); ok {
			out[id] = o
		}
		if len(out) > 10*maxDeletes {
			return fmt.Errorf("more than %d delete requests below %s: remove those that are finished", 10*maxDeletes, deletesPrefix)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list delete requests: %w", err)
	}
	return out, nil
}

// ListDeletes returns all requests of a bucket, in the order they were made. An
// error about some that can't be read comes with all the others; it then wraps
// ErrCorrupt or ErrUnknownVersion.
func ListDeletes(ctx context.Context, bkt Bucket) ([]*DeleteRequest, error) {
	return new(DeleteReader).List(ctx, bkt)
}

// DeleteReader lists the requests of one bucket again and again. A list costs one
// request, and one for each that is pending, whose object comes only when it has
// changed: what is finished never changes, so it is read once. The zero value is
// ready. One goroutine at a time may use it.
type DeleteReader struct {
	known map[ulid.ULID]knownDelete
}

// knownDelete is a request as it was read last.
type knownDelete struct {
	request *DeleteRequest
	etag    string
}

// read returns a request as it is now.
func (k knownDelete) read(ctx context.Context, bkt Bucket, id ulid.ULID) (knownDelete, error) {
	if k.request != nil && k.request.State != DeletePending {
		return k, nil
	}
	r, etag, err := readDelete(ctx, bkt, id, k.etag)
	if err != nil {
		return knownDelete{}, err
	}
	if r == nil {
		return k, nil
	}
	return knownDelete{r, etag}, nil
}

// List is as ListDeletes. What it returns must not be changed.
func (d *DeleteReader) List(ctx context.Context, bkt Bucket) ([]*DeleteRequest, error) {
	list, err := listDeletes(ctx, bkt)
	if err != nil {
		return nil, err
	}
	ids := slices.SortedFunc(maps.Keys(list), ulid.ULID.Compare)
	read := make([]knownDelete, len(ids))
	errs := make([]error, len(ids))
	var g errgroup.Group // one that can't be read must not stop the others
	g.SetLimit(deleteReads)
	for i, id := range ids {
		g.Go(func() error {
			var err error
			if read[i], err = d.known[id].read(ctx, bkt, id); !errors.Is(err, ErrNoDelete) { // removed since
				errs[i] = err
			}
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	var out []*DeleteRequest
	d.known = map[ulid.ULID]knownDelete{}
	for i, k := range read {
		if k.request != nil {
			out, d.known[ids[i]] = append(out, k.request), k
		}
	}
	return out, errors.Join(errs...)
}

// UpdateDelete changes a request by a conditional write. change may be called
// more than once, each time with the request as it is then; if it changes
// nothing, nothing is written. Its error ends the update.
func UpdateDelete(ctx context.Context, bkt Bucket, id ulid.ULID, change func(*DeleteRequest) error) error {
	var last error
	for range deleteUpdateTries {
		r, etag, err := readDelete(ctx, bkt, id, "")
		if err != nil {
			return err
		}
		before, err := encodeJSON(r)
		if err != nil {
			return fmt.Errorf("delete request %s: encode: %w", id, err)
		}
		if err := change(r); err != nil {
			return err
		}
		if r.ID != id {
			return fmt.Errorf("%w: a request keeps its id %s", ErrInvalidDelete, id)
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("delete request %s: %w: %w", id, ErrInvalidDelete, err)
		}
		data, err := encodeJSON(r)
		if err != nil {
			return fmt.Errorf("delete request %s: encode: %w", id, err)
		}
		if bytes.Equal(before, data) {
			return nil // or an earlier try has landed without an answer
		}
		last = putDelete(ctx, bkt, id, data, etag)
		if last == nil {
			return nil
		}
		if !bkt.IsConditionFailedErr(last) {
			break
		}
	}
	return fmt.Errorf("delete request %s: write: %w", id, last)
}

// CancelDelete ends a pending request: its samples show again, as far as they
// have not been removed. One that is cancelled already is no error; one that is
// done is, and wraps ErrInvalidDelete.
func CancelDelete(ctx context.Context, bkt Bucket, id ulid.ULID) (*DeleteRequest, error) {
	if _, err := GetDelete(ctx, bkt, id); err != nil {
		return nil, err
	}
	now, err := BucketTime(ctx, bkt, deleteClock)
	if err != nil {
		return nil, err
	}
	var out DeleteRequest
	err = UpdateDelete(ctx, bkt, id, func(r *DeleteRequest) error {
		switch r.State {
		case DeleteDone:
			return fmt.Errorf("delete request %s: %w: it is done, its samples are gone", id, ErrInvalidDelete)
		case DeletePending:
			r.State, r.Finished = DeleteCancelled, now.UTC()
		}
		out = *r
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// RemoveOldDeletes removes those of the requests that were finished a year before
// now, by the bucket's clock.
func RemoveOldDeletes(ctx context.Context, bkt Bucket, all []*DeleteRequest, now time.Time) error {
	var errs []error
	for _, r := range all {
		if r.State == DeletePending || r.Finished.IsZero() || now.Sub(r.Finished) < deleteKept {
			continue
		}
		if err := bkt.Delete(ctx, deleteName(r.ID)); err != nil && !bkt.IsObjNotFoundErr(err) {
			errs = append(errs, fmt.Errorf("delete request %s: remove: %w", r.ID, err))
		}
	}
	return errors.Join(errs...)
}
