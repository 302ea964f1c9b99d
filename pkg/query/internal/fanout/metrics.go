package fanout

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	calls    *prometheus.CounterVec // by call and result
	partial  prometheus.Counter
	series   prometheus.Counter
	inflight prometheus.Gauge
	limited  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		calls: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_query_endpoint_calls_total", Help: "Calls of endpoints by service and result: ok, error, timeout, or canceled.",
		}, []string{"call", "result"}),
		partial: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_partial_answers_total", Help: "Requests that were answered without an endpoint they concerned.",
		}),
		series: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_fanout_series_total", Help: "Series received from endpoints, before merging.",
		}),
		inflight: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_query_endpoint_calls_in_flight", Help: "Calls of endpoints under way.",
		}),
		limited: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_fanout_limited_total", Help: "Requests refused by a limit on series or samples.",
		}),
	}
}

// begin counts a call that begins; call what it returns with the call's error.
func (m *metrics) begin(call string) func(error) {
	m.inflight.Inc()
	return func(err error) {
		m.inflight.Dec()
		m.calls.WithLabelValues(call, resultOf(err)).Inc()
	}
}
