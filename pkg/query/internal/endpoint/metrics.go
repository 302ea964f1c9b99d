package endpoint

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	endpoints      *prometheus.GaugeVec // by state
	checkFailures  prometheus.Counter
	lookupFailures prometheus.Counter
	fileFailures   prometheus.Counter
	urlFailures    prometheus.Counter
	duplicates     prometheus.Gauge
	reloadOK       prometheus.Gauge
	reloadTime     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		endpoints: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firnline_query_endpoints", Help: "Endpoints by the result of their last health check.",
		}, []string{"state"}),
		checkFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_endpoint_check_failures_total", Help: "Health checks of endpoints that failed.",
		}),
		lookupFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_endpoint_dns_failures_total", Help: "Rounds of DNS lookups of endpoints in which one or more failed.",
		}),
		fileFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_endpoint_file_failures_total", Help: "Readings of endpoint files in which one or more failed.",
		}),
		urlFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_endpoint_url_failures_total", Help: "Rounds of asking --endpoint.http-sd-url in which one or more failed.",
		}),
		duplicates: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_endpoint_duplicates", Help: "Addresses that are configured more than once; each is asked once.",
		}),
		reloadOK: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_endpoint_config_last_reload_successful", Help: "1 if the last reading of the endpoint configuration succeeded, else 0.",
		}),
		reloadTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_endpoint_config_last_reload_success_timestamp_seconds", Help: "When the endpoint configuration was last read with success.",
		}),
	}
	return m
}

// connections counts healthy endpoints by the labels of --query.conn-metric.label.
type connections struct {
	set  *Set
	keys []string
	desc *prometheus.Desc
}

func newConnections(set *Set, keys []string) *connections {
	if len(keys) == 0 {
		keys = []string{"external_labels", "store_type"}
	}
	return &connections{set: set, keys: keys, desc: prometheus.NewDesc(
		"firnline_query_endpoint_connections", "Endpoints that passed their last health check.", keys, nil)}
}

// Describe implements prometheus.Collector.
func (c *connections) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *connections) Collect(ch chan<- prometheus.Metric) {
	counts := map[string]float64{}
	const sep = "\xff" // never part of a label value, which is valid UTF-8
	for _, p := range c.set.Peers() {
		if p.Down != nil {
			continue
		}
		values := make([]string, len(c.keys))
		for i, key := range c.keys {
			switch key {
			case "external_labels":
				var sets []string
				for _, l := range p.Info.LabelSets {
					sets = append(sets, l.String())
				}
				values[i] = strings.Join(sets, ",")
			case "store_type":
				values[i] = strings.ToValidUTF8(p.Info.Component, "\uFFFD") // an endpoint may say anything
			case "ip_port":
				values[i] = p.Name
			}
		}
		counts[strings.Join(values, sep)]++
	}
	for joined, n := range counts {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, n, strings.Split(joined, sep)...)
	}
}
