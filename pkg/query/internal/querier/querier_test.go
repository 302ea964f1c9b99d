package querier

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// factory makes a Factory over one store.
func factory(kind dedup.Kind, store storeapi.Store) *Queriers {
	return New(Config{ConcurrentSelects: 2, DedupFunc: string(kind)},
		func([][]*labels.Matcher) storeapi.Store { return store }, prometheus.NewRegistry())
}

func newEngine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1e7, Timeout: time.Minute, LookbackDelta: 5 * time.Minute,
		EnableAtModifier: true, EnableNegativeOffset: true, Parser: parser.NewParser(parser.Options{}),
	})
}

// query evaluates from 30 to 170 minutes by steps of 7, which meets chunk edges at odd places.
func query(t *testing.T, q storage.Queryable, expr string) *promql.Result {
	t.Helper()
	eng := newEngine()
	defer func() { require.NoError(t, eng.Close()) }()
	qry, err := eng.NewRangeQuery(context.Background(), q, nil, expr, time.UnixMilli(30*60e3), time.UnixMilli(170*60e3), 7*time.Minute)
	require.NoError(t, err)
	return qry.Exec(context.Background())
}

// randomSeries makes counters, gauges with gaps, and native histograms over three hours.
func randomSeries(rng *rand.Rand) []storetest.Series {
	var all []storetest.Series
	add := func(name string, i int, sample func(n int, t int64) storetest.Sample) {
		s := storetest.Series{Labels: labels.FromStrings("__name__", name, "i", fmt.Sprint(i))}
		at := rng.Int64N(15_000)
		for n := 0; at < 180*60_000; n++ {
			s.Samples = append(s.Samples, sample(n, at))
			at += 14_500 + rng.Int64N(1_000)
			if rng.IntN(200) == 0 {
				at += rng.Int64N(10 * 60_000)
			}
		}
		all = append(all, s)
	}
	for i := range 4 {
		var total float64
		add("requests_total", i, func(_ int, t int64) storetest.Sample {
			if total += rng.Float64() * 10; rng.IntN(300) == 0 {
				total = 0
			}
			return storetest.Sample{T: t, V: total}
		})
		add("temperature", i, func(_ int, t int64) storetest.Sample {
			if rng.IntN(100) == 0 {
				return storetest.Sample{T: t, V: math.Float64frombits(value.StaleNaN)}
			}
			return storetest.Sample{T: t, V: rng.NormFloat64()}
		})
		add("latency", i, func(n int, t int64) storetest.Sample {
			h := tsdbutil.GenerateTestHistogram(int64(n))
			h.CounterResetHint = histogram.UnknownCounterReset
			return storetest.Sample{T: t, H: h}
		})
		add("size", i, func(n int, t int64) storetest.Sample {
			h := tsdbutil.GenerateTestCustomBucketsHistogram(int64(n))
			h.CounterResetHint = histogram.UnknownCounterReset
			return storetest.Sample{T: t, H: h}
		})
	}
	return all
}

func plainTSDB(t *testing.T, series []storetest.Series) storage.Storage {
	t.Helper()
	db := teststorage.New(t)
	app := db.Appender(context.Background())
	for _, s := range series {
		for _, p := range s.Samples {
			var err error
			if p.H != nil {
				_, err = app.AppendHistogram(0, s.Labels, p.T, p.H.Copy(), nil)
			} else {
				_, err = app.Append(0, s.Labels, p.T, p.V)
			}
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	return db
}

// stored returns the series as chunks, each with extra labels.
func stored(t testing.TB, series []storetest.Series, perChunk int, extra ...string) []storeapi.Series {
	t.Helper()
	var out []storeapi.Series
	for _, s := range series {
		b := labels.NewBuilder(s.Labels)
		for i := 0; i < len(extra); i += 2 {
			b.Set(extra[i], extra[i+1])
		}
		out = append(out, storeapi.Series{Labels: b.Labels(), Chunks: storetest.Chunks(t, s.Samples, false, perChunk)})
	}
	return out
}

func info() storeapi.Info {
	return storeapi.Info{
		Mint: math.MinInt64, Maxt: math.MaxInt64, SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{Store: true},
	}
}

var queries = []string{
	`requests_total`, `rate(requests_total[5m])`, `irate(requests_total[2m])`, `sum(increase(requests_total[11m]))`, `resets(requests_total[1h])`,
	`temperature`, `avg_over_time(temperature[10m])`, `min_over_time(temperature[10m])`, `max(temperature) by (i)`, `count_over_time(temperature[9m])`,
	`sum_over_time(temperature[9m])`, `delta(temperature[10m])`, `temperature offset 20m`, `max_over_time(rate(requests_total[2m])[10m:1m])`,
	`histogram_quantile(0.9, rate(latency[5m]))`, `latency`, `histogram_count(size)`, `sum(rate(size[5m]))`,
	`requests_total @ 3600`, `absent(nothing)`, `requests_total + on(i) temperature`, `{__name__=~"requests.*|temp.*"}`,
}

// The answers over a store are those of a plain TSDB with the same samples.
func TestAnswersOfPlainTSDB(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	series := randomSeries(rand.New(rand.NewPCG(seed, 1)))
	db := plainTSDB(t, series)
	for _, perChunk := range []int{7, 120} {
		data := stored(t, series, perChunk)
		for _, dedupOn := range []bool{false, true} {
			q := factory(dedup.Firnline, storetest.NewFake(data, info())).Queryable(Options{Dedup: dedupOn, ReplicaLabels: []string{"replica"}})
			for _, expr := range queries {
				want, got := query(t, db, expr), query(t, q, expr)
				require.NoError(t, want.Err)
				require.NotEmpty(t, want.String(), expr)
				require.NoError(t, got.Err, expr)
				require.Equal(t, want.String(), got.String(), "%s, dedup %v, %d samples a chunk", expr, dedupOn, perChunk)
			}
		}
	}
}

// RELIABILITY Q5: equal copies count once, whatever chunks they come in and in
// whatever order replicas are named.
func TestEqualReplicas(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	series := randomSeries(rand.New(rand.NewPCG(seed, 2)))
	db := plainTSDB(t, series)
	for _, order := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}} {
		data := slices.Concat(stored(t, series, 120, "replica", order[0]), stored(t, series, 50, "replica", order[1]), stored(t, series, 120, "replica", order[2]))
		for _, kind := range []dedup.Kind{dedup.Firnline, dedup.Chain} {
			q := factory(kind, storetest.NewFake(data, info())).Queryable(Options{Dedup: true, ReplicaLabels: []string{"replica"}})
			for _, expr := range queries {
				want, got := query(t, db, expr), query(t, q, expr)
				require.NoError(t, got.Err, expr)
				require.Equal(t, want.String(), got.String(), "%s by %s, %v", expr, kind, order)
			}
		}
	}
}

