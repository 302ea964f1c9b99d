package plan_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// largeBucket has n blocks as a bucket of many clusters has after years: each
// cluster has 14d blocks of three resolutions,
// and at the end two days of 2h blocks.
func largeBucket(t testing.TB, n int) (plan.Config, plan.Input, time.Time) {
	cfg := defaultConfig()
	var err error
	cfg.Policy, err = policy.Parse("f", []byte("rules:\n- {selectors: ['{ns=\"dev\"}'], 1h: 5y}\n- {tenant: x, raw: 30d}\n"),
		policy.Tiers{Raw: 3 * 365 * 24 * time.Hour})
	require.NoError(t, err)
	in := plan.Input{Metas: map[ulid.ULID]*block.Meta{}, Marks: map[ulid.ULID]block.Marks{}}
	const weeks, recent = 50, 24
	now := weeks*14*day + 2*day
	serial := uint64(0)
	add := func(cluster int, from, to, resolution int64, sources []ulid.ULID, shard *block.Shard) {
		serial++
		id := ulid.ULID{}
		require.NoError(t, id.SetTime(uint64(to)))
		binary.BigEndian.PutUint64(id[8:], serial)
		m := &block.Meta{ULID: id, MinTime: from, MaxTime: to, Version: 1, Compaction: block.Compaction{Level: 4, Sources: sources}}
		if len(sources) == 0 {
			m.Compaction = block.Compaction{Level: 1, Sources: []ulid.ULID{id}}
		}
		m.Thanos = block.Thanos{Labels: map[string]string{"cluster": fmt.Sprintf("c%04d", cluster), "region": "eu"}, Source: block.SourceCompactor, Files: files(1 << 20)}
		m.Thanos.Downsample.Resolution = resolution
		require.NoError(t, m.SetExtension(block.Extension{Shard: shard}))
		in.Metas[id] = m
	}
	for cluster := 0; len(in.Metas) < n; cluster++ {
		for week := range int64(weeks) {
			sources := make([]ulid.ULID, 168)
			for i := range sources {
				require.NoError(t, sources[i].SetTime(uint64(week*14*day+int64(i)*2*hour)))
				binary.BigEndian.PutUint64(sources[i][8:], uint64(cluster))
			}
			for _, r := range resolutions {
				add(cluster, week*14*day, (week+1)*14*day, r, slices.Clone(sources), nil)
			}
		}
		for i := range int64(recent) {
			add(cluster, weeks*14*day+i*2*hour, weeks*14*day+(i+1)*2*hour, 0, nil, nil)
		}
	}
	return cfg, in, time.UnixMilli(now)
}

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("blocks=%d", n), func(b *testing.B) {
			cfg, in, now := largeBucket(b, n)
			b.ReportAllocs()
			for b.Loop() {
				plan.Make(cfg, in, now)
			}
		})
	}
}

// TestMemory: planning for 100,000 blocks, with all that is known of them, stays
// under 500 MiB (the target).
func TestMemory(t *testing.T) {
	if raced {
		t.Skip("the race detector takes memory of its own")
	}
	if testing.Short() {
		t.Skip("takes seconds")
	}
	cfg, in, now := largeBucket(t, 100_000)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(460 << 20)) // as GOMEMLIMIT does in production
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}} // garbage is let grow up to the limit
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(5 * time.Millisecond):
				metrics.Read(live)
				most = max(most, live[0].Value.Uint64())
			}
		}
	}()
	start := time.Now()
	p := plan.Make(cfg, in, now)
	took := time.Since(start)
	close(stop)
	most := <-peak
	t.Logf("%d jobs for %d blocks in %s, heap up to %d MiB, %d MiB of it the metas", len(p.Jobs), len(in.Metas), took, most>>20, before.HeapInuse>>20)
	require.Less(t, most, uint64(500<<20))
	require.NotEmpty(t, p.Jobs)
	runtime.KeepAlive(in)
}
