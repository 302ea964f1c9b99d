package compact

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
	"github.com/firnline/firnline/pkg/dedup"
)

// Compactor compacts one bucket, beside any number of others.
type Compactor struct {
	cfg     Config
	kind    dedup.Kind
	bkt     block.Bucket
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	rand    func() float64
	fault   func(ctx context.Context, point, object string) error

	dir     *dataDir
	fetcher *block.Fetcher
	clock   *bucketClock
	claims  *claims
	policy  *policyFile
	view    *view
	jobs    *jobTable
	planner planner

	cantCopy  atomic.Bool            // within the bucket, as it has said
	ended     atomic.Int64           // jobs here, however they went
	looking   sync.Mutex             // held during a look
	published time.Time              // when the manifest was brought up to date; under looking
	lookAgain chan struct{}          // holds one wish for a look before its time
	verified  map[ulid.ULID]struct{} // replacements read back; of the marking loop alone
	finds     findings
	notices   notices
	orphans   *orphans           // of the cleaning loop alone
	nextSweep time.Time          // likewise, by our clock
	deletes   block.DeleteReader // used by looks alone

	cleanBlocks cleanBlocks
}

// Parts is what a Compactor is given beside its configuration.
type Parts struct {
	Bucket  block.Bucket
	Log     *slog.Logger
	Metrics prometheus.Registerer

	Now   func() time.Time                                      // nil: time.Now
	Rand  func() float64                                        // nil: random, in [0, 1)
	Fault func(ctx context.Context, point, object string) error // nil in production; see FaultPoints
}

// New wires a Compactor, takes its data folder and asks nothing of the bucket;
// call Run or Once, and Close in the end.
func New(cfg Config, parts Parts) (_ *Compactor, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	kind, err := cfg.dedupKind()
	if err != nil {
		return nil, err
	}
	c := &Compactor{
		cfg: cfg, kind: kind, bkt: parts.Bucket, log: parts.Log, metrics: newMetrics(parts.Metrics),
		now: parts.Now, rand: parts.Rand, fault: parts.Fault,
		view: newView(), jobs: newJobTable(), lookAgain: make(chan struct{}, 1), verified: map[ulid.ULID]struct{}{},
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.planner.by = plan.Make
	if c.rand == nil {
		c.rand = rand.Float64
	}
	if c.policy, err = newPolicyFile(cfg, c.view.tell, parts.Log, parts.Metrics); err != nil {
		return nil, err
	}
	if c.dir, err = openDataDir(cfg.DataDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.dir.close())
		}
	}()
	cfg.Blocks.IgnoreLabels, cfg.Blocks.Owner = cfg.ReplicaLabels, c.dir.owner
	if c.fetcher, err = block.NewFetcher(cfg.Blocks, parts.Bucket, cfg.DataDir, parts.Log, parts.Metrics); err != nil {
		return nil, err
	}
	c.fetcher.SetClock(c.now)
	if parts.Metrics != nil {
		parts.Metrics.MustRegister(newJobsCollector(c.jobs, c.now))
	}
	if c.finds, err = readFindings(c.dir.path); err != nil {
		return nil, err
	}
	if c.orphans, err = readOrphans(c.dir.path); err != nil {
		return nil, err
	}
	c.clock = &bucketClock{bkt: c.bkt, owner: c.dir.owner, local: c.now}
	c.claims = &claims{bkt: c.bkt, owner: c.dir.owner, ttl: time.Duration(cfg.LeaseTTL), now: c.now, log: c.log,
		alone: func(alone bool) { c.metrics.alone.Set(number(alone)) }}
	return c, nil
}

// Close gives the data folder back. Call it after Run or Once has returned.
func (c *Compactor) Close() error { return c.dir.close() }

