package intake

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

func ids(b *batch.Batch) []uint64 {
	var all []uint64
	for _, s := range b.Series {
		all = append(all, s.ID)
	}
	return all
}

// tallied shows what was refused.
func tallied(t *refuse.Tally) map[refuse.Reason]int {
	all := map[refuse.Reason]int{}
	t.Each(func(r refuse.Reason, n int, example *refuse.Error) { all[r] = n })
	return all
}

func series(pairs ...string) labels.Labels { return labels.FromStrings(pairs...) }

// TestRefusedOnce: a refusal is remembered; labels are asked for again only for an example each request.
func TestRefusedOnce(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	all := []labels.Labels{series("__name__", "up"), series("job", "1"), series("job", "2"), series("job", "3")}
	for round := range 3 {
		b, asked := request(all...), 0
		raw := b.Labels
		b.Labels = func(i int) (labels.Labels, error) { asked++; return raw(i) }
		parts, tally := take(t, in, "a", b)
		require.Equal(t, []uint64{1, 0, 0, 0}, ids(b))
		require.Equal(t, []Part{{Tenant: "a", Session: parts[0].Session, Series: []uint32{0}, Samples: 1}}, parts)
		require.Equal(t, map[refuse.Reason]int{refuse.BadLabels: 3}, tallied(tally))
		require.ErrorContains(t, tally.Err(), `series {job="1"} has no name of a metric`)
		require.Equal(t, map[bool]int{true: 5, false: 1}[round == 0], asked)
	}
}

// TestLabelsAreMadeOnce: who owns new series gets the labels by which they were decided about.
func TestLabelsAreMadeOnce(t *testing.T) {
	lim := limits.Defaults()
	in := newIntake(t, testConfig(), lim)
	all := append(many(0, mostLearned+10), series("job", "nameless"))
	for round := range 2 {
		b, asked := request(all...), 0
		raw := b.Labels
		b.Labels = func(i int) (labels.Labels, error) { asked++; return raw(i) }
		take(t, in, "a", b)
		after := asked
		for i := range mostLearned + 10 {
			l, err := b.Labels(i)
			require.NoError(t, err)
			require.True(t, labels.Equal(all[i], l), i)
		}
		require.Equal(t, map[bool]int{true: 10, false: mostLearned + 10}[round == 0], asked-after, "what is known is asked for again, and what was too much")
		_, err := b.Labels(mostLearned + 10)
		require.Equal(t, refuse.BadLabels, refuse.ReasonOf(err))
	}
}

// TestDecoderRefusesLabels: what the decoder says of labels is a series' refusal.
func TestDecoderRefusesLabels(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	b := request(many(0, 2)...)
	raw := b.Labels
	b.Labels = func(i int) (labels.Labels, error) {
		if i == 1 {
			return labels.EmptyLabels(), fmt.Errorf("decode: %w", refuse.Errorf(refuse.BadRequest, "", "symbol 9 of 3"))
		}
		return raw(i)
	}
	_, tally := take(t, in, "a", b)
	require.Equal(t, map[refuse.Reason]int{refuse.BadRequest: 1}, tallied(tally))
	require.Equal(t, []uint64{1, 0}, ids(b))

	b = request(many(5, 1)...)
	b.Labels = func(int) (labels.Labels, error) { return labels.EmptyLabels(), batch.ErrNoLabels }
	_, err := in.Take(context.Background(), "a", b, &refuse.Tally{})
	require.ErrorIs(t, err, batch.ErrNoLabels)
}

