package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/e2e/model"
	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

const day = 24 * time.Hour

// devPolicy keeps what developers have for less time than the flags say.
const devPolicy = `rules:
- selectors: ['{namespace="dev"}']
  raw: 5d
  5m: 20d
  1h: 40d
`

// retentionOf is by namespace, then by resolution; 0 is for ever.
var retentionOf = map[string]map[int64]time.Duration{
	"prod": {block.ResolutionRaw: 7 * day, block.Resolution5m: 30 * day, block.Resolution1h: 0},
	"dev":  {block.ResolutionRaw: 5 * day, block.Resolution5m: 20 * day, block.Resolution1h: 40 * day},
}

// TestSixtyDays lets a pair of real Prometheus servers live through 60 days of
// data. Sidecars ship it; at each stage a compactor, whose clock and bucket are
// at that day, compacts, deduplicates, downsamples and retains it, and what two
// queriers say is compared with the reference model. One reads blocks until they
// are gone, the other leaves out what is marked for deletion.
//
// The time of stages is simulated; programs, blocks, bucket and queries are real.
// With FIRNLINE_SOAK set there is a stage every other day.
//
// RELIABILITY C7
func TestSixtyDays(t *testing.T) {
	t.Parallel()
	h := newHistory(t, 4*time.Hour, 8*time.Hour) // of two hours, as in TestCompactedWhileQueried, they would be twice as many
	stages := []int{5, 10, 15, 29, 44, 60}
	if os.Getenv("FIRNLINE_SOAK") != "" {
		stages = stages[:0]
		for end := 2; end <= 60; end += 2 {
			stages = append(stages, end)
		}
	}
	for _, end := range stages {
		h.stage(time.Duration(end) * day)
	}
}

// TestUnmergedPairBehindTiers asks over ranges that begin in downsampled data of
// both servers in one and end in raw blocks, as long as one another, of each: what
// is behind a counter's reset has to go on from there.
func TestUnmergedPairBehindTiers(t *testing.T) {
	t.Parallel()
	newHistory(t, 12*time.Hour, 12*time.Hour).stage(5 * day)
}

// history is what TestSixtyDays runs.
type history struct {
	*rig
	past     *past
	model    *model.Model
	known    map[string]*known // answers of the model, by expression and step
	engine   *model.Engine
	clock    *simClock
	bkt      block.Bucket
	compact  compact.Config
	stores   []*stack.Firnline
	queriers []*stack.Firnline         // patient, hasty
	edges    map[time.Duration][]int64 // where the coarsest resolution read changes, by the coarsest allowed
	now      time.Time                 // simulated
	began    time.Time
}

// newHistory starts a pair of servers, a and b, that cut blocks of these lengths.
// They differ, so that the blocks of one replica are seldom those of the other.
func newHistory(t *testing.T, a, b time.Duration) *history {
	h := &history{rig: newRig(t), model: model.New(), engine: model.NewEngine(), known: map[string]*known{}, clock: &simClock{}, began: time.Now()}
	t.Cleanup(func() { require.NoError(t, h.engine.Close()) })
	h.clock.set(pastStart)
	var pair []*stack.Prometheus
	for replica, length := range map[string]time.Duration{"a": a, "b": b} {
		p, _ := h.prometheusOf(stack.PrometheusConfig{
			Name: "past-" + replica, ExternalLabels: map[string]string{"cluster": "eu", "replica": replica}, Targets: []string{},
			BlockDuration: length, Args: []string{"--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100d"},
		})
		h.launch(nil, h.sidecarArgs(p)...)
		pair = append(pair, p)
	}
	h.past = newPast(t, h.model, max(a, b), pair...)
	open, err := bucket.Open(context.Background(), bucket.Config{
		Objstore: stack.ObjstoreYAML(h.minio.EndpointURL().Host, stack.Bucket), MaxConcurrent: 32, MaxRetries: 3, Timeout: 60_000_000_000,
	}, bucket.Parts{Log: quiet(), Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, open.Close()) })
	h.bkt = simBucket{open, h.clock}
	h.configure()
	return h
}