// RELIABILITY Q5: a gap of one replica is filled by the other, and without dedup both show.
func TestPairWithGap(t *testing.T) {
	replica := func(from, gapFrom, gapTo int64) []storetest.Series {
		s := storetest.Series{Labels: labels.FromStrings("__name__", "requests_total")}
		for at := from; at < 180*60_000; at += 15_000 {
			if at < gapFrom || at > gapTo {
				s.Samples = append(s.Samples, storetest.Sample{T: at, V: float64(at) / 1000})
			}
		}
		return []storetest.Series{s}
	}
	a, b := replica(1_000, 60*60_000, 90*60_000), replica(8_000, 120*60_000, 150*60_000)
	store := storetest.NewFake(slices.Concat(stored(t, a, 120, "replica", "a"), stored(t, b, 120, "replica", "b")), info())
	q := factory(dedup.Firnline, store).Queryable(Options{Dedup: true, ReplicaLabels: []string{"replica"}})
	res := query(t, q, `rate(requests_total[2m])`)
	require.NoError(t, res.Err)
	matrix, err := res.Matrix()
	require.NoError(t, err)
	require.Len(t, matrix, 1)
	require.Len(t, matrix[0].Floats, 21, "a value at each step")
	for _, p := range matrix[0].Floats {
		require.InDelta(t, 1, p.F, 0.2, "rate at %d", p.T)
	}
	all := query(t, factory(dedup.Firnline, store).Queryable(Options{ReplicaLabels: []string{"replica"}}), `requests_total`)
	require.NoError(t, all.Err)
	matrix, err = all.Matrix()
	require.NoError(t, err)
	require.Len(t, matrix, 2)
}

func TestSelection(t *testing.T) {
	store := storetest.NewFake(nil, info())
	q, err := factory(dedup.Firnline, store).Queryable(Options{
		Dedup: true, ReplicaLabels: []string{"replica"}, PartialResponse: true, MaxResolution: time.Hour,
	}).Querier(1, 2)
	require.NoError(t, err)
	hints := &storage.SelectHints{Start: 10, End: 20, Func: "rate", Range: 11 * 60_000, Step: 5, By: true, Grouping: []string{"job"}, Limit: 3}
	set := q.Select(context.Background(), true, hints, labels.MustNewMatcher(labels.MatchEqual, "__name__", "x"))
	require.False(t, set.Next())
	require.NoError(t, set.Err())
	require.NoError(t, q.Close())
	sel := store.Selections()[0]
	require.Equal(t, int64(5*60_000), sel.MaxResolution, "half the range, and then the next resolution there is")
	require.Equal(t, []storeapi.Aggregate{storeapi.AggregateCounter}, sel.Aggregates)
	require.Equal(t, []string{"replica"}, sel.WithoutReplicaLabels)
	require.Equal(t, storeapi.Hints{Func: "rate", StepMillis: 5, RangeMillis: 11 * 60_000, By: true, Grouping: []string{"job"}}, sel.Hints)
	require.Equal(t, []int64{10, 20, 3}, []int64{sel.Mint, sel.Maxt, int64(sel.Limit)})
	require.True(t, sel.PartialResponse)
	require.False(t, sel.SkipChunks)
}