// Run compacts until ctx is done and then returns nil. No goroutine of Run's
// outlives it.
func (c *Compactor) Run(ctx context.Context) error {
	var g sync.WaitGroup
	defer func() {
		g.Wait()
		c.writeCleanAtEnd(ctx)
	}()
	for _, l := range []loop{
		{name: "looking at the bucket", every: time.Duration(c.cfg.WaitInterval), step: c.look, wake: c.wanted},
		{name: "marking blocks", every: time.Duration(c.cfg.CleanupInterval), step: c.mark, wake: c.view.next},
		{name: "cleaning the bucket", every: time.Duration(c.cfg.CleanupInterval), step: c.clean},
		{name: "closing delete requests", every: time.Duration(c.cfg.CleanupInterval), step: c.closeDeletes, wake: c.view.next},
	} {
		g.Go(func() { c.run(ctx, l) })
	}
	g.Go(func() { _ = c.policy.Run(ctx) }) // nil always
	if every := time.Duration(c.cfg.ProgressInterval); every > 0 {
		g.Go(func() { c.run(ctx, loop{name: "telling progress", every: every, step: c.tell}) })
	}
	for range c.cfg.Concurrency {
		g.Go(func() { c.work(ctx) })
	}
	return nil
}

// wanted is the channel by which the next look is asked for.
func (c *Compactor) wanted() <-chan struct{} { return c.lookAgain }

// wantLook asks for a look before its time.
func (c *Compactor) wantLook() {
	select {
	case c.lookAgain <- struct{}{}:
	default: // somebody else has
	}
}

// errIncomplete tells that a look can't have shown every block.
var errIncomplete = errors.New("the bucket was not listed for too long")

// publishEvery is how often a look in passing brings the manifest up to date: what
// is announced others see without that.
const publishEvery = time.Minute

// look brings the view up to date, and the bucket's manifest.
func (c *Compactor) look(ctx context.Context) error {
	c.looking.Lock()
	defer c.looking.Unlock()
	if _, err := c.see(ctx); err != nil {
		return err
	}
	return c.publishManifest(ctx)
}

// glance is look in passing, between two jobs, unless wanted says that it is too
// late for that: another has looked meanwhile. To be late costs only time.
func (c *Compactor) glance(ctx context.Context, wanted func(*snapshot) bool) {
	c.looking.Lock()
	defer c.looking.Unlock()
	if snap := c.view.get(); snap == nil || !wanted(snap) {
		return
	}
	snap, err := c.see(ctx)
	// Until a listing is in the manifest each look would make another.
	if err == nil && (!snap.FromManifest || c.now().Sub(c.published) >= publishEvery) {
		err = c.publishManifest(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("what others have done meanwhile is not known", "err", err)
	}
}

func (c *Compactor) publishManifest(ctx context.Context) error {
	c.published = c.now()
	return c.fetcher.Publish(ctx)
}

// see looks at the bucket. The caller has looking.
func (c *Compactor) see(ctx context.Context) (*snapshot, error) {
	taken, ended := c.now(), c.ended.Load()
	if err := c.claims.test(ctx); err != nil {
		c.metrics.fault.Set(1)
		c.view.take(&snapshot{fault: err, taken: taken, ended: ended})
		return nil, err
	}
	clocks := c.clock.check(ctx)
	c.metrics.skew.Set(c.clock.skew().Seconds())
	v, err := c.fetcher.Fetch(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	deletes, deletesErr := readDeletes(ctx, &c.deletes, c.bkt, c.log)
	fault := errors.Join(clocks, err, deletesErr)
	if fault == nil && !v.Complete {
		fault = errIncomplete
	}
	c.metrics.fault.Set(number(fault != nil))
	snap := &snapshot{View: v, deletes: deletes, fault: fault, taken: taken, ended: ended}
	c.view.take(snap)
	return snap, fault
}

// Ready returns nil once work can begin, and else what is waited for.
func (c *Compactor) Ready() error { return c.view.waiting() }

// Reload reads the retention policy's file now.
func (c *Compactor) Reload() error { return c.policy.Reload() }

// announce tells other components, and our own view, of changes. That they
// can't be told is no failure: they will find out by themselves.
func (c *Compactor) announce(ctx context.Context, changes ...block.Change) {
	if len(changes) == 0 {
		return
	}
	c.view.add(c.now(), changes...)
	if err := block.Announce(ctx, c.bkt, changes...); err != nil {
		c.log.Warn("changes are not announced; others find them at their next look", "err", err, "changes", len(changes))
	}
}

// number is a truth as a metric has it.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
