package query

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/store"
	"github.com/firnline/firnline/pkg/storeapi"
)

// replicaLabel is the external label of the blocks. No script has it.
const replicaLabel = "__replica__"

// skippedScripts are the scripts of the Prometheus module that blocks in a
// bucket can't be asked, each with its reason. There are none: start timestamps,
// stale markers and custom buckets are in a block as they are in a head.
var skippedScripts = map[string]string{}

// The scripts of the Prometheus module over a store gateway: what a script loads
// is cut into blocks, uploaded, and read back by ranged reads.
func TestPromQLOverBlocks(t *testing.T) {
	for _, tc := range []struct {
		name     string
		replicas []string
		cut      func(*tsdb.Head) []span
		over     func(testing.TB, storeapi.Store) storage.Queryable
	}{
		{"blocks of two hours and more, in process", []string{"a"}, aligned, inProcess},
		{"HA pairs of blocks, through gRPC", []string{"a", "b"}, wholeHead, overGRPC},
	} {
		t.Run(tc.name, func(t *testing.T) {
			engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
			promqltest.RunBuiltinTestsWithStorage(scripts{t}, engine, func(t testing.TB) storage.Storage {
				db := promqltest.NewBuiltinTestStorage(t)
				db.DisableCompactions() // the head keeps everything, so that each cut has all of it
				return &shipped{TestStorage: db, read: func() storage.Queryable {
					return tc.over(t, gateway(t, uploadHead(t, db.Head(), tc.cut(db.Head()), tc.replicas)))
				}}
			})
		})
	}
}

// scripts runs what skippedScripts doesn't name.
type scripts struct{ *testing.T }

func (s scripts) Run(name string, f func(*testing.T)) bool {
	return s.T.Run(name, func(t *testing.T) {
		if why, ok := skippedScripts[filepath.Base(name)]; ok {
			t.Skip(why)
		}
		t.Parallel() // each has a storage of its own
		f(t)
	})
}

// shipped is a storage whose queries read what was shipped of it: all that had
// been appended when the first of them came.
type shipped struct {
	*teststorage.TestStorage
	read func() storage.Queryable // ships and returns what reads it
	now  storage.Queryable        // nil: something was appended since
}

func (s *shipped) AppenderV2(ctx context.Context) storage.AppenderV2 {
	s.now = nil
	return s.TestStorage.AppenderV2(ctx)
}

func (s *shipped) Querier(mint, maxt int64) (storage.Querier, error) {
	if s.now == nil {
		s.now = s.read()
	}
	return s.now.Querier(mint, maxt)
}

// span is the time of a block, [mint, maxt) in ms.
type span struct{ mint, maxt int64 }

// wholeHead makes one block of everything.
func wholeHead(h *tsdb.Head) []span {
	if h.NumSeries() == 0 {
		return nil
	}
	return []span{{h.MinTime(), h.MaxTime() + 1}}
}

// aligned makes blocks of the smallest range that a compactor makes of which at
// most twelve are needed, and else one.
func aligned(h *tsdb.Head) []span {
	for _, hours := range []int64{2, 8, 48, 336} {
		size := hours * time.Hour.Milliseconds()
		start := h.MinTime() - (h.MinTime()%size+size)%size
		if h.NumSeries() == 0 || (h.MaxTime()-start)/size >= 12 {
			continue
		}
		var spans []span
		for t := start; t <= h.MaxTime(); t += size {
			spans = append(spans, span{t, t + size})
		}
		return spans
	}
	return wholeHead(h)
}

// uploadHead cuts a head into blocks, which it uploads once for each replica.
func uploadHead(t testing.TB, h *tsdb.Head, spans []span, replicas []string) block.Bucket {
	t.Helper()
	dir, bkt := t.TempDir(), bucket.NewMemory()
	c, err := tsdb.NewLeveledCompactorWithOptions(t.Context(), nil, nil, []int64{1}, nil, tsdb.LeveledCompactorOptions{})
	require.NoError(t, err)
	for _, s := range spans {
		ids, err := c.Write(dir, tsdb.NewRangeHead(h, s.mint, s.maxt-1), s.mint, s.maxt, nil)
		require.NoError(t, err)
		for _, id := range ids { // none where the span is empty
			for _, replica := range replicas {
				id = uploadAs(t, bkt, dir, id, replica)
			}
		}
	}
	return bkt
}

// uploadAs uploads the block id in dir under a replica's label and a new name,
// which it returns.
func uploadAs(t testing.TB, bkt block.Bucket, dir string, id ulid.ULID, replica string) ulid.ULID {
	t.Helper()
	as := ulid.Make()
	bdir := filepath.Join(dir, as.String())
	require.NoError(t, os.Rename(filepath.Join(dir, id.String()), bdir))
	b, err := os.ReadFile(filepath.Join(bdir, block.MetaFilename))
	require.NoError(t, err)
	m, err := block.ParseMeta(id, b)
	require.NoError(t, err)
	m.ULID, m.Compaction.Sources = as, []ulid.ULID{as}
	m.Thanos.Labels, m.Thanos.Source = map[string]string{replicaLabel: replica}, block.SourceTest
	require.NoError(t, block.WriteMeta(bdir, m))
	blocktest.Upload(t, bkt, dir, *m)
	return as
}

// gateway runs a store gateway over a bucket until the test ends.
func gateway(t testing.TB, bkt block.Bucket) storeapi.Store {
	t.Helper()
	var cfg store.Config
	cfg.RegisterFlags(flag.NewFlagSet("store", flag.PanicOnError))
	cfg.DataDir = t.TempDir()
	s, err := store.New(cfg, bkt, quiet(), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { assert.NoError(t, s.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, func() bool { return s.Ready() == nil })
	return s
}

// inProcess reads a store without a wire or a fan-out in between.
func inProcess(t testing.TB, s storeapi.Store) storage.Queryable {
	t.Helper()
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("query", flag.PanicOnError))
	return querier.New(cfg.Select, func([][]*labels.Matcher) storeapi.Store { return s }, prometheus.NewRegistry()).
		Queryable(querier.Options{Dedup: true, ReplicaLabels: []string{replicaLabel}})
}

// Invariant: the list of what is skipped names scripts that exist.
func TestSkippedScriptsExist(t *testing.T) {
	var names []string
	promqltest.RunBuiltinTestsWithStorage(nameOnly{t, &names}, nil, nil)
	require.Greater(t, len(names), 20)
	for name := range skippedScripts {
		require.True(t, slices.Contains(names, name), name)
	}
}

// nameOnly notes the names of scripts and runs none.
type nameOnly struct {
	testing.TB
	names *[]string
}

func (n nameOnly) Run(name string, _ func(*testing.T)) bool {
	*n.names = append(*n.names, filepath.Base(name))
	return true
}
