package block_test

import (
	"context"
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

	all, err := block.ListLeases(ctx, bkt, "job-")
	require.NoError(t, err)
	require.Len(t, all, 2, "what can't be read is left out")
	require.Equal(t, block.LeaseInfo{Name: "job-1", Owner: "me", For: "testing", TTL: time.Minute, Renewed: epoch}, all[0])

	removed, err := block.RemoveOldLeases(ctx, bkt, "job-", epoch.Add(time.Minute))
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	all, err = block.ListLeases(ctx, bkt, "")
	require.NoError(t, err)
	require.Len(t, all, 2, "job-2 is not old, ship-1 is none of these")
}
