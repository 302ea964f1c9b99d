package compact

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// jobsCollector tells how far the running jobs are, when it is asked. It tells by
// worker, of which there are few, and not by job, of which there are ever new ones.
type jobsCollector struct {
	jobs            *jobTable
	now             func() time.Time
	progress, since *prometheus.Desc
}

func newJobsCollector(jobs *jobTable, now func() time.Time) *jobsCollector {
	labels := []string{"worker", "kind"}
	return &jobsCollector{
		jobs: jobs, now: now,
		progress: prometheus.NewDesc("firnline_compact_running_job_progress_ratio", "How much of the job that a worker has is done, from 0 to 1; workers without a job have none.", labels, nil),
		since:    prometheus.NewDesc("firnline_compact_running_job_seconds", "How long a worker has had its job.", labels, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *jobsCollector) Describe(to chan<- *prometheus.Desc) { to <- c.progress; to <- c.since }

// Collect implements prometheus.Collector.
func (c *jobsCollector) Collect(to chan<- prometheus.Metric) {
	running, _, _ := c.jobs.lists()
	for _, p := range running {
		worker, kind := strconv.Itoa(p.worker), string(p.job.Kind)
		to <- prometheus.MustNewConstMetric(c.progress, prometheus.GaugeValue, p.share(), worker, kind)
		to <- prometheus.MustNewConstMetric(c.since, prometheus.GaugeValue, c.now().Sub(p.started).Seconds(), worker, kind)
	}
}
