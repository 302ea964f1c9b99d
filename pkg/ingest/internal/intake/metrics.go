package intake

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	samples, dropped, standby, exemplars, learned, forgotten prometheus.Counter
	sweep, bytes                                             prometheus.Gauge
}

func newMetrics(in *Intake, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "firnline_ingest_" + name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "firnline_ingest_" + name, Help: help}, value)
	}
	gauge("catalog_series", "Series that the router remembers.", func() float64 { return float64(in.live.Load()) })
	gauge("catalog_max_series", "Series that the router remembers at most.", func() float64 { return float64(in.cfg.MaxSeries) })
	return &metrics{
		samples:   counter("intake_samples_total", "Samples taken and handed on to be stored."),
		dropped:   counter("intake_dropped_samples_total", "Samples dropped by relabelling and drop rules."),
		standby:   counter("intake_standby_samples_total", "Samples left out since they came from the sender of a pair that is not taken."),
		exemplars: counter("intake_dropped_exemplars_total", "Exemplars left out since they were too far ahead of our clock."),
		learned:   counter("catalog_learned_series_total", "Series whose labels were looked at."),
		forgotten: counter("catalog_forgotten_series_total", "Series forgotten since nobody sent them, or since limits changed."),
		bytes: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_catalog_bytes",
			Help: "Memory of what the router remembers of series, at the last look for idle ones."}),
		sweep: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_catalog_sweep_duration_seconds",
			Help: "Time of the last look for idle series."}),
	}
}
