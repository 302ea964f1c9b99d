package api

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	running  *prometheus.GaugeVec
	partial  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_query_api_requests_total", Help: "HTTP requests answered, by route below /api/v1 and status code.",
		}, []string{"route", "code"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firnline_query_api_request_duration_seconds", Help: "Time from a request to the end of its answer, by route below /api/v1.",
			Buckets: []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"route"}),
		running: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firnline_query_api_requests_in_flight", Help: "HTTP requests being answered, by route below /api/v1.",
		}, []string{"route"}),
		partial: f.NewCounter(prometheus.CounterOpts{
			Name: "firnline_query_api_answers_with_warnings_total", Help: "Answers that carried a warning, such as of an endpoint that could not be asked.",
		}),
	}
}

// instrument counts and times the requests of one route.
func (m *metrics) instrument(route string, h http.Handler) http.Handler {
	by := prometheus.Labels{"route": route}
	return promhttp.InstrumentHandlerInFlight(m.running.With(by),
		promhttp.InstrumentHandlerDuration(m.duration.MustCurryWith(by),
			promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(by), h)))
}
