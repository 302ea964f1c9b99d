package compact_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

// TestUnchangedBucket counts what a pass asks of a bucket with 10,000 blocks, and
// delete requests that are finished, of which nothing has changed: a look, with
// planning, marking, closing requests and cleaning. Listings that come round
// seldom are left out: of the bucket, each --block-list-interval, and of claims
// and notes, each hour.
func TestUnchangedBucket(t *testing.T) {
	t.Parallel()
	ctx, w := context.Background(), newWorld(t)
	w.fill(10_000)
	for i := range 3 {
		r, err := block.CreateDelete(ctx, w.bkt, block.DeleteRequest{Selectors: []string{fmt.Sprintf(`{i="%d"}`, i)}, MinTime: 0, MaxTime: 1, By: "test"})
		require.NoError(t, err)
		_, err = block.CancelDelete(ctx, w.bkt, r.ID)
		require.NoError(t, err)
	}
	var asked requests
	c := w.compactor(func(_ *compact.Config, p *compact.Parts) { p.Bucket = bucket.WithFaults(w.bkt, asked.hook) })
	for range 2 { // the first publishes the manifest
		require.NoError(t, c.Once(ctx))
	}
	asked.take()
	for range 3 {
		w.clock.add(4 * time.Minute)
		require.NoError(t, c.Once(ctx))
		require.LessOrEqual(t, len(asked.peek()), 5, "%q", asked.peek())
		require.Subset(t, asked.take(), []string{"get_if firnline/manifest", "list firnline/manifest.d/", "list firnline/deletes/"})
	}
}

// fill puts n blocks into the bucket, each of a cluster of its own, for which
// nothing is to be done.
func (w *world) fill(n int) {
	for i := range n {
		id := ulid.ULID{}
		require.NoError(w, id.SetTime(uint64(epoch.UnixMilli())))
		binary.BigEndian.PutUint64(id[8:], uint64(i+1))
		m := block.Meta{ULID: id, Version: 1, MinTime: epoch.UnixMilli(), MaxTime: epoch.UnixMilli() + hour}
		m.Compaction = block.Compaction{Level: 1, Sources: []ulid.ULID{id}}
		m.Thanos = block.Thanos{
			Version: 1, Source: block.SourceTest, Labels: map[string]string{"cluster": fmt.Sprint(i)},
			Downsample: block.Downsample{Resolution: block.Resolution1h},
		}
		data, err := m.Encode()
		require.NoError(w, err)
		require.NoError(w, w.bkt.Memory.Upload(context.Background(), block.Name(id, block.MetaFilename), bytes.NewReader(data)))
	}
}

// requests are those that a bucket got, as "operation name".
type requests struct {
	mu    sync.Mutex
	asked []string
}

func (r *requests) hook(_ context.Context, point, object string) error {
	if op, before := strings.CutSuffix(point, "/before"); before {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked = append(r.asked, strings.TrimPrefix(op, "bucket/")+" "+object)
	}
	return nil
}

func (r *requests) peek() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// take returns the requests since it was called last.
func (r *requests) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.asked
	r.asked = nil
	return out
}
