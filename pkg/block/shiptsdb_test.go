package block_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
)

// TestShipperBesideTSDB runs a real TSDB that cuts, compacts and takes samples
// out of order, beside a shipper whose bucket fails at random. In the end every
// sample of every block that was ever cut is in the bucket, in the blocks that
// stay when duplicates are left out.
//
// RELIABILITY S4: Prometheus compacts before the upload, delayed by the list or
// not. RELIABILITY S5: out-of-order blocks.
func TestShipperBesideTSDB(t *testing.T) {
	for _, delayed := range []bool{true, false} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("delayed=%t/seed=%d", delayed, seed), func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				r := newRig(t)
				require.NoError(t, r.Prepare())
				db := openTSDB(t, r, delayed)
				want := map[int64]bool{}
				cut := int64(0)
				for hour := range int64(20) {
					appendHour(t, db, want, hour, random)
					r.bkt.fail = failing(random)
					_, _ = r.Sync(context.Background()) // its failures are the point
					require.NoError(t, db.Compact(context.Background()))
					cut = db.Head().MinTime()
					if random.IntN(5) == 0 {
						r.restart()
					}
				}
				require.NoError(t, db.CompactOOOHead(context.Background()))
				r.bkt.fail = nil
				r.sync()
				require.NoError(t, db.Close())
				got := samplesIn(t, r)
				for ts := range want {
					if ts < cut {
						require.Contains(t, got, ts, "sample lost")
					}
				}
				require.Greater(t, len(got), 120)
			})
		}
	}
}

const hourMillis = int64(time.Hour / time.Millisecond)

func openTSDB(t *testing.T, r *rig, delayed bool) *tsdb.DB {
	opts := tsdb.DefaultOptions()
	opts.MinBlockDuration, opts.MaxBlockDuration = hourMillis, 9*hourMillis
	opts.RetentionDuration = 1000 * hourMillis
	opts.OutOfOrderTimeWindow = 5 * hourMillis
	opts.NoLockfile = true
	if delayed {
		opts.BlockCompactionExcludeFunc = func(m *tsdb.BlockMeta) bool { // as Prometheus' delay-compact flag does
			if m.Compaction.Level != 1 {
				return false
			}
			data, err := os.ReadFile(r.StateFile())
			var list struct {
				Uploaded []string `json:"uploaded"`
			}
			if err != nil || json.Unmarshal(data, &list) != nil {
				return false
			}
			return !slices.Contains(list.Uploaded, m.ULID.String())
		}
	}
	opts.BlockReloadInterval = 24 * time.Hour // its loop looks at what DisableCompactions writes, without a lock
	db, err := tsdb.Open(r.dir, slog.New(slog.DiscardHandler), nil, opts, nil)
	require.NoError(t, err)
	db.DisableCompactions()
	return db
}

// appendHour appends a sample every five minutes, and some late ones.
func appendHour(t *testing.T, db *tsdb.DB, want map[int64]bool, hour int64, random *rand.Rand) {
	app := db.Appender(context.Background())
	add := func(ts int64) {
		_, err := app.Append(0, labels.FromStrings("__name__", "up"), ts, float64(ts))
		require.NoError(t, err)
		want[ts] = true
	}
	for i := range int64(12) {
		add(hour*hourMillis + i*300_000)
	}
	if hour > 5 {
		for range random.IntN(4) {
			add((hour-3)*hourMillis + int64(random.IntN(1000))*300 + 1)
		}
	}
	require.NoError(t, app.Commit())
}

// failing makes a bucket fail for a whole pass, at random requests, or not at all.
func failing(random *rand.Rand) func(op, name string) error {
	odds := []int{0, 0, 3, 10}[random.IntN(4)]
	var mu sync.Mutex // requests come from several goroutines
	return func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if odds == 10 || odds > 0 && random.IntN(10) < odds {
			return errFault
		}
		return nil
	}
}

// samplesIn reads the blocks of a bucket as a store gateway would.
func samplesIn(t *testing.T, r *rig) map[int64]bool {
	t.Helper()
	dir := t.TempDir()
	metas := map[ulid.ULID]*block.Meta{}
	for name, data := range r.bkt.Objects() {
		id, rel, ok := block.SplitName(name)
		if !ok {
			continue
		}
		path := filepath.Join(dir, id.String(), filepath.FromSlash(rel))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
		if rel == block.MetaFilename {
			m, err := block.ParseMeta(id, data)
			require.NoError(t, err)
			metas[id] = m
		}
	}
	for _, id := range block.Duplicates(metas) {
		delete(metas, id)
	}
	got := map[int64]bool{}
	for id := range metas {
		readBlock(t, filepath.Join(dir, id.String()), got)
	}
	return got
}

func readBlock(t *testing.T, dir string, got map[int64]bool) {
	t.Helper()
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			require.EqualValues(t, ts, v)
			got[ts] = true
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
}
