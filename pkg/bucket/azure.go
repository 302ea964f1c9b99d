package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/azure"

	"github.com/firnline/firnline/pkg/gokit"
)

// azureBucket is objstore's bucket with the calls it lacks.
type azureBucket struct {
	*azure.Bucket
	conditions
	container *container.Client
}

var _ Bucket = (*azureBucket)(nil)

// openAzure makes objstore's bucket, and a client of our own beside it.
func openAzure(ctx context.Context, c azure.Config, log gokit.Logger) (Bucket, error) {
	client, err := azureClient(c)
	if err != nil {
		return nil, err
	}
	if c.StorageCreateContainer {
		if _, err := client.Create(ctx, nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
			return nil, fmt.Errorf("create container %s: %w", c.ContainerName, err)
		}
		c.StorageCreateContainer = false // objstore would do it without a context
	}
	b, err := azure.NewBucketWithConfig(log, c, "firnline", nil)
	if err != nil {
		return nil, err
	}
	if c.PipelineConfig.MaxTries == 0 && c.MaxRetries == 0 {
		return azureOneTry(&azureBucket{Bucket: b, container: client}), nil
	}
	return &azureBucket{Bucket: b, container: client}, nil
}

// GetRange implements [objstore.Bucket]. Azure's count of 0 means to the end.
func (b *azureBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if length == 0 {
		return objstore.NopCloserWithSize(bytes.NewReader(nil)), nil
	}
	return b.Bucket.GetRange(ctx, name, off, max(length, 0))
}

// ListSizes implements [Bucket].
func (b *azureBucket) ListSizes(ctx context.Context, prefix string, f func(Object) error) error {
	for pager := b.container.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, item := range page.Segment.BlobItems {
			o := Object{Name: *item.Name, SizeBytes: *item.Properties.ContentLength, LastModified: *item.Properties.LastModified}
			if err := visit(ctx, f, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// GetIf implements [Bucket].
func (b *azureBucket) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	opts := &blob.DownloadStreamOptions{}
	if etag != "" {
		opts.AccessConditions = &blob.AccessConditions{
			ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETag(etag))},
		}
	}
	answer, err := b.container.NewBlobClient(name).DownloadStream(ctx, opts)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	if answer.Body == nil { // 304, which the SDK turns into an empty success
		return nil, etag, nil
	}
	content, err := readAll(answer.Body, *answer.ContentLength)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	return content, string(*answer.ETag), nil
}

// PutIf implements [Bucket].
func (b *azureBucket) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	condition := &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}
	if etag != "" {
		condition = &blob.ModifiedAccessConditions{IfMatch: to.Ptr(azcore.ETag(etag))}
	}
	answer, err := b.container.NewBlockBlobClient(name).Upload(ctx, streaming.NopCloser(bytes.NewReader(body)), &blockblob.UploadOptions{
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: condition},
	})
	lost := bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.BlobAlreadyExists) ||
		(etag != "" && bloberror.HasCode(err, bloberror.BlobNotFound))
	if lost {
		return "", fmt.Errorf("put %s: %w: %w", name, ErrConditionFailed, err)
	} else if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return string(*answer.ETag), nil
}

// Copy implements [Bucket]. Copies between blobs are a job of the service's own,
// whose end has to be waited for: moving the bytes is simpler.
func (b *azureBucket) Copy(_ context.Context, from, to string) error {
	return fmt.Errorf("copy %s to %s: %w", from, to, errors.ErrUnsupported)
}

// IsObjNotFoundErr implements [objstore.Bucket].
func (b *azureBucket) IsObjNotFoundErr(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobNotFound) && !errors.Is(err, ErrConditionFailed)
}

// IsAccessDeniedErr implements [objstore.Bucket]. objstore's misses failed authentication.
func (b *azureBucket) IsAccessDeniedErr(err error) bool { return classify(err) == classDenied }
