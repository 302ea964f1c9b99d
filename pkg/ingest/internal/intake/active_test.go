package intake

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/tenant"
)

// Active series are metrics of each tenant, of as many as there may be.
func TestActiveSeriesMetrics(t *testing.T) {
	lim := limits.Defaults()
	one, err := limits.ParseSelector(`{__name__="metric_1"}`)
	require.NoError(t, err)
	lim.ActiveSeries = limits.Matchers{"ones": {one}}
	cfg := testConfig()
	cfg.SplitLabel, cfg.MaxTenants = "tenant", 2
	in := newIntake(t, cfg, lim)
	take(t, in, "a", request(many(0, 30)...))
	take(t, in, "b", request(many(0, 7)...))
	in.sweep(testNow)
	text := func(more string) *strings.Reader {
		return strings.NewReader(`
# HELP firnline_ingest_active_series Series of a tenant sent by way of this router within the window, as counted every two minutes.
# TYPE firnline_ingest_active_series gauge
` + more + `
# HELP firnline_ingest_active_series_matching Those of them that match a name of active_series in the limits.
# TYPE firnline_ingest_active_series_matching gauge
firnline_ingest_active_series_matching{name="ones",tenant="a"} 3
firnline_ingest_active_series_matching{name="ones",tenant="b"} 1
`)
	}
	require.NoError(t, testutil.CollectAndCompare(newActiveSeries(in), text(`firnline_ingest_active_series{tenant="a"} 30
firnline_ingest_active_series{tenant="b"} 7`)))

	// Labels name more tenants than are shown one by one.
	take(t, in, "a", request(series("__name__", "up", "tenant", "x"), series("__name__", "up", "tenant", "y"), series("__name__", "down", "tenant", "y")))
	in.sweep(testNow)
	require.NoError(t, testutil.CollectAndCompare(newActiveSeries(in), text(`firnline_ingest_active_series{tenant="__others__"} 3
firnline_ingest_active_series{tenant="a"} 30
firnline_ingest_active_series{tenant="b"} 7`)))
	_, err = tenant.Parse(others)
	require.Error(t, err)
}
