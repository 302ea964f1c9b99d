package ingest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	refused  *prometheus.CounterVec
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		refused: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_request_refused_samples_total",
			Help: "Samples and histograms of requests of which something was refused that were not written, by the reason that was answered."}, []string{"reason"}),
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_refused_requests_total",
			Help: "Write requests of which something was refused, by the reason that was answered."}, []string{"reason"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{Name: "firnline_ingest_write_duration_seconds",
			Help: "Time from a body that is read to the quorum of its samples, by protocol.", Buckets: prometheus.DefBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100},
			[]string{"protocol"}),
	}
}
