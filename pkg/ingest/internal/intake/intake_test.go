package intake

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/ha"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// testNow is when all tests take place.
var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// firstOnly takes replica "a" of each pair, and refuses cluster "many".
type firstOnly struct{}

func (firstOnly) Take(p ha.Pair, replica string, _ ha.Rules, _ time.Time) ha.Verdict {
	switch {
	case p.Cluster == "many":
		return ha.TooMany
	case replica == "a":
		return ha.Elected
	}
	return ha.Standby
}

func testConfig() Config {
	return Config{MaxSeries: 1 << 20, MaxTenants: 100, IdleTimeout: model.Duration(2 * time.Hour), ActiveWindow: model.Duration(20 * time.Minute)}
}

func newIntake(t testing.TB, cfg Config, lim limits.Limits) *Intake {
	t.Helper()
	require.NoError(t, lim.Validate())
	in := New(cfg, tenant.Fixed(lim), Parts{Elect: firstOnly{}, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	in.now = func() time.Time { return testNow }
	return in
}

func keyOf(l labels.Labels) batch.Key {
	b := l.Bytes(nil)
	return batch.Key{Hi: xxhash.Sum64(b), Lo: xxhash.Sum64(append(b, 1))}
}

// request makes a batch with a sample at each series.
func request(series ...labels.Labels) *batch.Batch {
	b := &batch.Batch{}
	for i, l := range series {
		at := uint32(i)
		b.Series = append(b.Series, batch.Series{Key: keyOf(l), Floats: batch.Span{From: at, To: at + 1}})
		b.Floats = append(b.Floats, batch.Float{T: testNow.UnixMilli(), V: 1})
	}
	b.Labels = func(i int) (labels.Labels, error) { return series[i], nil }
	return b
}

func many(from, n int) []labels.Labels {
	var all []labels.Labels
	for i := from; i < from+n; i++ {
		all = append(all, labels.FromStrings(model.MetricNameLabel, fmt.Sprintf("metric_%d", i%10), "instance", fmt.Sprint(i)))
	}
	return all
}

func take(t testing.TB, in *Intake, id tenant.ID, b *batch.Batch) ([]Part, *refuse.Tally) {
	t.Helper()
	var tally refuse.Tally
	parts, err := in.Take(context.Background(), id, b, &tally)
	require.NoError(t, err)
	return parts, &tally
}

func TestKnownSeriesKeepTheirNumbers(t *testing.T) {
	in := newIntake(t, testConfig(), limits.Defaults())
	series := many(0, 5000)
	first := request(series...)
	parts, tally := take(t, in, "a", first)
	require.NoError(t, tally.Err())
	require.Len(t, parts, 1)
	require.Equal(t, 5000, parts[0].Samples)
	require.Len(t, parts[0].Series, 5000)
	for i := range first.Series {
		require.Equal(t, uint64(i+1), first.Series[i].ID, "dense, in the request's order")
		require.Equal(t, HashOf("a", series[i]), first.Series[i].Hash)
	}

	// In another order, without the labels being asked for.
	second := request(series[4999], series[0], series[1], series[2500])
	second.Labels = func(int) (labels.Labels, error) { t.Fatal("labels of a known series"); panic(nil) }
	parts2, _ := take(t, in, "a", second)
	require.Equal(t, parts[0].Session, parts2[0].Session)
	for i, want := range []uint64{5000, 1, 2, 2501} {
		require.Equal(t, want, second.Series[i].ID)
	}

	// Another tenant has numbers of its own.
	other := request(series[7])
	parts3, _ := take(t, in, "b", other)
	require.NotEqual(t, parts[0].Session, parts3[0].Session)
	require.Equal(t, uint64(1), other.Series[0].ID)
	require.NotEqual(t, first.Series[7].Hash, other.Series[0].Hash)
}

func sum(s string) uint64 { return xxhash.Sum64String(s) }
