package heads

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// Limits are a tenant's. They may change while it is open.
type Limits struct {
	MaxSeries          int             `yaml:"max_series"`            // in the head; 0: no limit
	MaxSeriesPerMetric int             `yaml:"max_series_per_metric"` // in the head; 0: no limit
	OutOfOrderWindow   *model.Duration `yaml:"out_of_order_time_window"`
	StartTimestamps    bool            `yaml:"start_timestamps"` // kept, in encodings that Thanos can't read
}

// census counts a head's series, all and by metric, and says when there are
// enough. The TSDB calls it for new series and those it removes, never for known ones.
//
// Series that are there when a limit is
// lowered stay.
type census struct {
	limits  func() Limits
	crowded func() fmt.Stringer // see Parts
	// enforce is unset while the log is replayed: what was taken once stays, if there is room for it.
	enforce atomic.Bool
	room    *room
	total   atomic.Int64

	mu struct {
		sync.Mutex
		metrics map[string]int
	}
}

func newCensus(limits func() Limits, room *room, crowded func() fmt.Stringer) *census {
	c := &census{limits: limits, crowded: crowded, room: room}
	c.mu.metrics = map[string]int{}
	return c
}

// fullError says which limit a new series would break.
type fullError struct {
	reason  refuse.Reason
	metric  string
	limit   int
	crowded fmt.Stringer // there is no limit to it but memory
}

func (e *fullError) Error() string { return string(e.reason) }

// PreCreation refuses a series that is one too many. Those created at once may pass together.
func (c *census) PreCreation(lset labels.Labels) error {
	if !c.enforce.Load() {
		return c.room.create()
	}
	if why := c.crowded(); why != nil {
		return &fullError{reason: refuse.SeriesLimit, crowded: why}
	}
	lim := c.limits()
	if lim.MaxSeries > 0 && c.total.Load() >= int64(lim.MaxSeries) {
		return &fullError{reason: refuse.SeriesLimit, limit: lim.MaxSeries}
	}
	if lim.MaxSeriesPerMetric <= 0 {
		return nil
	}
	metric := lset.Get(model.MetricNameLabel)
	c.mu.Lock()
	n := c.mu.metrics[metric]
	c.mu.Unlock()
	if n >= lim.MaxSeriesPerMetric {
		return &fullError{reason: refuse.MetricSeriesLimit, metric: strings.Clone(metric), limit: lim.MaxSeriesPerMetric}
	}
	return nil
}

// PostCreation counts a series.
func (c *census) PostCreation(lset labels.Labels) {
	c.total.Add(1)
	metric := lset.Get(model.MetricNameLabel)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, known := c.mu.metrics[metric]; known {
		c.mu.metrics[metric] = n + 1
		return
	}
	// A copy: the name is a part of the series' labels, which would stay in memory with it.
	c.mu.metrics[strings.Clone(metric)] = 1
}

// PostDeletion counts series that the head has let go of.
func (c *census) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	if !c.enforce.Load() {
		c.room.dropped()
	}
	c.total.Add(-int64(len(gone)))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, lset := range gone {
		metric := lset.Get(model.MetricNameLabel)
		if n := c.mu.metrics[metric]; n > 1 {
			c.mu.metrics[metric] = n - 1
		} else {
			delete(c.mu.metrics, metric)
		}
	}
}

// reset forgets all: another opening counts them anew.
func (c *census) reset() {
	c.total.Store(0)
	c.room = newRoom(c.room.memory, c.room.gc)
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.metrics)
}

// byMetric calls f with the number of series of each metric.
func (c *census) byMetric(f func(metric string, series int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m, n := range c.mu.metrics {
		f(m, n)
	}
}

// limitUsage shows the tenant that is nearest to its limit of series: one
// series whatever the number of tenants.
func (hs *Heads) limitUsage() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "firnline_ingest_series_limit_usage_ratio",
		Help: "Series in the head of a limit of series (head_series_limit, of the tenant for which this is the largest)."}, func() float64 {
		most := 0.0
		for _, h := range hs.retained() {
			if lim := h.census.limits().MaxSeries; lim > 0 {
				most = max(most, float64(h.census.total.Load())/float64(lim))
			}
			h.release()
		}
		return most
	})
}
