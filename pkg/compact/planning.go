package compact

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// What the plan is made with. None of it is a flag: buckets are shared with
// other programs that have the same ranges.
const (
	hours = int64(time.Hour / time.Millisecond)

	window5m     = 48 * hours // raw data is downsampled by windows of this length
	window1h     = 14 * 24 * hours
	settleDelay  = 6 * hours // a window is complete this long after its end, though nothing newer came
	partialDelay = 48 * time.Hour
	maxInputs    = 64 // of a job; more are merged in steps

	planFresh = time.Minute // time passes, too
)

// planConfig is what the plan depends on beside the blocks.
func planConfig(cfg Config, p *policy.Policy) plan.Config {
	return plan.Config{
		Ranges:        []int64{2 * hours, 8 * hours, window5m, window1h},
		ReplicaLabels: cfg.ReplicaLabels, Dedup: len(cfg.ReplicaLabels) > 0,
		Downsample: !cfg.DisableDownsampling, Window5m: window5m, Window1h: window1h, SettleDelay: settleDelay,
		DeleteDelay: time.Duration(cfg.DeleteDelay), PartialDelay: partialDelay,
		MaxIndexBytes: int64(min(uint64(cfg.MaxIndexBytes), math.MaxInt64)), MaxInputs: maxInputs,
		CopyBytes:     int64(min(uint64(cfg.CopyMinSize), math.MaxInt64)),
		ForeignWindow: time.Duration(cfg.ForeignWindow), Policy: p,
	}
}

// planned is a plan and what it was made from. It never changes.
type planned struct {
	plan.Plan
	snap   *snapshot
	policy *policy.Policy
	failed int // version of the table of failed jobs
	finds  int // version of the findings
	at     time.Time
}

// planner keeps the newest plan, since making one of a large bucket takes a while.
type planner struct {
	by func(plan.Config, plan.Input, time.Time) plan.Plan // plan.Make, but in tests
	mu struct {
		sync.Mutex
		last *planned
	}
}

// plan returns the plan for what is known now; nil before the first look.
func (c *Compactor) plan() (*planned, error) { return c.planFor(false) }

// planSoFar returns the plan that there is, if nothing has changed but that jobs
// have failed: they are still in it, and what might be done in their stead isn't.
func (c *Compactor) planSoFar() (*planned, error) { return c.planFor(true) }

func (c *Compactor) planFor(soFar bool) (*planned, error) {
	snap := c.view.get()
	if snap == nil {
		return nil, nil
	}
	c.planner.mu.Lock()
	defer c.planner.mu.Unlock()
	want := planned{snap: snap, policy: c.policy.get(), at: c.clock.now()}
	var failed map[string]time.Time
	failed, want.failed = c.jobs.postponed(c.now(), want.at)
	unmatched, version := c.finds.unmatched()
	want.finds = version
	if last := c.planner.mu.last; last != nil {
		now := want
		if soFar {
			now.failed = last.failed
		}
		if last.holds(now) {
			return last, nil
		}
	}
	began := c.now()
	var err error
	if want.Plan, err = c.make(&want, failed, unmatched); err != nil {
		return nil, err
	}
	c.metrics.planSeconds.Observe(c.now().Sub(began).Seconds())
	c.planner.mu.last = &want
	c.metrics.observe(&want, c.jobs.rate())
	c.notices.tell(c.log, &want.Plan)
	return &want, nil
}

// make plans for what p was begun with. It makes an error of a panic: blocks that
// nobody has thought of must not end the process. Nothing is done meanwhile, and
// the next look may show others.
func (c *Compactor) make(p *planned, failed map[string]time.Time, unmatched map[string]bool) (_ plan.Plan, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.metrics.panics.Inc()
			c.log.Error("planning panicked; please report it", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("plan: internal error: %v", r)
		}
	}()
	return c.planner.by(planConfig(c.cfg, p.policy), plan.Input{
		Metas: p.snap.Metas, LeftOut: p.snap.LeftOut, Marks: p.snap.Marks, Partial: p.snap.Partial, Problems: p.snap.Problems,
		Deletes: p.snap.deletes, Clean: p.snap.clean, Unmatched: unmatched, Failed: failed,
	}, p.at), nil
}

// due are the keys of all jobs that should be done, those that failed a short
// while ago too.
func (c *Compactor) due() (map[string]bool, error) {
	out := map[string]bool{}
	p := planned{snap: c.view.get(), policy: c.policy.get(), at: c.clock.now()}
	if p.snap == nil {
		return out, nil
	}
	unmatched, _ := c.finds.unmatched()
	all, err := c.make(&p, nil, unmatched)
	if err != nil {
		return nil, err
	}
	for _, j := range all.Jobs {
		out[j.Key] = true
	}
	return out, nil
}

// holds tells whether a plan is still that for what is known now.
func (p *planned) holds(now planned) bool {
	age := now.at.Sub(p.at)
	return p.snap == now.snap && p.policy == now.policy && p.failed == now.failed && p.finds == now.finds && age >= 0 && age < planFresh
}

// Plan looks at a bucket and returns what a compactor with this configuration
// would do and why. It writes nothing, neither to the bucket nor to disk.
func Plan(ctx context.Context, cfg Config, parts Parts) (*PlanView, error) {
	now := time.Now
	if parts.Now != nil {
		now = parts.Now
	}
	p, err := cfg.Retention.policy(!cfg.DisableDownsampling)
	if err != nil {
		return nil, err
	}
	cfg.Blocks.IgnoreLabels = cfg.ReplicaLabels
	fetcher, err := block.NewFetcher(cfg.Blocks, parts.Bucket, "", parts.Log, parts.Metrics)
	if err != nil {
		return nil, err
	}
	fetcher.SetClock(now)
	v, err := fetcher.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	deletes, err := readDeletes(ctx, new(block.DeleteReader), parts.Bucket, parts.Log)
	if err != nil {
		return nil, err
	}
	finds, err := readFindings(cfg.DataDir) // of a compactor, if there is one here
	if err != nil {
		return nil, err
	}
	unmatched, _ := finds.unmatched()
	made := plan.Make(planConfig(cfg, p), plan.Input{
		Metas: v.Metas, LeftOut: v.LeftOut, Marks: v.Marks, Partial: v.Partial, Problems: v.Problems, Deletes: deletes,
		Unmatched: unmatched,
	}, now())
	return newPlanView(&made, (&snapshot{View: v}).marks(), viewRows), nil
}
