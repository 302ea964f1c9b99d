package heads

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// What each tenant has of its limit is a metric.
func TestSeriesByTenant(t *testing.T) {
	r := newRig(t)
	r.setLimits("t", Limits{MaxSeries: 5})
	r.put(write("t", 1, one("a", 0, 1), one("b", 0, 1)))
	r.put(write("free", 1, one("a", 0, 1)))
	require.NoError(t, testutil.CollectAndCompare(newSeriesByTenant(r.Heads), strings.NewReader(`
# HELP firnline_ingest_tenant_head_series Series in the head of a tenant.
# TYPE firnline_ingest_tenant_head_series gauge
firnline_ingest_tenant_head_series{tenant="free"} 1
firnline_ingest_tenant_head_series{tenant="t"} 2
# HELP firnline_ingest_tenant_head_series_limit Series that a tenant may have in its head (head_series_limit), if that is limited.
# TYPE firnline_ingest_tenant_head_series_limit gauge
firnline_ingest_tenant_head_series_limit{tenant="t"} 5
`)))
}