func TestTenantsByLabel(t *testing.T) {
	cfg := testConfig()
	cfg.SplitLabel = "tenant"
	in := newIntake(t, cfg, limits.Defaults())
	all := []labels.Labels{
		series("__name__", "up", "tenant", "x", "i", "1"), series("__name__", "up", "i", "2"), series("__name__", "up", "tenant", "y"),
		series("__name__", "up", "tenant", "x", "i", "3"), series("__name__", "up", "tenant", ".."), series("__name__", "up", "tenant", "a"),
	}
	for range 2 { // unknown, then known
		b := request(all...)
		parts, tally := take(t, in, "a", b)
		require.Equal(t, map[refuse.Reason]int{refuse.BadTenant: 1}, tallied(tally))
		require.Len(t, parts, 3)
		got := map[tenant.ID][]uint32{}
		sessions := map[batch.Session]bool{}
		for _, p := range parts {
			got[p.Tenant] = p.Series
			sessions[p.Session] = true
			require.Equal(t, len(p.Series), p.Samples)
		}
		require.Equal(t, map[tenant.ID][]uint32{"x": {0, 3}, "a": {1, 5}, "y": {2}}, got)
		require.Len(t, sessions, 3)
		require.Equal(t, []uint64{1, 2, 1, 2, 0, 6}, ids(b), "dense at each other tenant")
		l, err := b.Labels(3)
		require.NoError(t, err)
		require.Equal(t, `{__name__="up", i="3"}`, l.String(), "labels are final")
		require.Equal(t, HashOf("x", l), b.Series[3].Hash)
		_, err = b.Labels(4)
		require.Equal(t, refuse.BadTenant, refuse.ReasonOf(err))
	}
}

func TestPairs(t *testing.T) {
	lim := limits.Defaults()
	lim.HA.Enabled = true
	in := newIntake(t, testConfig(), lim)
	sender := func(replica, cluster string) *batch.Batch {
		return request(series("__name__", "up", "cluster", cluster, "__replica__", replica, "i", "1"), series("__name__", "up", "cluster", cluster, "__replica__", replica, "i", "2"))
	}
	for range 2 {
		a := sender("a", "eu")
		parts, tally := take(t, in, "t", a)
		require.NoError(t, tally.Err())
		require.Equal(t, []uint32{0, 1}, parts[0].Series)
		l, err := a.Labels(0)
		require.NoError(t, err)
		require.Equal(t, `{__name__="up", cluster="eu", i="1"}`, l.String())
		require.Equal(t, HashOf("t", l), a.Series[0].Hash)

		b := sender("b", "eu")
		parts, tally = take(t, in, "t", b)
		require.NoError(t, tally.Err(), "left out on purpose is not refused")
		require.Empty(t, parts)
		require.Equal(t, []uint64{0, 0}, ids(b))

		_, tally = take(t, in, "t", sender("a", "many"))
		require.Equal(t, map[refuse.Reason]int{refuse.TooManyClusters: 2}, tallied(tally))
		require.ErrorContains(t, tally.Err(), `(ha.max_clusters of tenant t), so none is elected for cluster "many"`)
	}
	require.EqualValues(t, 4, testutil.ToFloat64(in.metrics.standby))
}

// TestTooFarAhead: such samples are taken out one by one (RELIABILITY I8).
func TestTooFarAhead(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	ok, last, late := testNow.UnixMilli(), testNow.Add(10*time.Minute).UnixMilli(), testNow.Add(10*time.Minute+time.Millisecond).UnixMilli()
	b := request(many(0, 2)...)
	b.Floats = []batch.Float{{T: late, V: 1}, {T: ok, V: 2}, {T: late, V: 3}, {T: last, V: 4}, {T: 1 << 62}}
	b.Histograms = []batch.Histogram{{T: late}, {T: ok}}
	b.Exemplars = []exemplar.Exemplar{{Ts: ok}, {Ts: late}}
	b.Series[0].Floats, b.Series[1].Floats = batch.Span{From: 0, To: 4}, batch.Span{From: 4, To: 5}
	b.Series[1].Histograms, b.Series[1].Exemplars = batch.Span{From: 0, To: 2}, batch.Span{From: 0, To: 2}
	parts, tally := take(t, in, "a", b)
	require.Equal(t, map[refuse.Reason]int{refuse.SampleTooFarInTime: 4}, tallied(tally))
	require.ErrorContains(t, tally.Err(), `series {__name__="metric_0", instance="0"} has a sample at 2026-01-02T03:14:05.001Z, 10m0s ahead of our clock, limit 10m (max_future of tenant a)`)
	require.Equal(t, []batch.Float{{T: ok, V: 2}, {T: last, V: 4}}, b.Floats[b.Series[0].Floats.From:b.Series[0].Floats.To])
	require.Zero(t, b.Series[1].Floats.Len())
	require.Equal(t, []batch.Histogram{{T: ok}}, b.Histograms[b.Series[1].Histograms.From:b.Series[1].Histograms.To])
	require.Equal(t, 1, b.Series[1].Exemplars.Len())
	require.EqualValues(t, 1, testutil.ToFloat64(in.metrics.exemplars))
	require.Equal(t, 3, parts[0].Samples)
}

