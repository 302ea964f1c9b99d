package heads

import (
	"github.com/prometheus/client_golang/prometheus"
)

// mostShown bounds the tenants that metrics show where --tsdb.max-open-tenants is off.
const mostShown = 10_000

// seriesByTenant is what each open tenant has of its limit of series, as metrics.
type seriesByTenant struct {
	hs            *Heads
	series, limit *prometheus.Desc
}

var _ prometheus.Collector = (*seriesByTenant)(nil)

func newSeriesByTenant(hs *Heads) *seriesByTenant {
	return &seriesByTenant{
		hs:     hs,
		series: prometheus.NewDesc("firnline_ingest_tenant_head_series", "Series in the head of a tenant.", []string{"tenant"}, nil),
		limit:  prometheus.NewDesc("firnline_ingest_tenant_head_series_limit", "Series that a tenant may have in its head (head_series_limit), if that is limited.", []string{"tenant"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *seriesByTenant) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.series
	ch <- c.limit
}

// Collect implements prometheus.Collector.
func (c *seriesByTenant) Collect(ch chan<- prometheus.Metric) {
	for i, h := range c.hs.retained() {
		if i < mostShown {
			ch <- prometheus.MustNewConstMetric(c.series, prometheus.GaugeValue, float64(h.census.total.Load()), string(h.id))
			if lim := h.census.limits().MaxSeries; lim > 0 {
				ch <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(lim), string(h.id))
			}
		}
		h.release()
	}
}
