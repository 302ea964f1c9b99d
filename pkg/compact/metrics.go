package compact

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
	"github.com/firnline/firnline/pkg/downsample"
)

type metrics struct {
	rounds        *prometheus.CounterVec
	roundFailures *prometheus.CounterVec
	roundSuccess  *prometheus.GaugeVec

	alone       prometheus.Gauge
	skew        prometheus.Gauge
	fault       prometheus.Gauge
	planSeconds prometheus.Histogram

	jobs        *prometheus.CounterVec
	jobFailures *prometheus.CounterVec
	jobSeconds  *prometheus.HistogramVec
	jobSuccess  prometheus.Gauge
	failing     prometheus.Gauge
	jobMemory   prometheus.Gauge
	panics      prometheus.Counter
	setAside    prometheus.Counter
	unverified  prometheus.Counter
	discarded   prometheus.Counter
	reads       prometheus.Counter
	readBytes   prometheus.Counter
	written     *prometheus.CounterVec
	chunks      *prometheus.CounterVec
	diskFree    prometheus.Gauge

	marked         *prometheus.CounterVec
	removed        *prometheus.CounterVec
	removeFailures prometheus.Counter
	kept           prometheus.Counter
	claimsRemoved  prometheus.Counter
	notesRemoved   prometheus.Counter
	notesOrphaned  prometheus.Gauge

	backlogJobs   *prometheus.GaugeVec
	backlogBlocks *prometheus.GaugeVec
	backlogBytes  *prometheus.GaugeVec
	backlogHours  prometheus.Gauge
	groupHours    *prometheus.GaugeVec
	garbage       prometheus.Gauge
	tierStart     *prometheus.GaugeVec
	tierEnd       *prometheus.GaugeVec
	tierBytes     *prometheus.GaugeVec
	behind        *prometheus.GaugeVec
	held          *prometheus.GaugeVec
	setAsideNow   *prometheus.GaugeVec
	resting       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{}
	m.registerWork(reg)
	m.registerState(reg)
	m.begin()
	return m
}

// begin makes the series whose first change must show as one: a counter that
// begins at 1 has no increase.
func (m *metrics) begin() {
	for _, kind := range []plan.Kind{plan.Compact, plan.Downsample, plan.Split, plan.Rewrite} {
		m.jobs.WithLabelValues(string(kind))
		m.jobFailures.WithLabelValues(string(kind))
	}
	m.held0()
}

// watch makes the series of a loop: 0 as the time of its last round says that
// there was none yet.
func (m *metrics) watch(loop string) {
	m.rounds.WithLabelValues(loop)
	m.roundFailures.WithLabelValues(loop)
	m.roundSuccess.WithLabelValues(loop)
}

func (m *metrics) held0() {
	for _, resolution := range []int64{0, downsample.Resolution5m, downsample.Resolution1h} {
		m.held.WithLabelValues(resolutionName(resolution)).Set(0)
	}
}

// registerWork makes the metrics of what is done.
func (m *metrics) registerWork(reg prometheus.Registerer) {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "firnline_compact_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "firnline_compact_" + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "firnline_compact_" + name, Help: help}, []string{label})
	}
	seconds := prometheus.ExponentialBuckets(0.1, 4, 10)
	m.rounds = counters("rounds_total", "Rounds of each loop.", "loop")
	m.roundFailures = counters("round_failures_total", "Rounds of each loop that failed; they are tried again.", "loop")
	m.roundSuccess = f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_compact_last_round_timestamp_seconds", Help: "When a round of each loop last went well; 0: not yet."}, []string{"loop"})
	m.planSeconds = f.NewHistogram(prometheus.HistogramOpts{Name: "firnline_compact_plan_duration_seconds", Help: "Time to plan.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)})

	m.jobs = counters("jobs_total", "Jobs done.", "kind")
	m.jobFailures = counters("job_failures_total", "Jobs that failed, or were left out for want of memory or disk; each is tried again later.", "kind")
	m.jobSeconds = f.NewHistogramVec(prometheus.HistogramOpts{Name: "firnline_compact_job_duration_seconds", Help: "Wall time of a job, first read to last mark.", Buckets: seconds}, []string{"kind"})
	m.jobSuccess = gauge("last_job_timestamp_seconds", "When a job was last done.")
	m.failing = gauge("failing_jobs", "Jobs that failed when last tried, or were left out for want of memory or disk.")
	m.jobMemory = gauge("job_memory_bytes", "Memory estimated for the last job that was begun, without the symbols of its result.")
	m.panics = counter("panics_total", "Jobs, or attempts to plan them, that panicked; the process went on.")
	m.setAside = counter("blocks_set_aside_total", "Blocks marked no-compact since they can't be read.")
	m.unverified = counter("results_unverified_total", "Results that did not stand up to being read back; their inputs stay.")
	m.discarded = counter("results_discarded_total", "Results that were removed again, since they did not stand up to being read back.")
	m.reads = counter("read_requests_total", "Ranged reads of inputs.")
	m.readBytes = counter("read_bytes_total", "Bytes of inputs read.")
	m.written = counters("written_bytes_total", "Bytes of results uploaded.", "resolution")
	m.chunks = counters("chunks_total", "Chunks of inputs by what became of them: copied, encoded anew, left out as equal, cut or empty; mended are counted beside.", "outcome")
	m.diskFree = gauge("disk_free_bytes", "Free space of the file system with the local folder.")

	m.marked = counters("blocks_marked_total", "Blocks marked for deletion.", "why")
	m.removed = counters("blocks_removed_total", "Blocks removed from the bucket.", "why")
	m.removeFailures = counter("block_remove_failures_total", "Blocks whose removal failed; it is tried again.")
	m.kept = counter("blocks_unmarked_total", "Blocks whose deletion mark was taken off again, since nothing replaces them or retention wants them again.")
	m.claimsRemoved = counter("claims_removed_total", "Records of claims that lapsed long ago, removed.")
	m.notesRemoved = counter("notes_removed_total", "Notes (exemplars and metadata) removed, since nothing is left of the block that they belong to.")
	m.notesOrphaned = gauge("notes_orphaned", "Notes that no block needs; they go when that has been so for the delete delay.")
}

// registerState makes the metrics of what the bucket is like, and what is to be done.
func (m *metrics) registerState(reg prometheus.Registerer) {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "firnline_compact_" + name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "firnline_compact_" + name, Help: help}, labels)
	}
	m.alone = gauge("single_instance", "1 where the bucket has no conditional writes, so that only one compactor may run on it.")
	m.skew = gauge("clock_skew_seconds", "By how much the bucket's clock is ahead of ours. Above 300 either way nothing is compacted, marked or removed.")
	m.fault = gauge("view_fault", "1 while the bucket can't be looked at without a fault, so that nothing is marked or removed.")

	m.backlogJobs = gauges("backlog_jobs", "Jobs to be done. Groups beyond the largest are summed up as other.", "group", "kind")
	m.backlogBlocks = gauges("backlog_blocks", "Blocks that the jobs to be done read.", "group")
	m.backlogBytes = gauges("backlog_bytes", "Bytes that the jobs to be done read.", "group")
	m.backlogHours = gauge("backlog_hours", "How long one worker would take for all jobs to be done, at the speed of the last ones; 0: nothing to do, or no job done yet.")
	m.groupHours = gauges("backlog_group_hours", "How long one worker would take for the jobs to be done of a group.", "group")
	m.garbage = gauge("garbage_blocks", "Blocks that others hold all of and that are not marked yet.")
	m.tierStart = gauges("tier_start_seconds", "From when on a group has data of a resolution.", "group", "resolution")
	m.tierEnd = gauges("tier_end_seconds", "Until when a group has data of a resolution.", "group", "resolution")
	m.tierBytes = gauges("tier_bytes", "Bytes of a group at a resolution.", "group", "resolution")
	m.behind = gauges("downsampling_behind_seconds", "How long before the end of a group's data of a resolution that begins which the next coarser one is still to get; 0: it has all.", "group", "resolution")
	m.held = gauges("retention_held_blocks", "Blocks that retention would remove if what is meant to outlive them were there.", "resolution")
	m.setAsideNow = gauges("set_aside_blocks", "Blocks that are left out of compaction: by=others have marks that this program did not set, by=compact are not to be used.", "by")
	m.resting = gauge("resting_groups", "Groups that are left alone, since another compactor was seen at work in them.")
}

