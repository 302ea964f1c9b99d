package intake

import (
	"fmt"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/tenant"
)

func familiesOf(names ...string) []batch.Family {
	var all []batch.Family
	for _, n := range names {
		all = append(all, batch.Family{Name: n, Metadata: metadata.Metadata{Type: model.MetricTypeCounter, Help: "of " + n}})
	}
	return all
}

// RELIABILITY P11: of a request whose series belong to several tenants, each gets the metadata of its own metrics.
func TestFamiliesOfTenants(t *testing.T) {
	cfg := testConfig()
	cfg.SplitLabel = "tenant"
	lim := limits.Defaults()
	in := newIntake(t, cfg, lim)
	for range 2 { // unknown, then known
		b := request(
			series("__name__", "up"), series("__name__", "orders_total", "tenant", "x"), series("__name__", "latency_bucket", "tenant", "y"),
			series("__name__", "latency_count", "tenant", "y"), series("__name__", "up", "tenant", "y"), series("__name__", "bad", "tenant", ".."))
		b.Families = familiesOf("up", "orders", "latency", "bad", "nowhere")
		parts, _ := take(t, in, "a", b)
		got := map[tenant.ID][]string{}
		for _, p := range parts {
			w := p.Batch(b)
			require.Equal(t, b.Series, w.Series)
			for _, f := range w.Families {
				require.Equal(t, "of "+f.Name, f.Help)
				got[p.Tenant] = append(got[p.Tenant], f.Name)
			}
		}
		require.Equal(t, map[tenant.ID][]string{"a": {"up"}, "x": {"orders"}, "y": {"up", "latency"}}, got)
		require.Len(t, b.Families, 5)
	}

	// All of a request may belong to one other tenant, who learns nothing of the sender's.
	b := request(series("__name__", "orders_total", "tenant", "x"))
	b.Families = familiesOf("orders_total", "up")
	parts, _ := take(t, in, "a", b)
	require.Len(t, parts, 1)
	require.Equal(t, familiesOf("orders_total"), parts[0].Batch(b).Families)

	// Where no label names tenants all is the sender's.
	whole := newIntake(t, testConfig(), lim)
	b = request(series("__name__", "up"))
	b.Families = familiesOf("up", "down")
	parts, _ = take(t, whole, "a", b)
	require.Same(t, b, parts[0].Batch(b))
}

// RELIABILITY P11: nor do they meet where metrics are too many to be told apart by number.
func TestFamiliesBeyondMetrics(t *testing.T) {
	cfg := testConfig()
	cfg.SplitLabel = "tenant"
	in := newIntake(t, cfg, limits.Defaults())
	_, _ = take(t, in, "a", request(series("__name__", "up")))
	cat := in.mu.states["a"].cat
	for len(cat.mu.metrics) < maxMetrics {
		cat.mu.metrics[metricKey{name: fmt.Sprint(len(cat.mu.metrics))}] = &metric{}
	}
	b := request(series("__name__", "one", "tenant", "x"), series("__name__", "two", "tenant", "y"), series("__name__", "three", "tenant", "x"))
	b.Families = familiesOf("one", "two", "three")
	parts, _ := take(t, in, "a", b)
	require.Equal(t, familiesOf("one", "three"), parts[0].Families)
	require.Equal(t, familiesOf("two"), parts[1].Families)
}
