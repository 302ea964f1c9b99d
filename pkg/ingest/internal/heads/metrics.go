package heads

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"
)

type metrics struct {
	tenants      prometheus.Gauge
	opening      prometheus.Gauge
	unopened     prometheus.Gauge
	opened       *prometheus.CounterVec
	closed       *prometheus.CounterVec
	openSeconds  prometheus.Histogram
	refused      *prometheus.CounterVec
	unknown      prometheus.Counter
	overtaken    prometheus.Counter
	exemplarsBad prometheus.Counter

	syncs       prometheus.Counter
	syncSeconds prometheus.Histogram
	syncWaiters prometheus.Histogram
	readOnly    *prometheus.GaugeVec
	free        prometheus.Gauge

	damages      *prometheus.CounterVec
	damagedBytes prometheus.Counter
	lostRecords  prometheus.Counter

	flushes  *prometheus.CounterVec
	families prometheus.Counter

	series  prometheus.Counter
	chunks  prometheus.Counter
	bytes   prometheus.Counter
	reads   prometheus.Gauge
	sorted  prometheus.Counter
	results *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "firnline_ingest_" + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_ingest_" + name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "firnline_ingest_" + name, Help: help})
	}
	seconds := func(name, help string, first float64) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_ingest_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, 14)})
	}
	return &metrics{
		tenants:      gauge("tenants", "Tenants whose TSDB is open."),
		opening:      gauge("tenants_opening", "Tenants whose log is being read."),
		unopened:     gauge("tenants_failed", "Tenants whose TSDB could not be opened; it is tried again."),
		opened:       counters("tenants_opened_total", "TSDBs opened, by what from: closing is the snapshot of the last one, log is the log, tsdb is the log where it had to be read by the TSDB itself, which takes longer.", "from"),
		closed:       counters("tenants_closed_total", "TSDBs closed.", "why"),
		openSeconds:  seconds("tenant_open_duration_seconds", "Time to open a TSDB, reading its log.", 0.002),
		refused:      counters("head_samples_refused_total", "Samples that heads did not take.", "reason"),
		unknown:      counter("head_unknown_series_total", "Series sent by number that were not known here; their labels were asked for."),
		overtaken:    counter("head_overtaken_writes_total", "Writes answered 503 because another one was faster with newer samples of the same series."),
		exemplarsBad: counter("head_exemplars_refused_total", "Exemplars not taken: too old, out of order or too long."),
		syncs:        counter("sync_total", "Groups of writes synced to the disk."),
		syncSeconds:  seconds("sync_duration_seconds", "Time to sync a group.", 0.0002),
		syncWaiters: f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_ingest_sync_writes", Help: "Writes that shared a sync.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		readOnly: f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_ingest_tenants_read_only", Help: "Tenants that take no samples: disk-full ends by itself, io-error at the next start."}, []string{"why"}),
		free:     gauge("disk_free_bytes", "Free space of the file system with the local folder."),

		damages:      counters("wal_damaged_total", "Damages of local data that were put aside and worked around, by what was damaged: wal, wbl, checkpoint, chunks, block.", "what"),
		damagedBytes: counter("wal_damaged_bytes_total", "Bytes put aside as damaged."),
		lostRecords:  counter("wal_damaged_records_total", "Readable records of logs that were put aside since they followed a damaged one."),

		flushes:  counters("flushes_total", "Heads cut into blocks whatever their age.", "why"),
		families: counter("metadata_dropped_total", "Metric families whose metadata was not kept (--tsdb.max-metadata)."),

		series:  counter("read_series_total", "Series read from TSDBs."),
		chunks:  counter("read_chunks_total", "Chunks read from TSDBs."),
		bytes:   counter("read_chunk_bytes_total", "Bytes of chunks read from TSDBs."),
		reads:   gauge("reads_in_flight", "Series requests under way."),
		sorted:  counter("sorted_requests_total", "Series requests whose answer of a tenant had to be sorted as a whole."),
		results: counters("series_requests_total", "Series requests that have ended.", "result"),
	}
}

// sums shows the metrics of all TSDBs, added up over tenants: as many series
// whatever the number of tenants. What a closed TSDB has counted stays in.
type sums struct {
	shown map[string]string
	open  func() []*counters

	mu struct {
		sync.Mutex
		retired map[string]float64
	}
}

func newSums(open func() []*counters) *sums {
	s := &sums{shown: summed(), open: open}
	s.mu.retired = map[string]float64{}
	return s
}

// retire takes over what a TSDB that is being closed has counted.
func (s *sums) retire(c *counters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.shown {
		if strings.HasSuffix(name, "_total") {
			s.mu.retired[name] += c.value(name)
		}
	}
}

// shownAs is the name under which a sum is seen.
func shownAs(name string) string {
	if rest, ok := strings.CutPrefix(name, "prometheus_tsdb_"); ok {
		return "firnline_ingest_tsdb_" + rest
	}
	return name
}

func (s *sums) desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(shownAs(name), help, nil, nil)
}

// Describe implements prometheus.Collector.
func (s *sums) Describe(ch chan<- *prometheus.Desc) {
	for name, help := range s.shown {
		ch <- s.desc(name, help)
	}
}

// Collect implements prometheus.Collector.
func (s *sums) Collect(ch chan<- prometheus.Metric) {
	all := s.open()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, help := range s.shown {
		sum, kind := s.mu.retired[name], prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			kind = prometheus.CounterValue
		}
		for _, c := range all {
			sum += c.value(name)
		}
		ch <- prometheus.MustNewConstMetric(s.desc(name, help), kind, sum)
	}
}

// counterValue reads one counter that is not behind a wrapper.
func counterValue(c prometheus.Counter) float64 {
	var d dto.Metric
	if c.Write(&d) != nil {
		return 0
	}
	return d.GetCounter().GetValue()
}
