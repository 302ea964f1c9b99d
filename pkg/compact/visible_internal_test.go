package compact

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// TestNotices: the log is told of each thing once while it lasts, and again when
// it comes back.
func TestNotices(t *testing.T) {
	var log bytes.Buffer
	lines := func(n *notices, p plan.Plan) int {
		log.Reset()
		n.tell(slog.New(slog.NewTextHandler(&log, nil)), &p)
		return strings.Count(log.String(), "\n")
	}
	var n notices
	p := plan.Plan{
		Held:     []plan.Held{{Group: "0@1", Why: "5m data"}, {Group: "0@1", Why: "5m data"}, {Group: "0@2", Why: "5m data"}},
		SetAside: []plan.SetAside{{Why: "its shard clashes"}, {Why: "somebody's mark", ByOthers: true}},
		Resting:  []plan.Resting{{Group: "0@3", Why: "another compactor"}},
	}
	require.Equal(t, 4, lines(&n, p))
	require.Contains(t, log.String(), "its shard clashes")
	require.Zero(t, lines(&n, p))
	require.Zero(t, lines(&n, plan.Plan{}))
	require.Equal(t, 4, lines(&n, p))
	for i := range 100 {
		p.SetAside = append(p.SetAside, plan.SetAside{Why: fmt.Sprint(i)})
	}
	require.Equal(t, maxNotices+1, lines(&n, p))
}

// TestRunningJobsInMetrics: workers have numbers from 0 on, and those that a job
// leaves are given to the next.
func TestRunningJobsInMetrics(t *testing.T) {
	now := time.Unix(1000, 0)
	table := newJobTable()
	begin := func(key string) *plan.Job {
		j := &plan.Job{Kind: plan.Compact, Key: key, InputBytes: 100}
		p := newProgress(j, now)
		require.True(t, table.start(j, p, 1))
		p.read.Store(50)
		return j
	}
	c := newJobsCollector(table, func() time.Time { return now.Add(time.Minute) })
	require.Zero(t, testutil.CollectAndCount(c))
	first := begin("a")
	begin("b")
	table.stop(first)
	begin("c")
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(`
# HELP firnline_compact_running_job_progress_ratio How much of the job that a worker has is done, from 0 to 1; workers without a job have none.
# TYPE firnline_compact_running_job_progress_ratio gauge
firnline_compact_running_job_progress_ratio{kind="compact",worker="0"} 0.25
firnline_compact_running_job_progress_ratio{kind="compact",worker="1"} 0.25
# HELP firnline_compact_running_job_seconds How long a worker has had its job.
# TYPE firnline_compact_running_job_seconds gauge
firnline_compact_running_job_seconds{kind="compact",worker="0"} 60
firnline_compact_running_job_seconds{kind="compact",worker="1"} 60
`)))
}

// TestBacklogByGroup: each group has its hours, and they sum up to all.
func TestBacklogByGroup(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	p := &planned{Plan: plan.Plan{Jobs: []plan.Job{{Group: "0@1", InputBytes: 7200}, {Group: "0@2", InputBytes: 3600}}}}
	m.observeBacklog(p, 1)
	require.InDelta(t, 2, testutil.ToFloat64(m.groupHours.WithLabelValues("0@1")), 0)
	require.InDelta(t, 1, testutil.ToFloat64(m.groupHours.WithLabelValues("0@2")), 0)
	require.InDelta(t, 3, testutil.ToFloat64(m.backlogHours), 0)
}

// TestMarksOfOthers: marks of blocks that are left out are not counted with the
// blocks that there are.
func TestMarksOfOthers(t *testing.T) {
	ours, fresh := ulid.ULID{1}, ulid.ULID{2}
	mark := block.Marks{Deletion: &block.DeletionMark{}}
	s := snapshot{View: block.View{Metas: map[ulid.ULID]*block.Meta{ours: {}}, Marks: map[ulid.ULID]block.Marks{ours: mark, fresh: mark}}}
	require.Equal(t, 1, s.marks())
}
