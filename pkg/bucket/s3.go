package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/s3"
)

// s3Bucket is objstore's bucket with the calls it lacks, and with reads that
// need no goroutine and check what was answered against what was asked.
type s3Bucket struct {
	*s3.Bucket
	conditions
	core   minio.Core
	config s3.Config
	sse    encrypt.ServerSide // nil for none
}

var _ Bucket = (*s3Bucket)(nil)

// Get implements [objstore.Bucket].
func (b *s3Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

// GetRange implements [objstore.Bucket]. Length -1 is to the end.
func (b *s3Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if length == 0 {
		return objstore.NopCloserWithSize(bytes.NewReader(nil)), nil // no range header says nothing at all
	}
	opts := b.getOptions()
	if off > 0 || length > 0 {
		span := fmt.Sprintf("bytes=%d-", off)
		if length > 0 {
			span += strconv.FormatInt(off+length-1, 10)
		}
		opts.Set("Range", span)
	}
	body, info, header, err := b.core.GetObject(ctx, b.config.Bucket, name, opts)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	if err := checkRange(header, info.Size, off, length); err != nil {
		_ = body.Close()
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return objstore.ObjectSizerReadCloser{ReadCloser: body, Size: func() (int64, error) { return info.Size, nil }}, nil
}

// checkRange compares a body of size bytes with the range that was asked for:
// it begins where it should, and is as long unless the object ends before.
func checkRange(header http.Header, size, off, length int64) error {
	got := header.Get("Content-Range")
	if off == 0 && length < 0 {
		return nil
	}
	var first, last, total int64
	if _, err := fmt.Sscanf(got, "bytes %d-%d/%d", &first, &last, &total); err != nil {
		return fmt.Errorf("asked for a range and was answered with Content-Range %q: %w", got, errWrongRange)
	}
	want := total - off
	if length > 0 {
		want = min(want, length)
	}
	if first != off {
		return fmt.Errorf("asked for offset %d and was answered with Content-Range %q: %w", off, got, errWrongRange)
	}
	if size < want {
		return fmt.Errorf("%d of %d bytes: %w", size, want, ErrShort)
	}
	return nil
}

var errWrongRange = errors.New("the store did not honour the range")

func (b *s3Bucket) getOptions() minio.GetObjectOptions {
	opts := minio.GetObjectOptions{}
	if b.sse != nil && b.sse.Type() == encrypt.SSEC { // only this one is asked for by readers
		opts.ServerSideEncryption = b.sse
	}
	return opts
}

// ListSizes implements [Bucket].
func (b *s3Bucket) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing if f does
	for o := range b.core.ListObjectsIter(ctx, b.config.Bucket, minio.ListObjectsOptions{
		Prefix: prefix, Recursive: true, UseV1: b.config.ListObjectsVersion == "v1",
	}) {
		if o.Err != nil {
			return fmt.Errorf("list %s: %w", prefix, o.Err)
		}
		if strings.HasSuffix(o.Key, objstore.DirDelim) && o.Size == 0 {
			continue // a marker that consoles make for an empty folder
		}
		if err := f(Object{Name: o.Key, SizeBytes: o.Size, LastModified: o.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// GetIf implements [Bucket].
func (b *s3Bucket) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	opts := b.getOptions()
	if etag != "" {
		opts.Set("If-None-Match", quoted(etag))
	}
	body, info, _, err := b.core.GetObject(ctx, b.config.Bucket, name, opts)
	if status(err) == http.StatusNotModified {
		return nil, etag, nil
	} else if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	content, err := readAll(body, info.Size)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	if etag != "" && info.ETag == etag { // a store that ignores the condition
		return nil, etag, nil
	}
	return content, info.ETag, nil
}

func quoted(etag string) string { return `"` + etag + `"` }

// PutIf implements [Bucket].
func (b *s3Bucket) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	opts := minio.PutObjectOptions{
		ServerSideEncryption: b.sse,
		SendContentMd5:       b.config.SendContentMd5,
		DisableMultipart:     true,
		UserMetadata:         map[string]string{},
	}
	for k, v := range b.config.PutUserMetadata {
		if strings.EqualFold(k, "X-Amz-Storage-Class") {
			opts.StorageClass = v
			continue
		}
		opts.UserMetadata[k] = v
	}
	if etag == "" {
		opts.SetMatchETagExcept("*")
	} else {
		opts.SetMatchETag(etag)
	}
	info, err := b.core.Client.PutObject(ctx, b.config.Bucket, name, bytes.NewReader(body), int64(len(body)), opts)
	if lostCondition(err, etag) {
		return "", fmt.Errorf("put %s: %w: %w", name, ErrConditionFailed, err)
	} else if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return info.ETag, nil
}

// Copy implements [Bucket].
func (b *s3Bucket) Copy(ctx context.Context, from, to string) error {
	src := minio.CopySrcOptions{Bucket: b.config.Bucket, Object: from}
	dst := minio.CopyDestOptions{Bucket: b.config.Bucket, Object: to, Encryption: b.sse}
	if b.sse != nil && b.sse.Type() == encrypt.SSEC {
		src.Encryption = encrypt.SSECopy(b.sse)
	}
	// The metadata comes along, so that what put_user_metadata asked for stays.
	if _, err := b.core.Client.CopyObject(ctx, dst, src); status(err) == http.StatusNotImplemented {
		return fmt.Errorf("copy %s to %s: %w: %w", from, to, errors.ErrUnsupported, err)
	} else if err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}

// lostCondition tells the answers of S3 to a condition that does not hold. 404
// is that of AWS to a replace of what is not there; 409 ConditionalRequestConflict
// is to one of several writers at the same moment.
func lostCondition(err error, etag string) bool {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return false
	}
	return r.StatusCode == http.StatusPreconditionFailed ||
		r.Code == "ConditionalRequestConflict" ||
		(etag != "" && r.Code == minio.NoSuchKey)
}

// IsObjNotFoundErr implements [objstore.Bucket]. Unlike objstore's it sees through wrapping by package fmt.
func (b *s3Bucket) IsObjNotFoundErr(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && r.Code == minio.NoSuchKey && !errors.Is(err, ErrConditionFailed)
}

// IsAccessDeniedErr implements [objstore.Bucket].
func (b *s3Bucket) IsAccessDeniedErr(err error) bool { return classify(err) == classDenied }
