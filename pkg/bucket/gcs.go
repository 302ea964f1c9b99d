package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cloud.google.com/go/storage"
	"github.com/prometheus/common/model"
	"github.com/thanos-io/objstore/providers/gcs"
	"google.golang.org/api/iterator"

	"github.com/firnline/firnline/pkg/gokit"
)

// gcsBucket is objstore's bucket with the calls it lacks. Its ETags are
// generations in decimal.
type gcsBucket struct {
	*gcs.Bucket
	conditions
}

var _ Bucket = (*gcsBucket)(nil)

// gcsTransferTimeout bounds a whole transfer. objstore takes idle_conn_timeout
// for it, whose 90 s would cut the transfer of any large index; how long a
// request may stand still is the timeout layer's.
const gcsTransferTimeout = 24 * time.Hour

// openGCS makes objstore's bucket.
func openGCS(ctx context.Context, c gcs.Config, log gokit.Logger) (Bucket, error) {
	if c.MaxRetries == 0 {
		c.MaxRetries = 1 // one try: retrying is the retry layer's, which has a budget
	}
	c.HTTPConfig.IdleConnTimeout = model.Duration(gcsTransferTimeout)
	b, err := gcs.NewBucketWithConfig(ctx, log, c, "firnline", nil)
	if err != nil {
		return nil, err
	}
	return &gcsBucket{Bucket: b}, nil
}

// ListSizes implements [Bucket].
func (b *gcsBucket) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	query := &storage.Query{Prefix: prefix}
	if err := query.SetAttrSelection([]string{"Name", "Size", "Updated"}); err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	for it := b.Handle().Objects(ctx, query); ; {
		attrs, err := it.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		} else if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if err := visit(ctx, f, Object{Name: attrs.Name, SizeBytes: attrs.Size, LastModified: attrs.Updated}); err != nil {
			return err
		}
	}
}

// GetIf implements [Bucket].
func (b *gcsBucket) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	object := b.Handle().Object(name)
	if generation, ok := parseGeneration(etag); ok {
		object = object.If(storage.Conditions{GenerationNotMatch: generation})
	}
	r, err := object.NewReader(ctx)
	if status(err) == http.StatusNotModified {
		return nil, etag, nil
	} else if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	content, err := readAll(r, r.Attrs.Size)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	have := strconv.FormatInt(r.Attrs.Generation, 10)
	if have == etag { // a store that ignores the condition
		return nil, etag, nil
	}
	return content, have, nil
}

func parseGeneration(etag string) (int64, bool) {
	generation, err := strconv.ParseInt(etag, 10, 64)
	return generation, err == nil && generation > 0
}

// PutIf implements [Bucket].
func (b *gcsBucket) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	condition := storage.Conditions{DoesNotExist: true}
	if etag != "" {
		generation, ok := parseGeneration(etag)
		if !ok {
			return "", fmt.Errorf("put %s: ETag %q is no generation: %w", name, etag, ErrConditionFailed)
		}
		condition = storage.Conditions{GenerationMatch: generation}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a writer that is not closed
	w := b.Handle().Object(name).If(condition).NewWriter(ctx)
	w.ChunkSize = 0 // one request
	if _, err := bytes.NewReader(body).WriteTo(w); err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	err := w.Close()
	switch code := status(err); {
	case code == http.StatusPreconditionFailed, code == http.StatusNotFound && etag != "" && !errors.Is(err, storage.ErrBucketNotExist):
		return "", fmt.Errorf("put %s: %w: %w", name, ErrConditionFailed, err)
	case err != nil:
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return strconv.FormatInt(w.Attrs().Generation, 10), nil
}

// Copy implements [Bucket].
func (b *gcsBucket) Copy(ctx context.Context, from, to string) error {
	if _, err := b.Handle().Object(to).CopierFrom(b.Handle().Object(from)).Run(ctx); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}

// IsObjNotFoundErr implements [objstore.Bucket].
func (b *gcsBucket) IsObjNotFoundErr(err error) bool {
	return errors.Is(err, storage.ErrObjectNotExist) && !errors.Is(err, ErrConditionFailed)
}

// IsAccessDeniedErr implements [objstore.Bucket]. objstore's knows gRPC's alone.
func (b *gcsBucket) IsAccessDeniedErr(err error) bool { return classify(err) == classDenied }
