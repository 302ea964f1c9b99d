package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	httpRequests *prometheus.CounterVec
	httpDuration *prometheus.HistogramVec
	httpInflight prometheus.Gauge

	grpcRequests *prometheus.CounterVec
	grpcDuration *prometheus.HistogramVec
	grpcInflight prometheus.Gauge

	refused *prometheus.CounterVec
	panics  *prometheus.CounterVec

	reloadOK   *prometheus.GaugeVec
	reloadTime *prometheus.GaugeVec
	// The same over all configurations.
	lastReloadOK   prometheus.Gauge
	lastReloadTime prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	buckets := []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
	}
	return &metrics{
		httpRequests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_server_http_requests_total", Help: "HTTP requests answered."}, []string{"handler", "method", "code"}),
		httpDuration: histogram("firnline_server_http_request_duration_seconds",
			"Time from the header of an HTTP request to the end of its answer.", "handler", "method"),
		httpInflight: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_server_http_requests_inflight", Help: "HTTP requests being answered, probes apart."}),
		grpcRequests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_server_grpc_requests_total", Help: "gRPC calls answered."}, []string{"service", "method", "code"}),
		grpcDuration: histogram("firnline_server_grpc_request_duration_seconds",
			"Time of a gRPC call, to the end of its stream.", "service", "method"),
		grpcInflight: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_server_grpc_requests_inflight", Help: "gRPC calls being answered."}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_server_refused_total", Help: "Requests refused because too many were being answered."}, []string{"protocol"}),
		panics: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firnline_server_panics_total", Help: "Requests that ended in a panic of the handler."}, []string{"protocol"}),
		reloadOK: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firnline_server_config_reload_successful", Help: "Whether the newest version of a configuration is in force (1) or an older one (0)."}, []string{"config"}),
		reloadTime: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firnline_server_config_reload_success_timestamp_seconds", Help: "When a configuration was last loaded."}, []string{"config"}),
		lastReloadOK: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_config_last_reload_successful", Help: "Whether the last reload of all configurations succeeded (1) or failed (0)."}),
		lastReloadTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "firnline_config_last_reload_success_timestamp_seconds", Help: "When all configurations were last loaded."}),
	}
}

// reloaded records the outcome of loading one configuration.
func (m *metrics) reloaded(config string, err error, now time.Time) {
	if err != nil {
		m.reloadOK.WithLabelValues(config).Set(0)
		return
	}
	m.reloadOK.WithLabelValues(config).Set(1)
	m.reloadTime.WithLabelValues(config).Set(float64(now.Unix()))
}

// reloadedAll records the outcome of a reload of all configurations.
func (m *metrics) reloadedAll(err error, now time.Time) {
	if err != nil {
		m.lastReloadOK.Set(0)
		return
	}
	m.lastReloadOK.Set(1)
	m.lastReloadTime.Set(float64(now.Unix()))
}
