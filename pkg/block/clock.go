package block

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// BucketTime returns the time by the bucket's clock: that of an object just
// written by owner, a name that is this process' alone. Age in a bucket is
// measured by it, since LastModified comes from the same clock.
func BucketTime(ctx context.Context, bkt Bucket, owner string) (time.Time, error) {
	name := clockPrefix + owner
	if err := bkt.Upload(ctx, name, strings.NewReader("{}\n")); err != nil {
		return time.Time{}, fmt.Errorf("bucket's clock: write %s: %w", name, err)
	}
	attrs, err := bkt.Attributes(ctx, name)
	if err != nil {
		return time.Time{}, fmt.Errorf("bucket's clock: read %s: %w", name, err)
	}
	return attrs.LastModified, nil
}
