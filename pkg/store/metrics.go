package store

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	blocksLoaded  prometheus.Gauge
	blocksBroken  prometheus.Gauge
	loads         prometheus.Counter
	loadFailures  prometheus.Counter
	drops         prometheus.Counter
	syncs         prometheus.Counter
	syncFailures  prometheus.Counter
	syncSeconds   prometheus.Histogram
	gateWaiting   prometheus.Gauge
	gateInFlight  prometheus.Gauge
	gateSeconds   prometheus.Histogram
	blocksQueried prometheus.Histogram
	resultSeries  prometheus.Histogram
	blockFailures prometheus.Counter
	refused       prometheus.Counter
	touched       *prometheus.CounterVec
	fetched       *prometheus.CounterVec
	fetchedBytes  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "firnline_store_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "firnline_store_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_store_" + name, Help: help, Buckets: buckets})
	}
	byType := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_store_" + name, Help: help}, []string{"data_type"})
	}
	seconds := prometheus.ExponentialBuckets(0.001, 4, 9)
	counts := prometheus.ExponentialBuckets(1, 4, 10)
	return &metrics{
		blocksLoaded:  gauge("blocks_loaded", "Blocks that queries are answered from."),
		blocksBroken:  gauge("blocks_quarantined", "Blocks set aside because their index could not be prepared or an object of theirs is not in the bucket; queries that need them fail or warn."),
		loads:         counter("block_loads_total", "Blocks added."),
		loadFailures:  counter("block_load_failures_total", "Blocks whose index could not be prepared, counted at each try."),
		drops:         counter("block_drops_total", "Blocks dropped since they are gone from the bucket or others cover them."),
		syncs:         counter("syncs_total", "Looks into the bucket for new and removed blocks."),
		syncFailures:  counter("sync_failures_total", "Looks into the bucket that failed."),
		syncSeconds:   histogram("sync_duration_seconds", "Time of a look into the bucket, preparing new blocks included.", prometheus.ExponentialBuckets(0.05, 4, 8)),
		gateWaiting:   gauge("series_gate_waiting", "Requests that wait for their turn."),
		gateInFlight:  gauge("series_gate_in_flight", "Requests that have had their turn and are being served."),
		gateSeconds:   histogram("series_gate_duration_seconds", "How long requests waited for their turn.", seconds),
		blocksQueried: histogram("series_blocks_queried", "Blocks read for a Series request.", counts),
		resultSeries:  histogram("series_result_series", "Series returned by a Series request.", prometheus.ExponentialBuckets(1, 10, 7)),
		blockFailures: counter("series_block_failures_total", "Blocks that could not be read for a request; it failed or returned a warning."),
		refused:       counter("requests_refused_total", "Requests refused because of a limit."),
		touched:       byType("series_data_touched_total", "Items needed for Series requests, wherever they came from."),
		fetched:       byType("series_data_fetched_total", "Items fetched from the bucket for Series requests."),
		fetchedBytes:  byType("series_data_fetched_bytes_total", "Bytes fetched from the bucket for Series requests."),
	}
}