func TestMaxResolution(t *testing.T) {
	const minute = int64(60_000)
	for _, c := range []struct {
		wanted time.Duration
		f      string
		rng    int64
		want   int64
	}{
		{0, "rate", 5 * minute, 0},
		{time.Hour, "", 0, 60 * minute},
		{59 * time.Minute, "", 0, 5 * minute},
		{4 * time.Minute, "", 0, 0},
		{time.Hour, "rate", 5 * minute, 0},
		{time.Hour, "increase", 10 * minute, 5 * minute},
		{time.Hour, "increase", 120 * minute, 60 * minute},
		{time.Hour, "max_over_time", 5 * minute, 5 * minute},
		{time.Hour, "count_over_time", 4 * minute, 0},
		{time.Hour, "sum_over_time", 60 * minute, 60 * minute},
	} {
		require.Equal(t, c.want, maxResolution(c.wanted, c.f, c.rng), "%+v", c)
	}
}

func TestReadingFor(t *testing.T) {
	for f, want := range map[string]reading{
		"": readAverage, "sum": readAverage, "avg": readAverage, "avg_over_time": readAverage, "last_over_time": readAverage, "deriv": readAverage,
		"sum_over_time": readSum, "count": readCount, "count_over_time": readCount, "min": readMin, "min_over_time": readMin, "minute": readAverage,
		"max": readMax, "max_over_time": readMax, "rate": readCounter, "irate": readCounter, "increase": readCounter, "resets": readCounter,
		"count_values": readAverage,
	} {
		require.Equal(t, want, readingFor(f, true), f)
	}
	for f, want := range map[string]reading{
		"sum_over_time": readAverage, "count_over_time": readAverage, "min_over_time": readMin, "max": readMax, "count": readCount, "rate": readCounter,
	} {
		require.Equal(t, want, readingFor(f, false), "%s of a subquery", f)
	}
}

// Warnings of stores become warnings of the answer; errors end it with their kind.
func TestWarningsAndErrors(t *testing.T) {
	store := storetest.NewFake(nil, info())
	store.Behave(storetest.Behaviour{Report: storeapi.Report{Warnings: []string{"endpoint a: down"}}})
	q := factory(dedup.Firnline, store).Queryable(Options{})
	res := query(t, q, `up`)
	require.NoError(t, res.Err)
	require.Equal(t, []string{"endpoint a: down"}, warningsOf(res))
	limit := fmt.Errorf("%w: too many (--flag)", storeapi.ErrLimit)
	store.Behave(storetest.Behaviour{StreamErr: limit})
	require.ErrorIs(t, query(t, q, `up`).Err, storeapi.ErrLimit)
	store.Behave(storetest.Behaviour{Err: limit})
	require.ErrorIs(t, query(t, q, `up`).Err, storeapi.ErrLimit)
}

func warningsOf(res *promql.Result) (out []string) {
	for _, w := range res.Warnings.AsErrors() {
		out = append(out, w.Error())
	}
	return out
}

// RELIABILITY Q7: Close ends what is under way and waits for it.
func TestCloseEndsFetches(t *testing.T) {
	store := storetest.NewFake(nil, info())
	store.Behave(storetest.Behaviour{Delay: time.Hour})
	q, err := factory(dedup.Firnline, store).Queryable(Options{}).Querier(0, 1)
	require.NoError(t, err)
	var sets []storage.SeriesSet
	for range 5 { // more than may run at once
		sets = append(sets, q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "a", "b")))
	}
	require.NoError(t, q.Close())
	for _, set := range sets {
		require.False(t, set.Next())
		require.ErrorIs(t, set.Err(), context.Canceled)
	}
	require.Zero(t, store.Open())
}

func TestLabels(t *testing.T) {
	data := []storeapi.Series{
		{Labels: labels.FromStrings("__name__", "up", "job", "x", "replica", "a")},
		{Labels: labels.FromStrings("__name__", "up", "job", "y", "replica", "b")},
	}
	q, err := factory(dedup.Firnline, storetest.NewFake(data, info())).Queryable(Options{Dedup: true, ReplicaLabels: []string{"replica"}}).Querier(0, 1)
	require.NoError(t, err)
	names, _, err := q.LabelNames(context.Background(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "job"}, names)
	values, _, err := q.LabelValues(context.Background(), "job", &storage.LabelHints{Limit: 1})
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, values)
	require.NoError(t, q.Close())
}

// A damaged chunk is an error that says where, not a panic and not a gap.
func TestCorruptChunk(t *testing.T) {
	for _, raw := range []storeapi.Data{{Encoding: 99, Bytes: []byte{0, 1, 2}}, {Encoding: chunkenc.EncXOR, Bytes: []byte{1}}, {Encoding: chunkenc.EncXOR, Bytes: []byte{0, 9, 1}}} {
		s := newSeries(storeapi.Series{Chunks: []storeapi.Chunk{{MinTime: 0, MaxTime: 10, Raw: raw}}}, &shape{bounds: bounds{0, 100}})
		it := s.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
		}
		require.Error(t, it.Err())
		if raw.Encoding == 99 {
			require.True(t, errors.Is(it.Err(), storeapi.ErrCorrupt))
			require.ErrorContains(t, it.Err(), "chunk from 0 to 10 ms")
		}
	}
}
