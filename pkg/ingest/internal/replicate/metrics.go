package replicate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of sending to other nodes and of being sent to.
type metrics struct {
	sent      *prometheus.CounterVec
	duration  prometheus.Histogram
	bytes     prometheus.Counter
	resent    prometheus.Counter
	late      prometheus.Counter
	inFlight  prometheus.Gauge
	backedOff prometheus.Gauge
	peers     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		sent: f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_replication_requests_total",
			Help: "Requests to other nodes by result: ok, refused, failed, busy (too many under way), backoff (not sent, since the node failed just before)."}, []string{"result"}),
		duration:  f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_ingest_replication_duration_seconds", Help: "Time another node took to answer.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		bytes:     f.NewCounter(prometheus.CounterOpts{Name: "firnline_ingest_replication_bytes_total", Help: "Bytes of messages sent to other nodes."}),
		resent:    f.NewCounter(prometheus.CounterOpts{Name: "firnline_ingest_replication_redefined_series_total", Help: "Series sent to another node again with their labels, since it did not know their number."}),
		late:      f.NewCounter(prometheus.CounterOpts{Name: "firnline_ingest_replication_late_answers_total", Help: "Answers that came when the request was answered already."}),
		inFlight:  f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_replication_in_flight_bytes", Help: "Bytes held for answers of other nodes."}),
		backedOff: f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_replication_nodes_backed_off", Help: "Nodes that are left alone for now since they failed."}),
		peers:     f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_replication_nodes", Help: "Nodes that connections are kept to."}),
	}
}
