package compact

import (
	"context"
	"flag"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// TestPlannerPanics: blocks on which the planner panics end a pass, and show in
// status and metric. The process goes on, and so does work when they are gone.
func TestPlannerPanics(t *testing.T) {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	cfg.DataDir, cfg.ProgressInterval = t.TempDir(), 0
	c, err := New(cfg, Parts{Bucket: bucket.NewMemory(), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	c.planner.by = func(plan.Config, plan.Input, time.Time) plan.Plan { panic("nobody thought of this") }

	require.ErrorContains(t, c.Once(t.Context()), "nobody thought of this")
	require.Contains(t, c.Status().Fault, "nobody thought of this")
	panics := testutil.ToFloat64(c.metrics.panics)
	require.Positive(t, panics)

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	require.Eventually(t, func() bool { return testutil.ToFloat64(c.metrics.panics) > panics }, 2*time.Minute, time.Millisecond)
	stop()
	require.NoError(t, <-ended)

	c.planner.by = plan.Make
	require.NoError(t, c.Once(t.Context()))
	require.Empty(t, c.Status().Fault)
}

// TestBehindShows: a group without any 5m data tells of it, and the coarsest tier,
// which nothing is made of, is not asked for more.
func TestBehindShows(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry())
	m.observe(&planned{Plan: plan.Plan{Coverage: []plan.Coverage{
		{Group: "0@17", MaxTime: 6 * 86_400_000, Behind: 6 * 86_400_000},
		{Group: "300000@18", Resolution: 300_000, MaxTime: 1000}, {Group: "3600000@18", Resolution: 3_600_000, MaxTime: 1000},
	}}}, 0)
	require.Equal(t, 2, testutil.CollectAndCount(m.behind))
	require.Equal(t, 6*86400.0, testutil.ToFloat64(m.behind.WithLabelValues("0@17", "raw")))
	require.Zero(t, testutil.ToFloat64(m.behind.WithLabelValues("300000@18", "5m")))
}