func (h *history) configure() {
	policy := filepath.Join(h.dir, "policy.yml")
	h.write(policy, devPolicy)
	fs := flag.NewFlagSet("compact", flag.ContinueOnError)
	h.compact.RegisterFlags(fs)
	require.NoError(h.t, fs.Parse([]string{
		"--data-dir=" + filepath.Join(h.dir, "compact"), "--consistency-delay=0s", "--compact.progress-interval=0s",
		"--deduplication.replica-label=replica", "--retention.resolution-raw=7d", "--retention.resolution-5m=30d", "--retention.policy-file=" + policy,
	}))
}

// stage lets time pass until so long after the beginning.
func (h *history) stage(after time.Duration) {
	h.t.Helper()
	end := pastStart.Add(after)
	h.past.write(end)
	h.waitShipped(end)
	h.clock.set(end)
	h.now = end
	h.t.Logf("%3.0fs day %.0f: shipped", time.Since(h.began).Seconds(), after.Hours()/24)
	h.pass()
	h.t.Logf("%3.0fs day %.0f: compacted", time.Since(h.began).Seconds(), after.Hours()/24)
	h.check()
	if h.t.Failed() {
		h.t.FailNow()
	}
	h.t.Logf("%3.0fs day %.0f: compared", time.Since(h.began).Seconds(), after.Hours()/24)
}

// pass is one of the compactor's, until nothing is left to do.
func (h *history) pass() {
	h.t.Helper()
	c, err := compact.New(h.compact, compact.Parts{Bucket: h.bkt, Log: logTo(filepath.Join(h.dir, "compact.log")), Metrics: prometheus.NewRegistry(), Now: h.clock.now})
	require.NoError(h.t, err)
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Minute)
	defer cancel()
	require.NoError(h.t, c.Once(ctx))
	require.NoError(h.t, c.Close())
}

// waitShipped waits until the bucket has all blocks of both servers before end.
func (h *history) waitShipped(end time.Time) {
	h.t.Helper()
	for _, p := range h.past.pair {
		eventually(h.t, 3*time.Minute, func() error {
			ids, newest, err := localBlocks(p)
			if err != nil || newest.Before(end) {
				return fmt.Errorf("%s has cut blocks until %s: %w", p.Name, newest, err)
			}
			return h.shipped(p, ids...)
		})
	}
}

func localBlocks(p *stack.Prometheus) (ids []ulid.ULID, newest time.Time, err error) {
	names, err := p.Blocks()
	for _, name := range names {
		m, err := block.ReadMeta(filepath.Join(p.DataDir, name))
		if err != nil {
			return nil, newest, err
		}
		ids = append(ids, m.ULID)
		if end := time.UnixMilli(m.MaxTime); end.After(newest) {
			newest = end
		}
	}
	return ids, newest, err
}

// stored is a block in the bucket.
type stored struct {
	*block.Meta
	marked bool // for deletion
}

// blocks reads what is in the bucket, past all components, by time.
func (r *rig) blocks() (out []stored) {
	r.t.Helper()
	objects := r.objects()
	for name := range objects {
		id, rel, ok := block.SplitName(name)
		if !ok || rel != block.MetaFilename {
			continue
		}
		data, there := r.read(name)
		if !there {
			continue // removed meanwhile
		}
		m, err := block.ParseMeta(id, data)
		require.NoError(r.t, err)
		_, marked := objects[block.Name(id, block.DeletionMarkFilename)]
		out = append(out, stored{m, marked})
	}
	slices.SortFunc(out, func(a, b stored) int {
		return cmp.Or(cmp.Compare(a.Resolution(), b.Resolution()), cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
	})
	return out
}

// check compares blocks and answers with what the policy and the model say.
func (h *history) check() {
	h.t.Helper()
	blocks := h.blocks()
	live := slices.DeleteFunc(slices.Clone(blocks), func(b stored) bool { return b.marked })
	h.edges = map[time.Duration][]int64{}
	for _, resolution := range []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h} {
		d := time.Duration(resolution) * time.Millisecond
		h.edges[d] = edgesOf(blocks, d)
	}
	h.few(live)
	h.reopen()
	for _, namespace := range []string{"prod", "dev"} {
		h.answers(namespace)
		h.nothingOlder(namespace, live)
	}
}