func TestRequestLimits(t *testing.T) {
	lim := limits.Defaults()
	lim.Request.SeriesLimit, lim.Request.SamplesLimit = 3, 5
	in := newIntake(t, testConfig(), lim)
	_, err := in.Take(context.Background(), "a", request(many(0, 4)...), &refuse.Tally{})
	require.EqualError(t, err, "the request has 4 series, limit 3 (request.series_limit of tenant a), the first is {__name__=\"metric_0\", instance=\"0\"}; send smaller ones [too-many-series-inside]")
	b := request(many(0, 3)...)
	b.Floats = append(b.Floats, make([]batch.Float, 3)...)
	_, err = in.Take(context.Background(), "a", b, &refuse.Tally{})
	require.EqualError(t, err, "the request has 6 samples, limit 5 (request.samples_limit of tenant a), the first of series {__name__=\"metric_0\", instance=\"0\"}; send smaller ones [too-many-series-inside]")
	_, err = in.Take(context.Background(), "a", request(many(0, 3)...), &refuse.Tally{})
	require.NoError(t, err)
}

func TestRate(t *testing.T) {
	lim := limits.Defaults()
	lim.SamplesPerSecond, lim.SamplesBurst = 10, 25
	in := newIntake(t, testConfig(), lim)
	now := testNow
	in.now = func() time.Time { return now }
	send := func(id tenant.ID, n int) int {
		b := request(many(0, n)...)
		parts, tally := take(t, in, id, b)
		if len(parts) == 0 {
			require.Equal(t, map[refuse.Reason]int{refuse.RateLimited: n}, tallied(tally))
			require.ErrorContains(t, tally.Err(), "tenant "+string(id)+" sends more than 10 samples a second, burst 25 (samples_per_second, samples_burst of tenant "+string(id)+")")
			require.Zero(t, b.Series[0].ID)
			return 0
		}
		return parts[0].Samples
	}
	require.Equal(t, 20, send("a", 20))
	require.Equal(t, 0, send("a", 20))
	require.Equal(t, 20, send("b", 20), "tenants have their own")
	now = now.Add(2 * time.Second)
	require.Equal(t, 20, send("a", 20))
	now = now.Add(3 * time.Second)
	require.Equal(t, 100, send("a", 100), "larger than the burst, after a pause")
	require.Equal(t, 0, send("a", 1))
	in.rates.forget(now)
	require.Len(t, in.rates.mu.buckets, 1, "the full one is forgotten")
}

// TestFullCatalog: known series go on, new ones are refused until old ones leave (RELIABILITY I7).
func TestFullCatalog(t *testing.T) {
	cfg := testConfig()
	cfg.MaxSeries = 1000
	in := newIntake(t, cfg, limits.Defaults())
	now := testNow
	in.now = func() time.Time { return now }
	take(t, in, "a", request(many(0, 1000)...))
	b := request(many(990, 20)...)
	parts, tally := take(t, in, "a", b)
	require.Equal(t, 10, parts[0].Samples)
	require.Len(t, parts[0].Series, 10)
	require.Equal(t, map[refuse.Reason]int{refuse.SeriesLimit: 10}, tallied(tally))
	require.ErrorContains(t, tally.Err(), `series {__name__="metric_0", instance="1000"} is new, and the catalog is full with 1000 series of all tenants (--catalog.max-series)`)
	require.EqualValues(t, 1000, in.live.Load())

	// What is not active makes room early.
	now = now.Add(30 * time.Minute)
	take(t, in, "a", request(many(0, 100)...))
	in.sweep(now)
	require.EqualValues(t, 100, in.live.Load())
	_, tally = take(t, in, "a", request(many(990, 20)...))
	require.NoError(t, tally.Err())
}

