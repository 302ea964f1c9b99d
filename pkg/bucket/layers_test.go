package bucket_test

import (
	"testing"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/bucket/buckettest"
)

// Whatever fails below, the layers keep the contract.
func TestLayersOverFaults(t *testing.T) {
	seed := uint64(0)
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		seed++
		t.Logf("seed %d", seed)
		return bucket.FlakyStack(seed)
	})
}
