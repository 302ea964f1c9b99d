package prove

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	writes, writeFailures             prometheus.Counter
	checks, checkFailures, mismatches *prometheus.CounterVec
	lastCheck                         prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		writes:        f.NewCounter(prometheus.CounterOpts{Name: "firnline_prove_writes_total", Help: "Times at which all series were written and taken."}),
		writeFailures: f.NewCounter(prometheus.CounterOpts{Name: "firnline_prove_write_failures_total", Help: "Writes that failed; each is tried again."}),
		checks:        f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_prove_checks_total", Help: "Windows that were read back."}, []string{"how"}),
		checkFailures: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_prove_check_failures_total", Help: "Windows that could not be read."}, []string{"how"}),
		mismatches:    f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_prove_mismatches_total", Help: "Samples that were missing, wrong or extra."}, []string{"what"}),
		lastCheck:     f.NewGauge(prometheus.GaugeOpts{Name: "firnline_prove_last_check_timestamp_seconds", Help: "When all windows were last read back."}),
	}
	for _, how := range []string{"raw", "steps"} { // so that rates are right from the first on
		m.checks.WithLabelValues(how)
		m.checkFailures.WithLabelValues(how)
	}
	for _, what := range []string{"missing", "wrong", "extra"} {
		m.mismatches.WithLabelValues(what)
	}
	return m
}