// TestCrowdedCatalog: while memory is short no series are learned, and known ones go on (RELIABILITY I7).
func TestCrowdedCatalog(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	var why fmt.Stringer
	in.crowded = func() fmt.Stringer { return why }
	take(t, in, "a", request(many(0, 10)...))
	why = bytes.NewBufferString("memory is short")
	parts, tally := take(t, in, "a", request(many(5, 10)...))
	require.Equal(t, 5, parts[0].Samples)
	require.Equal(t, map[refuse.Reason]int{refuse.SeriesLimit: 5}, tallied(tally))
	require.ErrorContains(t, tally.Err(), `series {__name__="metric_0", instance="10"} of metric "metric_0" is new here: memory is short; series that are known here go on`)
	require.EqualValues(t, 10, in.live.Load())

	// What is not active makes room early.
	later := testNow.Add(30 * time.Minute)
	in.now = func() time.Time { return later }
	take(t, in, "a", request(many(0, 4)...))
	in.sweep(later)
	require.EqualValues(t, 4, in.live.Load())
	why = nil
	_, tally = take(t, in, "a", request(many(5, 10)...))
	require.NoError(t, tally.Err())
}

func TestShareOfATenant(t *testing.T) {
	lim := limits.Defaults()
	lim.HeadSeriesLimit = 10
	in := newIntake(t, testConfig(), lim)
	_, tally := take(t, in, "a", request(many(0, 10_500)...))
	require.Positive(t, tallied(tally)[refuse.SeriesLimit])
	require.ErrorContains(t, tally.Err(), "tenant a has sent far more than 10 series (head_series_limit of tenant a)")
	_, tally = take(t, in, "b", request(many(0, 10)...))
	require.NoError(t, tally.Err())
}

func TestTenantsAreBounded(t *testing.T) {
	cfg := testConfig()
	cfg.MaxTenants = 1
	in := newIntake(t, cfg, limits.Defaults())
	take(t, in, "a", request(many(0, 1)...))
	_, err := in.Take(context.Background(), "b", request(many(0, 1)...), &refuse.Tally{})
	require.EqualError(t, err, "tenant b is new, and there are 1 already (--max-tenants); raise it [series-limit]")
}

