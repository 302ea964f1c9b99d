package compact_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

// BenchmarkLife is PERFORMANCE T13: all bytes that a byte costs that was shipped,
// from the sidecar to the block of 14 days with both coarser tiers, by blocks
// that come one after the other as they do in life. The gate is 4.
func BenchmarkLife(b *testing.B) {
	for _, replicas := range []int{1, 2} {
		b.Run(fmt.Sprintf("series=1000/replicas=%d", replicas), func(b *testing.B) {
			for b.Loop() {
				live(b, 1000, replicas)
			}
		})
	}
}

// BenchmarkLifeOf is the same of blocks that are there: those in the folder that
// FIRNLINE_LIFE names, of one replica or of a pair. For a number that says as much
// as that of BenchmarkLife they should be more than sixteen days.
func BenchmarkLifeOf(b *testing.B) {
	dir := os.Getenv("FIRNLINE_LIFE")
	if dir == "" {
		b.Skip("FIRNLINE_LIFE names no folder of blocks")
	}
	var metas []*block.Meta
	paths, err := filepath.Glob(filepath.Join(dir, "*", block.MetaFilename))
	require.NoError(b, err)
	for _, path := range paths {
		m, err := block.ReadMeta(filepath.Dir(path))
		require.NoError(b, err)
		metas = append(metas, m)
	}
	slices.SortFunc(metas, func(x, y *block.Meta) int { return cmp.Compare(x.MaxTime, y.MaxTime) })
	require.NotEmpty(b, metas)
	for b.Loop() {
		l := newLife(b, 2)
		for i, m := range metas {
			l.now.t = time.UnixMilli(m.MaxTime).Add(time.Hour)
			l.ship(filepath.Join(dir, m.ULID.String()), m)
			if i+1 == len(metas) || metas[i+1].MaxTime > m.MaxTime {
				l.pass()
			}
		}
		l.end()
	}
}

// life is a bucket with one compactor.
type life struct {
	*testing.B
	now     *clock
	bkt     *traffic
	shipped int64 // bytes
	*compact.Compactor
}

func newLife(b *testing.B, replicas int) *life {
	l := &life{B: b, now: &clock{t: epoch}}
	mem := bucket.NewMemory()
	mem.SetClock(l.now.now)
	l.bkt = newTraffic(mem)
	cfg := defaults()
	cfg.DataDir = b.TempDir()
	cfg.CopyMinSize = 1 << 20 // few series stand for a group of many: what is copied must not depend on that
	if replicas > 1 {
		require.NoError(b, cfg.ReplicaLabels.Set("replica"))
	}
	var err error
	l.Compactor, err = compact.New(cfg, compact.Parts{Bucket: l.bkt, Log: logger(), Metrics: prometheus.NewRegistry(), Now: l.now.now, Rand: func() float64 { return 0 }})
	require.NoError(b, err)
	return l
}

func (l *life) ship(dir string, m *block.Meta) {
	up := block.Uploader{Bucket: l.bkt, Now: func() time.Time { return l.now.now().Add(-time.Hour) }}
	sent, err := up.Upload(context.Background(), dir, m)
	require.NoError(l, err)
	l.shipped += sent.SentBytes
}

func (l *life) pass() { require.NoError(l, l.Once(context.Background())) }

func (l *life) end() {
	require.NoError(l, l.Close())
	l.bkt.report(l.B, l.shipped)
}

// live ships sixteen days of blocks and compacts after each.
func live(b *testing.B, series, replicas int) {
	l := newLife(b, replicas)
	dir := b.TempDir()
	random := rand.New(rand.NewPCG(1, 1))
	for h := int64(0); h < 16*24; h += 2 {
		l.now.t = epoch.Add(time.Duration(h+3) * time.Hour)
		for r := range replicas {
			from := epoch.UnixMilli() + h*hour + int64(r)*7_000
			ext := labels.FromStrings("cluster", "a", "replica", fmt.Sprint(r))
			id := ulid.MustNew(uint64(from+2*hour), bytes.NewReader(append(make([]byte, 9), byte(r))))
			m := blocktest.Write(b, dir, scraped(random, series, from, from+2*hour-7_000), ext, blocktest.Options{ID: id, MinTime: from - int64(r)*7_000, MaxTime: from - int64(r)*7_000 + 2*hour, Source: block.SourceSidecar})
			l.ship(filepath.Join(dir, id.String()), &m)
		}
		if h%4 == 0 { // a pass without a window that is complete changes nothing
			l.pass()
		}
	}
	l.end()
}

// scraped are series with ten labels, scraped every 30 s: a quarter of them
// counters with jitter, a quarter gauges, half constant (PERFORMANCE 5.6).
func scraped(random *rand.Rand, n int, from, to int64) []blocktest.Series {
	out := make([]blocktest.Series, n)
	for i := range out {
		lset := labels.FromStrings("__name__", fmt.Sprintf("http_requests_%d_total", i/50), "namespace", fmt.Sprintf("team-%d", i%7), "pod", fmt.Sprintf("api-%d-%x", i%50, i*7919),
			"instance", fmt.Sprintf("10.0.%d.%d:9090", i%13, i%211), "job", "kubernetes-pods", "code", "200", "method", "GET", "container", "api", "node", fmt.Sprintf("node-%d", i%20), "zone", "eu-1a")
		rate := random.Float64() * 50
		value := float64(i) * 1e4
		out[i] = blocktest.Series{Labels: lset, Samples: blocktest.Floats(from+random.Int64N(5), to, 30_000, func(int64) float64 {
			switch i % 4 {
			case 0:
				value += float64(int(rate + random.Float64()*10))
			case 1:
				value = float64(random.IntN(300))
			}
			return value
		})}
	}
	return out
}