// maxGroups is how many groups have series of their own in metrics; the largest
// backlogs come first, and the others are summed up.
const maxGroups = 50

const otherGroups = "other"

// observe sets the metrics of a plan. perSec is how many bytes a worker gets
// through in a second; 0: unknown.
func (m *metrics) observe(p *planned, perSec float64) {
	m.observeBacklog(p, perSec)
	m.garbage.Set(float64(len(p.Garbage)))
	m.observeSetAside(p.SetAside)
	m.resting.Set(float64(len(p.Resting)))
	m.held0()
	for _, h := range p.Held {
		m.held.WithLabelValues(resolutionName(h.Resolution)).Inc()
	}
	for _, v := range []*prometheus.GaugeVec{m.tierStart, m.tierEnd, m.tierBytes, m.behind} {
		v.Reset()
	}
	tiers := slices.Clone(p.Coverage)
	slices.SortFunc(tiers, func(a, b plan.Coverage) int { return cmp.Compare(b.Bytes, a.Bytes) })
	for i, t := range tiers {
		if i == maxGroups*3 {
			break
		}
		resolution := resolutionName(t.Resolution)
		m.tierStart.WithLabelValues(t.Group, resolution).Set(float64(t.MinTime) / 1000)
		m.tierEnd.WithLabelValues(t.Group, resolution).Set(float64(t.MaxTime) / 1000)
		m.tierBytes.WithLabelValues(t.Group, resolution).Set(float64(t.Bytes))
		if t.Resolution < downsample.Resolution1h {
			m.behind.WithLabelValues(t.Group, resolution).Set(float64(t.Behind) / 1000)
		}
	}
}

func (m *metrics) observeBacklog(p *planned, perSec float64) {
	for _, v := range []*prometheus.GaugeVec{m.backlogJobs, m.backlogBlocks, m.backlogBytes, m.groupHours} {
		v.Reset()
	}
	var all int64
	groups := backlogOf(p)
	for i, g := range groups {
		name := g.Group
		if i >= maxGroups {
			name = otherGroups
		}
		for kind, n := range g.Jobs {
			m.backlogJobs.WithLabelValues(name, kind).Add(float64(n))
		}
		m.backlogBlocks.WithLabelValues(name).Add(float64(g.Blocks))
		m.backlogBytes.WithLabelValues(name).Add(float64(g.Bytes))
		m.groupHours.WithLabelValues(name).Add(hoursFor(g.Bytes, perSec))
		all += g.Bytes
	}
	m.backlogHours.Set(hoursFor(all, perSec))
}

func resolutionName(ms int64) string { return policy.ResolutionName(ms) }

// observeSetAside counts what somebody meant to leave out apart from what is wrong,
// since only that is worth an alert.
func (m *metrics) observeSetAside(blocks []plan.SetAside) {
	count := map[string]float64{"compact": 0, "others": 0}
	for _, b := range blocks {
		if b.ByOthers {
			count["others"]++
		} else {
			count["compact"]++
		}
	}
	for by, n := range count {
		m.setAsideNow.WithLabelValues(by).Set(n)
	}
}