// few checks that blocks are few and that none is older than any policy says.
func (h *history) few(live []stored) {
	h.t.Helper()
	var line strings.Builder
	for _, b := range live {
		fmt.Fprintf(&line, " %d:%s-%s", b.Resolution()/60000, days(b.MinTime), days(b.MaxTime))
		if keep := retentionOf["prod"][b.Resolution()]; keep > 0 {
			require.False(h.t, time.UnixMilli(b.MaxTime).Add(keep).Before(h.now), "block %s with data until day %s is too old", b.ULID, days(b.MaxTime))
		}
	}
	h.t.Logf("%3.0fs %d blocks:%s", time.Since(h.began).Seconds(), len(live), &line)
	require.Less(h.t, len(live), 30)
}

// reopen starts store gateways and queriers over the bucket as it is.
func (h *history) reopen() {
	h.t.Helper()
	if h.queriers == nil {
		for _, args := range [][]string{{"--ignore-deletion-marks-delay=50y"}, nil} {
			s := h.store(args...)
			h.stores = append(h.stores, s)
			h.queriers = append(h.queriers, h.querier("--endpoint="+s.GRPC, "--query.replica-label=replica"))
		}
		return
	}
	var all errgroup.Group
	for i, s := range h.stores {
		all.Go(func() error {
			s.Stop()
			h.queriers[i].Stop()
			if err := s.Restart(h.t.Context()); err != nil {
				return err
			}
			return h.queriers[i].Restart(h.t.Context())
		})
	}
	require.NoError(h.t, all.Wait())
}

// answers compares the suite over all that a namespace still has to have.
func (h *history) answers(namespace string) {
	h.t.Helper()
	matcher := fmt.Sprintf("namespace=%q", namespace)
	ask := func(queries []pastQuery, longest time.Duration, s span) {
		s.from = pastStart
		if keep := retentionOf[namespace][s.resolution.Milliseconds()]; keep > 0 && h.now.Add(-keep).After(s.from) {
			s.from = h.now.Add(-keep)
		}
		// Steps are the same at each stage.
		steps := (s.from.Add(longest).Sub(pastStart) + s.step - 1) / s.step
		s.from = pastStart.Add(steps * s.step)
		s.to = s.from.Add(h.now.Sub(s.from) / s.step * s.step)
		h.compareSuite(queries, matcher, s)
	}
	ask(rawQueries, day, span{step: 37 * time.Minute})
	for _, s := range []span{
		{rng: 30 * time.Minute, step: 130 * time.Minute, resolution: 5 * time.Minute},
		{rng: 6 * time.Hour, step: 9 * time.Hour, resolution: 5 * time.Minute},
		{rng: 2 * time.Hour, step: 5 * time.Hour, resolution: time.Hour},
		{rng: day, step: 13 * time.Hour, resolution: time.Hour},
	} {
		ask(windowQueries, s.rng, s)
	}
}

// nothingOlder checks that what the policy doesn't keep is gone from each tier:
// everything in blocks that ended so long ago.
func (h *history) nothingOlder(namespace string, live []stored) {
	h.t.Helper()
	hasty := h.queriers[len(h.queriers)-1]
	for resolution, keep := range retentionOf[namespace] {
		d := time.Duration(resolution) * time.Millisecond
		gone := pastStart
		for _, b := range live {
			if end := time.UnixMilli(b.MaxTime); b.Resolution() == resolution && keep > 0 && end.Add(keep).Before(h.now) && end.After(gone) {
				gone = end
			}
		}
		if gone.Equal(pastStart) {
			continue
		}
		s := span{from: pastStart.Add(time.Hour), to: gone, step: time.Hour, resolution: d}
		expr := fmt.Sprintf("count(count_over_time(queue{namespace=%q}[1h]))", namespace)
		got, err := h.got(hasty, expr, s)
		require.NoError(h.t, err)
		require.Empty(h.t, got, "%s data until day %s of %s on day %s", d, days(gone.UnixMilli()), namespace, days(h.now.UnixMilli()))
	}
}

func days(ms int64) string { return fmt.Sprintf("%.1f", time.UnixMilli(ms).Sub(pastStart).Hours()/24) }

func logTo(path string) *slog.Logger {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return quiet()
	}
	return slog.New(slog.NewTextHandler(f, nil))
}
