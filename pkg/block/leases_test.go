package block_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

func TestOldLeases(t *testing.T) {
	ctx, bkt, clock := context.Background(), newFaulty(), newClock()
	bkt.SetClock(clock.now)
	for _, name := range []string{"job-1", "job-2", "ship-1"} {
		lease := block.NewLease(bkt, block.LeaseConfig{Name: name, Owner: "me", For: "testing", TTL: time.Minute, Now: clock.now})
		require.NoError(t, lease.Acquire(ctx))
		clock.add(time.Hour)
	}
	require.NoError(t, bkt.Upload(ctx, "firnline/leases/job-torn.json", strings.NewReader("{")))

	removed, err := block.RemoveOldLeases(ctx, bkt, "job-", epoch.Add(time.Minute))
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	left := slices.Sorted(maps.Keys(bkt.Objects()))
	require.Equal(t, []string{"firnline/leases/job-2.json", "firnline/leases/job-torn.json", "firnline/leases/ship-1.json"}, left,
		"those of jobs are not old, and ship-1 is none of these")
}