// TestNewLimits: what decides about series makes a tenant's catalog begin anew, and nobody else's.
func TestNewLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("write: {}")
	lim, err := tenant.NewLimits(tenant.LimitsConfig{File: path, Interval: model.Duration(time.Hour)}, limits.Form(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	in := New(testConfig(), lim, Parts{Elect: firstOnly{}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	in.now = func() time.Time { return testNow }
	send := func(id tenant.ID) (batch.Session, labels.Labels, *refuse.Tally) {
		b := request(series("__name__", "up", "a", "1"))
		parts, tally := take(t, in, id, b)
		if len(parts) == 0 {
			return batch.Session{}, labels.EmptyLabels(), tally
		}
		l, err := b.Labels(0)
		require.NoError(t, err)
		return parts[0].Session, l, tally
	}
	a1, _, _ := send("a")
	b1, _, _ := send("b")

	write("write: {tenants: {a: {samples_per_second: 1, samples_burst: 1}}}")
	require.NoError(t, lim.Reload(t.Context()))
	a2, _, tally := send("a")
	require.NoError(t, tally.Err())
	require.Equal(t, a1, a2, "a rate decides nothing about series")
	_, _, tally = send("a")
	require.Equal(t, map[refuse.Reason]int{refuse.RateLimited: 1}, tallied(tally), "but it holds at once")

	write("write: {tenants: {a: {relabel_configs: [{action: labeldrop, regex: a}]}}}")
	require.NoError(t, lim.Reload(t.Context()))
	a3, l, _ := send("a")
	require.NotEqual(t, a1, a3)
	require.Equal(t, `{__name__="up"}`, l.String())
	b2, l, _ := send("b")
	require.Equal(t, b1, b2)
	require.Equal(t, `{__name__="up", a="1"}`, l.String())

	write("write: {tenants: {a: {drop: ['up']}}}")
	require.NoError(t, lim.Reload(t.Context()))
	session, _, tally := send("a")
	require.NoError(t, tally.Err())
	require.Zero(t, session)
	in.sweep(testNow)
	require.EqualValues(t, 2, in.live.Load())
}

// TestKnownSeriesAllocateNothing: a request costs its Part and its Labels, whatever its size.
func TestKnownSeriesAllocateNothing(t *testing.T) {
	for _, n := range []int{10, 1000} {
		in := newIntake(t, testConfig(), limits.Defaults())
		b := request(many(0, n)...)
		take(t, in, "a", b)
		raw := b.Labels
		var tally refuse.Tally
		allocs := testing.AllocsPerRun(100, func() {
			b.Labels = raw
			if _, err := in.Take(context.Background(), "a", b, &tally); err != nil {
				t.Fatal(err)
			}
		})
		require.LessOrEqual(t, allocs, 10.0) // three; more under the race detector, which empties pools
	}
}

func TestActivity(t *testing.T) {
	lim := limits.Defaults()
	one, err := limits.ParseSelector(`{__name__="metric_1"}`)
	require.NoError(t, err)
	lim.ActiveSeries = limits.Matchers{"ones": {one}}
	cfg := testConfig()
	in := newIntake(t, cfg, lim)
	now := testNow
	in.now = func() time.Time { return now }
	all := many(0, 1000)
	for i := range 100 { // half of the samples are of one metric
		all = append(all, series("__name__", "often", "i", fmt.Sprint(i)))
	}
	in.sweep(now)
	take(t, in, "a", request(all...))
	in.sweep(now)
	for range 640 {
		now = now.Add(time.Second)
		take(t, in, "a", request(all[900:]...))
	}
	in.sweep(now)
	got := in.Activity(3)["a"]
	require.EqualValues(t, 1100, got.Series)
	require.Equal(t, map[string]int64{"ones": 100}, got.Matching)
	require.Len(t, got.Rates, 3)
	require.Equal(t, "often", got.Rates[0].Metric)
	require.EqualValues(t, 100, got.Rates[0].Series)
	require.InDelta(t, 100, got.Rates[0].SamplesPerSecond, 10)
	require.True(t, strings.HasPrefix(got.Rates[1].Metric, "metric_"))
	require.InDelta(t, 10, got.Rates[1].SamplesPerSecond, 5)
	require.Len(t, got.Labels, 3)
	for _, l := range got.Labels { // of 200 series each has another, and one sample a second
		require.InDelta(t, 1, l.SamplesPerSecond, 1, "%+v", l)
	}

	for i := range all[900:] { // the values of one label make up a third and two of the samples
		all[900+i] = series("__name__", "often", "i", fmt.Sprint(i), "team", []string{"x", "y", "y"}[i%3])
	}
	take(t, in, "a", request(all[900:]...))
	in.sweep(now)
	for range 640 {
		now = now.Add(time.Second)
		take(t, in, "a", request(all[900:]...))
	}
	in.sweep(now)
	got = in.Activity(2)["a"]
	require.Equal(t, "team", got.Labels[0].Label)
	require.Equal(t, "y", got.Labels[0].Value)
	require.InDelta(t, 133, got.Labels[0].SamplesPerSecond, 10)
	require.Equal(t, "x", got.Labels[1].Value)
	require.InDelta(t, 67, got.Labels[1].SamplesPerSecond, 10)

	now = now.Add(25 * time.Minute)
	take(t, in, "a", request(all[1000:]...))
	in.sweep(now)
	require.EqualValues(t, 100, in.Activity(1)["a"].Series, "the others are remembered, but not active")
	require.EqualValues(t, 1300, in.live.Load())
}
