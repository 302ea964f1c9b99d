package block

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type fetchMetrics struct {
	duration prometheus.Histogram
	failures prometheus.Counter
	faults   prometheus.Counter
	success  prometheus.Gauge
	blocks   *prometheus.GaugeVec
	reads    prometheus.Counter
	gone     prometheus.Counter

	passes          *prometheus.CounterVec
	announcements   prometheus.Counter
	folded          prometheus.Counter
	publishes       prometheus.Counter
	publishFailures prometheus.Counter
	unwritable      prometheus.Gauge
	unusable        prometheus.Gauge
	generation      prometheus.Gauge
	age             prometheus.Gauge
}

func newFetchMetrics(reg prometheus.Registerer) *fetchMetrics {
	f := promauto.With(reg)
	return &fetchMetrics{
		duration: f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_fetcher_duration_seconds", Help: "Time of a pass over the bucket's blocks.", Buckets: prometheus.ExponentialBuckets(0.05, 3, 9)}),
		failures: f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_failures_total", Help: "Passes that could not list the bucket or read every meta and mark."}),
		faults:   f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_listing_faults_total", Help: "Listings and manifests that lacked too many known blocks to be believed."}),
		success:  f.NewGauge(prometheus.GaugeOpts{Name: "firnline_fetcher_last_success_timestamp_seconds", Help: "When a pass last went well."}),
		blocks:   f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_fetcher_blocks", Help: "Blocks by state: used, partial, problem, missing, or left out by time, selector, fresh, marked, duplicate."}, []string{"state"}),
		reads:    f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_reads_total", Help: "Metas and marks read from the bucket."}),
		gone:     f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_blocks_gone_total", Help: "Blocks given up because somebody removed them from the bucket without a mark or an announcement."}),

		passes:          f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_fetcher_passes_total", Help: "Passes over the bucket's blocks by source: manifest, or listing."}, []string{"source"}),
		announcements:   f.NewCounter(prometheus.CounterOpts{Name: "firnline_fetcher_announcements_total", Help: "Announcements of changed blocks that were read from the bucket."}),
		folded:          f.NewCounter(prometheus.CounterOpts{Name: "firnline_block_manifest_folded_total", Help: "Announcements that this process has put into the bucket's manifest."}),
		publishes:       f.NewCounter(prometheus.CounterOpts{Name: "firnline_block_manifest_writes_total", Help: "Manifests that this process has written."}),
		publishFailures: f.NewCounter(prometheus.CounterOpts{Name: "firnline_block_manifest_write_failures_total", Help: "Tries to bring the bucket's manifest up to date that failed; the next pass tries again."}),
		unwritable:      f.NewGauge(prometheus.GaugeOpts{Name: "firnline_block_manifest_unwritable", Help: "1 if this process can't write a manifest: the bucket has no conditional writes or is read-only, or a newer program has written it."}),
		unusable:        f.NewGauge(prometheus.GaugeOpts{Name: "firnline_block_manifest_unusable", Help: "1 if the bucket's manifest is missing, corrupt or of an unknown version, so that the bucket is listed."}),
		generation:      f.NewGauge(prometheus.GaugeOpts{Name: "firnline_block_manifest_generation", Help: "Generation of the bucket's manifest as last read."}),
		age:             f.NewGauge(prometheus.GaugeOpts{Name: "firnline_block_manifest_age_seconds", Help: "Time since the bucket's manifest was last compared with a listing."}),
	}
}

func (m *fetchMetrics) observeManifest(s *fetchState, now time.Time) {
	base := s.manifest.base
	m.unusable.Set(oneIf(base == nil))
	if base == nil {
		m.age.Set(0)
		return
	}
	m.generation.Set(float64(base.Generation))
	m.age.Set(s.manifest.age(now).Seconds())
}
