package notes

import (
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
)

// Config bounds a Log.
type Config struct {
	DiskBytes   flagext.Bytes  // of exemplars
	Keep        model.Duration // of exemplars, and of families that nobody mentions any more
	MaxFamilies int
}

// Names of the flags, without a component's prefix.
const (
	flagDisk     = "notes.disk"
	flagKeep     = "notes.keep"
	flagFamilies = "notes.max-families"
)

// RegisterFlags sets the defaults, but for DiskBytes where that is set, and
// registers the flags.
func (c *Config) RegisterFlags(prefix string, fs *flag.FlagSet) {
	if c.DiskBytes == 0 {
		c.DiskBytes = 64 << 20
	}
	c.Keep = model.Duration(48 * time.Hour)
	fs.Var(&c.DiskBytes, prefix+flagDisk, "Disk for exemplars until their block is shipped. The oldest go when it is full.")
	fs.Var(&c.Keep, prefix+flagKeep, "How long exemplars wait for their block to be shipped, and how long what was said about a metric (type, help, unit) is kept with new blocks though nobody says it any more.")
	fs.IntVar(&c.MaxFamilies, prefix+flagFamilies, 50_000, "Types, helps and units kept with blocks. Of more, those that come last are left out.")
}

// MinKeep is the least of Config.Keep: readers look for what was said about
// metrics in one note of each day, which must have all that was said that day.
const MinKeep = 25 * time.Hour

// Validate names each flag that can't be right.
func (c *Config) Validate(prefix string) error {
	var errs []error
	if c.DiskBytes < minDisk || c.DiskBytes > maxDisk {
		errs = append(errs, fmt.Errorf("--%s%s=%s: give 1MiB to 1GiB", prefix, flagDisk, &c.DiskBytes))
	}
	if time.Duration(c.Keep) < MinKeep {
		errs = append(errs, fmt.Errorf("--%s%s=%s: give %s or more", prefix, flagKeep, c.Keep, model.Duration(MinKeep)))
	}
	if c.MaxFamilies < 1 || c.MaxFamilies > mostFamilies {
		errs = append(errs, fmt.Errorf("--%s%s=%d: give 1 to %d", prefix, flagFamilies, c.MaxFamilies, mostFamilies))
	}
	return errors.Join(errs...)
}

const (
	minDisk      = 1 << 20
	maxDisk      = 1 << 30
	mostFamilies = 200_000
)

// Metrics are those of all Logs of a process.
type Metrics struct {
	exemplars prometheus.Counter
	dropped   *prometheus.CounterVec
	failures  prometheus.Counter
	torn      prometheus.Counter
}

// Reasons of Metrics.dropped.
const (
	droppedDisk     = "disk"     // the log was full
	droppedSize     = "size"     // the note was full, or the exemplar too large for one
	droppedFamilies = "families" // --notes.max-families
	droppedWrite    = "write"    // the disk failed
)

// NewMetrics makes the metrics of all Logs of a process.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		exemplars: f.NewCounter(prometheus.CounterOpts{Name: "firnline_notes_exemplars_total", Help: "Exemplars kept until their block is shipped."}),
		dropped:   f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_notes_dropped_total", Help: "Exemplars, and meanings of metrics (reason families), that are not kept with blocks."}, []string{"reason"}),
		failures:  f.NewCounter(prometheus.CounterOpts{Name: "firnline_notes_log_failures_total", Help: "Reads and writes of the local log of exemplars that failed."}),
		torn:      f.NewCounter(prometheus.CounterOpts{Name: "firnline_notes_log_torn_total", Help: "Files of the local log of exemplars that were cut short at a bad record."}),
	}
	for _, reason := range []string{droppedDisk, droppedSize, droppedFamilies, droppedWrite} {
		m.dropped.WithLabelValues(reason)
	}
	return m
}
