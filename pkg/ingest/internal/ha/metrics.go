package ha

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	elections, tooMany, told, failures prometheus.Counter
}

func newMetrics(t *Tracker, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "firnline_ingest_ha_" + name, Help: help})
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "firnline_ingest_ha_pairs", Help: "Pairs of senders of which one is taken."}, func() float64 {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return float64(len(t.mu.pairs))
	})
	return &metrics{
		elections: counter("elections_total", "Times that another sender of a pair was elected, here or elsewhere."),
		tooMany:   counter("refused_total", "Requests with a pair beyond the tenant's limit of pairs."),
		told:      counter("updates_total", "Times that elections were told to other routers."),
		failures:  counter("update_failures_total", "Times that elections could not be told to others or read."),
	}
}
