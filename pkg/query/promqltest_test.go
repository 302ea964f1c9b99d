package query

import (
	"bytes"
	"context"
	"flag"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/query/internal/fanout"
	"github.com/firnline/firnline/pkg/query/internal/querier"
	"github.com/firnline/firnline/pkg/storeapi"
)

// The scripts of the Prometheus module over a TSDB behind gRPC, a fan-out and
// deduplication. None is left out.
func TestPromQLThroughGRPC(t *testing.T) {
	e := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	promqltest.RunBuiltinTestsWithStorage(t, e, func(t testing.TB) storage.Storage {
		db := promqltest.NewBuiltinTestStorage(t)
		return &remote{TestStorage: db, over: overGRPC(t, &tsdbStore{db: db})}
	})
}

// remote is a storage that is written to directly and read through the querier.
type remote struct {
	*teststorage.TestStorage
	over storage.Queryable
}

func (r *remote) Querier(mint, maxt int64) (storage.Querier, error) {
	return r.over.Querier(mint, maxt)
}

// overGRPC returns what a querier with one endpoint selects from, deduplicating.
func overGRPC(t testing.TB, store storeapi.Store) storage.Queryable {
	t.Helper()
	at, _ := listen(t, storeapi.Services{Store: store})
	var cfg Config
	fs := flag.NewFlagSet("test", flag.PanicOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse([]string{"--endpoint=" + at, "--endpoint.info-timeout=1m"}))
	reg := prometheus.NewRegistry()
	set, err := endpoint.New(cfg.Endpoints, nil, quiet(), reg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, set.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, func() bool { return set.Ready() == nil })
	fan := fanout.New(cfg.Fanout, set, labels.EmptyLabels(), parser.NewParser(parser.Options{}), reg)
	return querier.New(cfg.Select, func([][]*labels.Matcher) storeapi.Store { return fan }, reg).
		Queryable(querier.Options{Dedup: true, ReplicaLabels: []string{"__replica__"}})
}

// tsdbStore is a Store of what a TSDB holds.
type tsdbStore struct {
	storeapi.Store // the rest, not called
	db             *teststorage.TestStorage
}

func (s *tsdbStore) Info(context.Context) (storeapi.Info, error) {
	return storeapi.Info{
		Component: "store", Mint: -1 << 62, Maxt: storeapi.MaxTime, SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{Store: true},
	}, nil
}

func (s *tsdbStore) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	q, err := s.db.ChunkQuerier(sel.Mint, sel.Maxt)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	// As a store does: whole chunks. Cut ones would lose what their first samples tell of counter resets.
	set := q.Select(ctx, true, &storage.SelectHints{Start: sel.Mint, End: sel.Maxt, DisableTrimming: true}, sel.Matchers...)
	var series []storeapi.Series
	for set.Next() {
		at := storeapi.Series{Labels: set.At().Labels().Copy()}
		it := set.At().Iterator(nil)
		for it.Next() {
			m := it.At()
			data := storeapi.DataOf(m.Chunk)
			data.Bytes = bytes.Clone(data.Bytes)
			at.Chunks = append(at.Chunks, storeapi.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Raw: data})
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		series = append(series, at)
	}
	return storeapi.SliceSet(slices.Clip(series), storeapi.Report{}), set.Err()
}
