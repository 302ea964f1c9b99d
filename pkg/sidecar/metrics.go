package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	up         prometheus.Gauge
	lastUp     prometheus.Gauge
	labelSets  prometheus.Counter
	mismatches prometheus.Gauge
	shipping   prometheus.Gauge

	noteFailures prometheus.Counter

	reads    prometheus.Gauge
	waiting  prometheus.Gauge
	requests *prometheus.CounterVec
	series   prometheus.Counter
	chunks   prometheus.Counter
	bytes    prometheus.Counter
	sorted   prometheus.Counter
	disorder prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "firnline_sidecar_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "firnline_sidecar_" + name, Help: help})
	}
	return &metrics{
		up:         gauge("prometheus_up", "Whether Prometheus answered when last asked for its configuration, and has external labels."),
		lastUp:     gauge("prometheus_last_seen_timestamp_seconds", "When Prometheus last answered."),
		labelSets:  counter("external_label_changes_total", "Changes of Prometheus' external labels seen since the start."),
		mismatches: gauge("prometheus_flag_mismatches", "Flags of Prometheus that don't go with the sidecar's; the log names them."),
		shipping:   gauge("shipping", "Whether blocks can be shipped: the TSDB folder is in order and the state file was written."),

		noteFailures: counter("note_failures_total", "Tries to take over exemplars and metadata from Prometheus that failed; some may be missing in the bucket."),

		reads:   gauge("reads_in_flight", "Remote reads and series requests at Prometheus."),
		waiting: gauge("reads_waiting", "Requests waiting for their turn (--prometheus.max-concurrent-reads)."),
		requests: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_sidecar_series_requests_total",
			Help: "Series requests that have ended."}, []string{"result"}),
		series:   counter("read_series_total", "Series read from Prometheus."),
		chunks:   counter("read_chunks_total", "Chunks read from Prometheus."),
		bytes:    counter("read_chunk_bytes_total", "Bytes of chunks read from Prometheus."),
		sorted:   counter("sorted_requests_total", "Series requests whose answer had to be sorted as a whole."),
		disorder: counter("disorder_total", "Answers given up because series were not in order."),
	}
}
