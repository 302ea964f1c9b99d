package block

import "context"

// ReadManifest lets tests look at a manifest as it stands in the bucket.
func ReadManifest(ctx context.Context, bkt Bucket) (*Manifest, error) {
	m, _, err := readManifest(ctx, bkt, "")
	return m, err
}
