package bucket_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/bucket/buckettest"
)

func TestPrefix(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		m := bucket.NewMemory()
		_, err := m.PutIf(t.Context(), "eu/metricsx/other", []byte("x"), "")
		require.NoError(t, err)
		return bucket.WithPrefix(m, "/eu/metrics/")
	})
	m := bucket.NewMemory()
	require.Same(t, m, bucket.WithPrefix(m, "//"))
	_, err := bucket.WithPrefix(m, "a/b").PutIf(t.Context(), "o", []byte("x"), "")
	require.NoError(t, err)
	require.Contains(t, m.Objects(), "a/b/o")
}
