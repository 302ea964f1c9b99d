package compact_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
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

// BenchmarkWorkers lets one process clear the backlog of one group, and two that
// share it, with one processor each, on a bucket in a folder.
//
// two/one is their time as a part of its. What the machine has to do with that
// shows when two processes clear a bucket each: apart/one would be 1 if neither
// slowed the other down. two/apart is free of that, and its gate is 0.6.
func BenchmarkWorkers(b *testing.B) {
	const series, days, pairs = 400, 32, 3
	b.Run(fmt.Sprintf("series=%d/days=%d", series, days), func(b *testing.B) {
		blocks := b.TempDir()
		backlog(b, blocks, series, days)
		var one, two, apart []float64
		for b.Loop() {
			for range pairs {
				one = append(one, clearBacklog(b, blocks, 1, 1))
				two = append(two, clearBacklog(b, blocks, 1, 2))
				apart = append(apart, clearBacklog(b, blocks, 2, 1))
			}
		}
		b.ReportMetric(median(one), "s-one")
		b.ReportMetric(median(two), "s-two")
		b.ReportMetric(median(two)/median(one), "two/one")
		b.ReportMetric(median(apart)/median(one), "apart/one")
		share := median(two) / median(apart)
		b.ReportMetric(share, "two/apart")
		if share > 0.6 {
			b.Errorf("two workers take %.2f of the time of one, and 0.6 is the gate", share)
		}
	})
}

// backlog fills a bucket with one group: blocks of two hours from the start of a
// window of 14 days on, none of them compacted.
func backlog(b *testing.B, dir string, series, days int) {
	bkt, err := bucket.NewFolder(dir)
	require.NoError(b, err)
	window := 14 * 24 * hour
	start := (time.Now().UnixMilli() - int64(days)*24*hour) / window * window
	random, local := rand.New(rand.NewPCG(1, 1)), b.TempDir()
	for from := start; from < start+int64(days)*24*hour; from += 2 * hour {
		id := ulid.MustNew(uint64(from+2*hour), bytes.NewReader(make([]byte, 10)))
		m := blocktest.Write(b, local, scraped(random, series, from, from+2*hour), labels.FromStrings("cluster", "a"),
			blocktest.Options{ID: id, MinTime: from, MaxTime: from + 2*hour, Source: block.SourceSidecar})
		up := block.Uploader{Bucket: bkt, Now: time.Now}
		_, err := up.Upload(context.Background(), filepath.Join(local, id.String()), &m)
		require.NoError(b, err)
		require.NoError(b, os.RemoveAll(filepath.Join(local, id.String())))
	}
	require.NoError(b, bkt.Close())
}

// clearBacklog makes buckets with the same blocks, has so many processes make a
// pass over each, all at once, and returns the seconds until the last has ended.
func clearBacklog(b *testing.B, blocks string, buckets, workers int) float64 {
	dir, err := os.MkdirTemp(b.TempDir(), "")
	require.NoError(b, err)
	var all []*exec.Cmd
	for n := range buckets {
		bkt := filepath.Join(dir, fmt.Sprint("bucket-", n))
		link(b, blocks, bkt)
		for w := range workers {
			c := exec.CommandContext(b.Context(), os.Args[0])
			c.Env = append(os.Environ(), "GOMAXPROCS=1", workerBucket+"="+bkt, workerData+"="+filepath.Join(dir, fmt.Sprint("data-", n, "-", w)))
			c.Stderr = os.Stderr
			all = append(all, c)
		}
	}
	began := time.Now()
	for _, c := range all {
		require.NoError(b, c.Start())
	}
	for _, c := range all {
		require.NoError(b, c.Wait())
	}
	took := time.Since(began).Seconds()
	require.NoError(b, os.RemoveAll(dir))
	return took
}

// link copies a folder by hard links: a bucket never writes into a file that is there.
func link(b *testing.B, from, to string) {
	require.NoError(b, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(path, filepath.Join(to, rel))
	}))
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// Where a process of clearBacklog finds its bucket and its data folder.
const (
	workerBucket = "FIRNLINE_BENCH_BUCKET"
	workerData   = "FIRNLINE_BENCH_DATA"
)

// workerProcess makes one pass in a process of its own.
func workerProcess(dir string) error {
	bkt, err := bucket.NewFolder(dir)
	if err != nil {
		return err
	}
	cfg := defaults()
	cfg.DataDir = os.Getenv(workerData)
	cfg.Blocks.ConsistencyDelay = 0
	c, err := compact.New(cfg, compact.Parts{Bucket: bkt, Log: logger(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	if err := c.Once(context.Background()); err != nil {
		return err
	}
	return c.Close()
}
