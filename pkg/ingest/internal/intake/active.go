package intake

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/tenant"
)

// others is the label of all tenants beyond those that are shown one by one. It is no tenant's name.
const others = "__others__"

// activeSeries is the active series of tenants as metrics: of so many as there may
// be, those with the most series, and of the rest together. A label may name more.
type activeSeries struct {
	in               *Intake
	series, matching *prometheus.Desc
}

var _ prometheus.Collector = (*activeSeries)(nil)

func newActiveSeries(in *Intake) *activeSeries {
	return &activeSeries{
		in: in,
		series: prometheus.NewDesc("firnline_ingest_active_series",
			"Series of a tenant sent by way of this router within the window, as counted every two minutes.", []string{"tenant"}, nil),
		matching: prometheus.NewDesc("firnline_ingest_active_series_matching",
			"Those of them that match a name of active_series in the limits.", []string{"tenant", "name"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *activeSeries) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.series
	ch <- c.matching
}

// Collect implements prometheus.Collector.
func (c *activeSeries) Collect(ch chan<- prometheus.Metric) {
	for id, a := range largest(c.in.active(), c.in.cfg.MaxTenants) {
		ch <- prometheus.MustNewConstMetric(c.series, prometheus.GaugeValue, float64(a.Series), string(id))
		for name, n := range a.Matching {
			ch <- prometheus.MustNewConstMetric(c.matching, prometheus.GaugeValue, float64(n), string(id), name)
		}
	}
}

// largest keeps the most tenants with the most series, and adds up the others.
func largest(all map[tenant.ID]*Activity, most int) map[tenant.ID]*Activity {
	if len(all) <= most {
		return all
	}
	ids := slices.SortedFunc(maps.Keys(all), func(a, b tenant.ID) int {
		return cmp.Or(cmp.Compare(all[b].Series, all[a].Series), strings.Compare(string(a), string(b)))
	})
	rest := &Activity{}
	for _, id := range ids[most:] {
		rest.Series += all[id].Series
		delete(all, id)
	}
	all[others] = rest
	return all
}
