package heads

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// counters take the metrics that one TSDB registers: those worth having are
// kept by name, the others dropped. Each opening has its own, since a TSDB
// can't register a second time. Their sums over all tenants are what we show.
type counters struct {
	shown map[string]string // see summed

	mu struct {
		sync.Mutex
		byName map[string]prometheus.Collector
	}
}

var _ prometheus.Registerer = (*counters)(nil)

// Metrics of the TSDB that decide something.
const (
	walFailed      = "prometheus_tsdb_wal_writes_failed_total"
	wblFailed      = "prometheus_tsdb_out_of_order_wbl_writes_failed_total"
	walCorrupt     = "prometheus_tsdb_wal_corruptions_total"
	chunksCorrupt  = "prometheus_tsdb_mmap_chunk_corruptions_total"
	snapshotFailed = "prometheus_tsdb_snapshot_replay_error_total"
	outOfOrder     = "prometheus_tsdb_out_of_order_samples_total"
	outOfBounds    = "prometheus_tsdb_out_of_bound_samples_total"
	tooOld         = "prometheus_tsdb_too_old_samples_total"
	headChunks     = "prometheus_tsdb_head_chunks"
)

func newCounters(shown map[string]string) *counters {
	c := &counters{shown: shown}
	c.mu.byName = map[string]prometheus.Collector{}
	return c
}

// Register keeps a metric if we want it.
func (c *counters) Register(m prometheus.Collector) error {
	name := nameOf(m)
	if _, shown := c.shown[name]; !shown && !decisive(name) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.byName[name] = m
	return nil
}

// MustRegister is Register, which never fails.
func (c *counters) MustRegister(ms ...prometheus.Collector) {
	for _, m := range ms {
		_ = c.Register(m)
	}
}

// Unregister forgets a metric: its TSDB is being closed.
func (c *counters) Unregister(m prometheus.Collector) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := nameOf(m)
	_, known := c.mu.byName[name]
	delete(c.mu.byName, name)
	return known
}

// forget drops what an earlier opening has registered of the TSDB.
func (c *counters) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.mu.byName {
		if strings.HasPrefix(name, "prometheus_tsdb_") {
			delete(c.mu.byName, name)
		}
	}
}

func decisive(name string) bool {
	switch name {
	case walFailed, wblFailed, walCorrupt, chunksCorrupt, snapshotFailed, outOfOrder, outOfBounds, tooOld:
		return true
	}
	return false
}

// nameOf returns a metric's full name, which a Desc shows in its text only.
func nameOf(m prometheus.Collector) string {
	ch := make(chan *prometheus.Desc, 8)
	m.Describe(ch)
	close(ch)
	for d := range ch {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		return name
	}
	return ""
}

// value is a metric's, summed over its labels; 0 if there is none of that name.
func (c *counters) value(name string) float64 {
	c.mu.Lock()
	m := c.mu.byName[name]
	c.mu.Unlock()
	if m == nil {
		return 0
	}
	ch := make(chan prometheus.Metric, 16) // more than any of them has
	m.Collect(ch)
	close(ch)
	sum := 0.0
	for one := range ch {
		var d dto.Metric
		if one.Write(&d) != nil {
			continue
		}
		sum += d.GetCounter().GetValue() + d.GetGauge().GetValue()
	}
	return sum
}

// drops are the counters of samples left out, by kind of sample.
func (c *counters) drops() (out []*prometheus.CounterVec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{outOfOrder, outOfBounds, tooOld} {
		if vec, ok := c.mu.byName[name].(*prometheus.CounterVec); ok {
			out = append(out, vec)
		}
	}
	return out
}

// summed maps the TSDB's metrics that we show, as sums over tenants, to their help.
func summed() map[string]string {
	return map[string]string{
		"prometheus_tsdb_head_series": "Series in heads.",
		headChunks:                    "Chunks in heads.",
		"prometheus_tsdb_head_series_created_total":                "Series created in heads.",
		"prometheus_tsdb_head_series_removed_total":                "Series removed from heads.",
		"prometheus_tsdb_head_samples_appended_total":              "Samples appended.",
		"prometheus_tsdb_head_out_of_order_samples_appended_total": "Samples appended out of order.",
		"prometheus_tsdb_head_active_appenders":                    "Appends under way.",
		outOfOrder:                                                 "Samples refused as out of order.",
		outOfBounds:                                                "Samples refused as older than the head's range.",
		tooOld:                                                     "Samples refused as older than the out-of-order window.",
		"prometheus_tsdb_exemplar_exemplars_appended_total":        "Exemplars appended.",
		"prometheus_tsdb_exemplar_exemplars_in_storage":            "Exemplars in memory.",
		"prometheus_tsdb_compactions_total":                        "Blocks cut from heads.",
		"prometheus_tsdb_compactions_failed_total":                 "Cuts of heads that failed.",
		"prometheus_tsdb_blocks_loaded":                            "Local blocks open.",
		"prometheus_tsdb_storage_blocks_bytes":                     "Bytes of local blocks.",
		"prometheus_tsdb_reloads_failures_total":                   "Looks for local blocks that failed.",
		"prometheus_tsdb_checkpoint_creations_failed_total":        "Checkpoints of logs that could not be written.",
		"prometheus_tsdb_wal_storage_size_bytes":                   "Bytes of logs.",
		walFailed:                                                  "Writes to logs that failed.",
		wblFailed:                                                  "Writes to out-of-order logs that failed.",
		walCorrupt:                                                 "Logs found damaged.",
		chunksCorrupt:                                              "Head chunk files found damaged.",
		"firnline_shipper_uploads_total":                           "Blocks sent to the bucket and verified there.",
		"firnline_shipper_upload_failures_total":                   "Blocks that could not be sent; they are tried again.",
		"firnline_shipper_upload_bytes_total":                      "Bytes of objects sent to the bucket.",
		"firnline_shipper_pending_blocks":                          "Local blocks that are yet to be shipped.",
		"firnline_shipper_held":                                    "1 while another shipper with the same external labels keeps this one from shipping.",
		"firnline_shipper_unleased":                                "1 if the bucket has no conditional writes, so that nothing keeps a second shipper with the same external labels away.",
		"firnline_shipper_quarantined_blocks":                      "Local blocks that are corrupt and can't be shipped.",
		"firnline_shipper_announce_failures_total":                 "Blocks that were shipped and could not be announced for the bucket's manifest; readers find them later.",
	}
}
