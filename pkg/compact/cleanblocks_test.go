package compact_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

// clean fills a bucket with n blocks, each of a group of its own, and asks for
// series to be deleted that none of them has.
func clean(t *testing.T, n int) (*world, ulid.ULID) {
	w := newWorld(t)
	first := w.ship(0, 2, 1)
	objects := w.bkt.Objects()
	for i := range n - 1 {
		m := first
		binary.BigEndian.PutUint64(m.ULID[8:], uint64(i+1)<<32)
		m.Compaction.Sources = []ulid.ULID{m.ULID}
		m.Thanos.Labels = maps.Clone(first.Thanos.Labels)
		m.Thanos.Labels["n"] = fmt.Sprint(i)
		data, err := m.Encode()
		require.NoError(t, err)
		for name, body := range objects {
			id, rel, ok := block.SplitName(name)
			if !ok || id != first.ULID {
				continue
			}
			if rel == block.MetaFilename {
				body = data
			}
			require.NoError(t, w.bkt.Memory.Upload(t.Context(), block.Name(m.ULID, rel), bytes.NewReader(body)))
		}
	}
	w.clock.add(24 * time.Hour)
	r, err := block.CreateDelete(t.Context(), w.bkt, block.DeleteRequest{Selectors: []string{`nothing{i="x"}`}, MinTime: 0, MaxTime: w.clock.now().UnixMilli(), By: "test"})
	require.NoError(t, err)
	return w, r.ID
}

// deletesTraffic is what went to delete requests and came from them.
type deletesTraffic struct {
	block.Bucket
	mu             sync.Mutex
	writes         int
	sent, received int64 // bytes
	refuse         bool  // to write one
}

var errRefused = errors.New("it is refused")

func (d *deletesTraffic) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	body, newETag, err := d.Bucket.GetIf(ctx, name, etag)
	if strings.HasPrefix(name, "firnline/deletes/") {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.received += int64(len(body))
	}
	return body, newETag, err
}

func (d *deletesTraffic) PutIf(ctx context.Context, name string, body []byte, etag string) (string, error) {
	if strings.HasPrefix(name, "firnline/deletes/") {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.refuse {
			return "", errRefused
		}
		d.writes++
		d.sent += int64(len(body))
	}
	return d.Bucket.PutIf(ctx, name, body, etag)
}

func (w *world) noted(request ulid.ULID) []ulid.ULID {
	r, err := block.GetDelete(w.Context(), w.bkt, request)
	require.NoError(w, err)
	return r.Clean
}

// TestCleanBlocks: blocks that hold nothing of a delete request are looked into
// once, and noted in it together. What that takes grows with the blocks, not with
// their square.
func TestCleanBlocks(t *testing.T) {
	const n = 80
	w, request := clean(t, n)
	bkt, reg := &deletesTraffic{Bucket: w.bkt}, prometheus.NewRegistry()
	c := w.compactor(func(cfg *compact.Config, p *compact.Parts) {
		p.Bucket, p.Metrics = bkt, reg
		cfg.DisableDownsampling, cfg.Concurrency = true, 2
	})
	require.NoError(t, c.Once(t.Context()))
	require.Len(t, w.noted(request), n)
	require.EqualValues(t, n, value(t, reg, "jobs_total"))
	require.Zero(t, value(t, reg, "job_failures_total"))
	whole := int64(40 * n) // a ULID with its quotes and all
	require.Less(t, bkt.writes, 10)
	require.Less(t, bkt.sent, 5*whole)
	require.Less(t, bkt.received, 5*whole)

	sent := bkt.sent
	require.NoError(t, c.Once(t.Context()))
	require.EqualValues(t, n, value(t, reg, "jobs_total"))
	require.Equal(t, sent, bkt.sent)
}

// TestCleanBlocksKilled: who dies over it has noted all but what it found in the
// last minute. Another goes on with the rest when the claims have lapsed.
func TestCleanBlocksKilled(t *testing.T) {
	const n, killed, each = 40, 30, 7 * time.Second
	w, request := clean(t, n)
	p := &process{at: "compact/after-claim", nth: killed + 1}
	cfg := w.config()
	cfg.DisableDownsampling, cfg.Concurrency = true, 1
	c, err := compact.New(cfg, compact.Parts{
		Bucket: bucket.WithFaults(w.bkt, p.hook), Log: logger(), Metrics: prometheus.NewRegistry(), Now: w.clock.now, Rand: func() float64 { return 0 },
		Fault: func(ctx context.Context, point, object string) error {
			if point == "compact/after-claim" {
				w.clock.add(each)
			}
			return p.hook(ctx, point, object)
		},
	})
	require.NoError(t, err)
	require.Error(t, c.Once(t.Context()))
	require.NoError(t, c.Close())
	noted := len(w.noted(request))
	require.LessOrEqual(t, noted, killed)
	require.Greater(t, noted, killed-int(time.Minute/each)-2)

	next := func() float64 {
		reg := prometheus.NewRegistry()
		c := w.compactor(func(cfg *compact.Config, p *compact.Parts) { p.Metrics, cfg.DisableDownsampling = reg, true })
		require.NoError(t, c.Once(t.Context()))
		require.Zero(t, value(t, reg, "job_failures_total"))
		return value(t, reg, "jobs_total")
	}
	require.EqualValues(t, n-killed-1, next(), "the others are claimed")
	w.clock.add(time.Hour)
	require.EqualValues(t, killed+1-noted, next())
	require.Len(t, w.noted(request), n)
}

// TestCleanBlocksNotWritten: a request that can't be written holds up no job. It
// is known here what is clean, it shows that it isn't noted, and it is tried again.
func TestCleanBlocksNotWritten(t *testing.T) {
	const n = 10
	w, request := clean(t, n)
	bkt, reg := &deletesTraffic{Bucket: w.bkt, refuse: true}, prometheus.NewRegistry()
	c := w.compactor(func(cfg *compact.Config, p *compact.Parts) {
		p.Bucket, p.Metrics, cfg.DisableDownsampling = bkt, reg, true
	})
	for range 2 {
		require.ErrorIs(t, c.Once(t.Context()), errRefused)
		require.EqualValues(t, n, value(t, reg, "jobs_total"))
		require.Zero(t, value(t, reg, "job_failures_total"))
		require.Empty(t, w.noted(request))
	}
	bkt.refuse = false
	require.NoError(t, c.Once(t.Context()))
	require.Len(t, w.noted(request), n)
	require.EqualValues(t, n, value(t, reg, "jobs_total"))
}

// TestCleanBlocksRun: a process that goes on notes what it has found when it has
// nothing else to do, and when it is told to stop.
func TestCleanBlocksRun(t *testing.T) {
	const n, found = 10, 6
	w, request := clean(t, n)
	ctx, stop := context.WithCancel(t.Context())
	var claims atomic.Int64
	c := w.compactor(func(cfg *compact.Config, p *compact.Parts) {
		cfg.DisableDownsampling, cfg.Concurrency = true, 1
		p.Fault = func(ctx context.Context, point, _ string) error {
			if point == "compact/after-claim" && claims.Add(1) == found+1 {
				stop()
			}
			return ctx.Err()
		}
	})
	require.NoError(t, c.Run(ctx))
	require.Len(t, w.noted(request), found)

	ctx, stop = context.WithCancel(t.Context())
	c = w.compactor(func(cfg *compact.Config, _ *compact.Parts) { cfg.DisableDownsampling = true })
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	require.Eventually(t, func() bool { return len(w.noted(request)) == n }, 5*time.Minute, 10*time.Millisecond)
	stop()
	require.NoError(t, <-ended)
}
