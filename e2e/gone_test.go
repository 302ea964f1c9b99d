package e2e

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
)

// publish writes a manifest of the bucket, as a compactor does that has nothing else to do.
func (r *rig) publish() {
	r.t.Helper()
	var cfg block.FetcherConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	cfg.Owner = "publisher"
	bkt := r.direct()
	defer bkt.Close()
	f, err := block.NewFetcher(cfg, bkt, "", slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(r.t, err)
	for range 2 {
		_, err := f.Fetch(r.t.Context())
		require.NoError(r.t, err)
		require.NoError(r.t, f.Publish(r.t.Context()))
	}
}

// takeAway removes the objects whose names begin so, past the proxy.
func (r *rig) takeAway(prefix string) {
	r.t.Helper()
	for name := range r.objects() {
		if strings.HasPrefix(name, prefix) {
			require.NoError(r.t, r.minio.RemoveObject(r.t.Context(), stack.Bucket, name, minio.RemoveObjectOptions{}))
		}
	}
}

// TestRemovedByHand removes a block that the manifest lists from a bucket that is
// served, and then a segment of another. The first is soon as if it had never been;
// of the second every answer tells, and all others are whole.
//
// RELIABILITY G1
func TestRemovedByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gone, torn := r.upload("x", 5), r.upload("z", 5)
	for i := range 6 {
		r.upload("y", 6+i)
	}
	r.publish()
	manifest := r.object("firnline/manifest")
	flags := []string{"--sync-block-duration=1h", "--block-gone-delay=1h"} // but every 30 seconds by the manifest
	q := r.historian(flags...)
	eventually(t, time.Minute, func() error { return hasCount(count(t, q, 24, false), "x", hourOfSamples) })

	r.takeAway(gone.ULID.String())
	without := func(q *stack.Firnline) func() error {
		return func() error {
			a := count(t, q, 24, false)
			if a.Status != "success" || strings.Contains(string(a.Data), `"x"`) || len(a.Warnings) > 0 {
				return fmt.Errorf("the block is still known: %s %s %v", a.Data, a.Error, a.Warnings)
			}
			return errors.Join(hasCount(a, "y", 6*hourOfSamples), hasCount(a, "z", hourOfSamples))
		}
	}
	eventually(t, time.Minute, without(q))
	eventually(t, time.Minute, without(r.historian(flags...))) // one that begins now
	require.Equal(t, manifest, r.object("firnline/manifest"), "who only reads writes nothing")

	segment := block.Name(torn.ULID, "chunks/000001")
	r.takeAway(segment)
	for range 3 {
		a := count(t, q, 24, false)
		require.Equal(t, "error", a.Status)
		require.Contains(t, a.Error, segment)
		a = count(t, q, 24, true)
		require.NoError(t, hasCount(a, "y", 6*hourOfSamples))
		require.Contains(t, strings.Join(a.Warnings, "\n"), segment)
	}
}
