package intake

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/firnline/firnline/pkg/tenant"
)

// Activity is what a tenant sent by way of this router.
type Activity struct {
	Series   int64            `json:"active_series"`     // sent within the window
	Matching map[string]int64 `json:"matching"`          // of those, by name of active_series
	Rates    []MetricRate     `json:"samples_by_metric"` // the highest, highest first
	Labels   []LabelRate      `json:"samples_by_label"`  // likewise
}

// MetricRate is what is sent of one metric. Metric is "" for all that are beyond those counted one by one.
type MetricRate struct {
	Metric           string  `json:"metric"`
	Series           int64   `json:"active_series"`
	SamplesPerSecond float64 `json:"samples_per_second"` // counted on one series in 64
}

// activity is an Activity as the last sweep of a catalog found it.
type activity struct {
	series   int64
	matching []int64 // by bit
}

// summarise folds the active series by class.
func (c *catalog) summarise(counts []int64, now time.Time) {
	found := map[*owner]*activity{}
	series := map[*metric]int64{}
	for n, cl := range c.load()[:len(counts)] {
		if cl.verdict != taken || counts[n] == 0 {
			continue
		}
		a := found[cl.owner]
		if a == nil {
			a = &activity{matching: make([]int64, len(c.rules.names))}
			found[cl.owner] = a
		}
		a.series += counts[n]
		series[cl.metric] += counts[n]
		for bit := range a.matching {
			a.matching[bit] += counts[n] * int64(cl.active>>bit&1)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.found = found
	seconds := now.Sub(c.mu.swept).Seconds()
	c.mu.swept = now
	for _, m := range c.mu.metrics {
		m.rates(series[m], seconds)
	}
	for _, o := range c.mu.tenants {
		o.looks.sweep(seconds)
	}
}

// rates is called by sweeps alone.
func (m *metric) rates(series int64, seconds float64) {
	total := m.samples.Load()
	if seconds > 0 {
		m.rate.Store(math.Float64bits(float64(total-m.before) / seconds))
	}
	m.before = total
	m.series.Store(series)
}

// Activity tells what tenants sent, as the last sweep found it; at most top
// rates a tenant. A pair of senders counts twice, since both send.
func (in *Intake) Activity(top int) map[tenant.ID]*Activity {
	all := in.active()
	for _, s := range in.snapshot() {
		s.cat.addRates(all)
	}
	for _, a := range all {
		slices.SortFunc(a.Rates, func(x, y MetricRate) int {
			return cmp.Or(cmp.Compare(y.SamplesPerSecond, x.SamplesPerSecond), cmp.Compare(x.Metric, y.Metric))
		})
		a.Rates = a.Rates[:min(top, len(a.Rates))]
		slices.SortFunc(a.Labels, byLabelRate)
		a.Labels = a.Labels[:min(top, len(a.Labels))]
	}
	return all
}

// active is Activity without rates.
func (in *Intake) active() map[tenant.ID]*Activity {
	all := map[tenant.ID]*Activity{}
	for _, s := range in.snapshot() {
		s.cat.addActive(all)
	}
	return all
}

func activityOf(all map[tenant.ID]*Activity, o *owner) *Activity {
	a := all[o.id]
	if a == nil {
		a = &Activity{Matching: map[string]int64{}}
		all[o.id] = a
	}
	return a
}

func (c *catalog) addActive(all map[tenant.ID]*Activity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for o, found := range c.mu.found {
		a := activityOf(all, o)
		a.Series += found.series
		for bit, n := range found.matching {
			a.Matching[c.rules.names[bit]] += n
		}
	}
}

func (c *catalog) addRates(all map[tenant.ID]*Activity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m := range maps.Values(c.mu.metrics) {
		if n := m.series.Load(); n > 0 {
			a := activityOf(all, m.owner)
			a.Rates = append(a.Rates, MetricRate{m.name, n, math.Float64frombits(m.rate.Load())})
		}
	}
	for _, o := range c.mu.tenants {
		for _, r := range o.looks.rates() {
			a := activityOf(all, o)
			a.Labels = append(a.Labels, r)
		}
	}
}

// firstMetered is the first series of a request that counts for others. It goes
// round by the golden ratio, so that no order of senders makes some never count.
func (c *catalog) firstMetered() int {
	return int(c.calls.Add(1) * 2654435769 >> (32 - sampleBits))
}

// meter counts the samples of some series, in the place of all, for their metrics.
func (c *call) meter() {
	all := c.cat.load()
	for _, m := range c.metered {
		if s := &c.batch.Series[m.series]; s.ID != 0 && all[m.class].metric != nil {
			all[m.class].metric.samples.Add(sampleEvery * uint64(samplesOf(s)))
		}
	}
}
