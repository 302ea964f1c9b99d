package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// jobTable is what is known of jobs beside the plan: which of them run here,
// which failed, and which others have claimed.
type jobTable struct {
	most time.Duration // between looks at what others do
	mu   struct {
		sync.Mutex
		running  map[string]*progress // by key
		failed   map[string]failure
		held     map[string]heldJob
		areas    map[string]time.Time // where others were at work; until when that is believed, by our clock
		last     map[string]string    // results of the last success, by key
		version  int                  // of failed
		disk     int64                // reserved by running jobs, bytes
		perSec   float64
		longest  time.Duration // that a job took here
		busy     time.Time     // when one ended last
		finished int
	}
}

// failure is a job that is not tried again before a time.
type failure struct {
	Key    string    `json:"key"`
	Tries  int       `json:"tries"` // in a row
	Until  time.Time `json:"until"` // by our clock
	Reason string    `json:"reason"`
}

// heldJob is a job that somebody else does.
type heldJob struct {
	Key   string    `json:"key"`
	Owner string    `json:"owner"`
	For   string    `json:"for"`
	Since time.Time `json:"since"`
	again time.Time // when to ask again, by our clock
	seen  time.Time // when it was found to be theirs, by the machine's clock
}

func newJobTable() *jobTable {
	t := &jobTable{most: heldRetry}
	t.mu.running, t.mu.failed, t.mu.held = map[string]*progress{}, map[string]failure{}, map[string]heldJob{}
	t.mu.last, t.mu.areas = map[string]string{}, map[string]time.Time{}
	return t
}

// Pauses after which a failed job is tried again, and claims of others are looked at.
const (
	jobRetry    = time.Minute
	jobMaxRetry = 2 * time.Hour
	heldRetry   = 20 * time.Second
	leastPause  = 100 * time.Millisecond // between looks at what others do
	failureKept = 24 * time.Hour         // after its time a failure is forgotten, in case its job is no more
)

// postponed returns the failed jobs, as the plan wants them: until when, by the
// bucket's clock.
func (t *jobTable) postponed(now, bucketNow time.Time) (map[string]time.Time, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]time.Time{}
	for key, f := range t.mu.failed {
		if now.Sub(f.Until) > failureKept {
			delete(t.mu.failed, key)
			continue
		}
		if wait := f.Until.Sub(now); wait > 0 {
			out[key] = bucketNow.Add(wait)
		}
	}
	return out, t.mu.version
}

// start notes that a job runs here, unless it may not now.
func (t *jobTable) start(j *plan.Job, p *progress, limit int64) (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.running[j.Key] != nil || t.mu.disk+j.DiskBytes > limit {
		return false
	}
	for _, r := range t.mu.running {
		if j.Replaces && r.job.Replaces && shareInputs(j, r.job) {
			return false
		}
	}
	p.worker = t.freeWorkerLocked()
	t.mu.running[j.Key] = p
	t.mu.disk += j.DiskBytes
	delete(t.mu.held, j.Key)
	return true
}

// freeWorkerLocked is the lowest number that no running job has.
func (t *jobTable) freeWorkerLocked() int {
	busy := map[int]bool{}
	for _, r := range t.mu.running {
		busy[r.worker] = true
	}
	n := 0
	for busy[n] {
		n++
	}
	return n
}

// stop notes that a job doesn't run here any more.
func (t *jobTable) stop(j *plan.Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.running, j.Key)
	t.mu.disk -= j.DiskBytes
}

// done notes a job's success and how fast it went.
func (t *jobTable) done(j *plan.Job, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, was := t.mu.failed[j.Key]; was {
		delete(t.mu.failed, j.Key)
		t.mu.version++
	}
	t.mu.finished++
	if took <= 0 || j.InputBytes <= 0 {
		return
	}
	const weight = 0.2 // of the newest job
	speed := float64(j.InputBytes) / took.Seconds()
	if t.mu.perSec == 0 {
		t.mu.perSec = speed
	}
	t.mu.perSec += weight * (speed - t.mu.perSec)
}

// maxLast bounds how many successes are remembered.
const maxLast = 10_000

// again notes a success and tells whether the one before it, of a job of this
// key, came to the same results from the same inputs.
func (t *jobTable) again(j *plan.Job) bool {
	results := fmt.Sprint(len(j.Inputs))
	for _, m := range j.Inputs {
		results += " " + m.ULID.String()
	}
	for _, o := range j.Outputs {
		results += " " + o.Meta.ULID.String()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.mu.last[j.Key]
	if len(t.mu.last) >= maxLast {
		t.mu.last = map[string]string{}
	}
	t.mu.last[j.Key] = results
	return before == results
}

// fail postpones a job by pause, or longer when it failed before.
func (t *jobTable) fail(key string, err error, now time.Time, r float64) failure {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.mu.failed[key]
	f.Key, f.Tries, f.Reason = key, f.Tries+1, err.Error()
	f.Until = now.Add(backoff(f.Tries, jobRetry, jobMaxRetry, r))
	t.mu.failed[key] = f
	t.mu.version++
	return f
}

// rests tells whether a job failed, and isn't to be tried again yet.
func (t *jobTable) rests(key string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.failed[key].Until.After(now)
}

// keepFailures forgets the failures of jobs that are not due any more.
func (t *jobTable) keepFailures(due map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.mu.failed {
		if !due[key] {
			delete(t.mu.failed, key)
			t.mu.version++
		}
	}
}

// failing is how many jobs failed when last tried.
func (t *jobTable) failing() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.failed)
}

// keepHeld forgets which jobs others had that are not to be done any more.
func (t *jobTable) keepHeld(jobs []plan.Job) {
	due := make(map[string]bool, len(jobs))
	for i := range jobs {
		due[jobs[i].Key] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.mu.held, func(key string, _ heldJob) bool { return !due[key] })
}

// hold notes that somebody else does a job.
func (t *jobTable) hold(j *plan.Job, err *block.HeldError, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	again, seen := now.Add(heldRetry), time.Now()
	if before, ok := t.mu.held[j.Key]; ok {
		seen = before.seen
	}
	t.mu.held[j.Key] = heldJob{Key: j.Key, Owner: err.Owner, For: err.For, Since: err.Since, again: again, seen: seen}
	maps.DeleteFunc(t.mu.areas, func(_ string, until time.Time) bool { return now.After(until) })
	t.mu.areas[j.Area] = again
}

// atWork tells whether another worker, of ours or elsewhere, is at work in an
// area, as far as is known, or was a moment ago: it comes back for its next job.
func (t *jobTable) atWork(area string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.mu.running {
		if r.job.Area == area {
			return true
		}
	}
	return now.Before(t.mu.areas[area])
}

// others tells whether somebody else is at work in the bucket, or was a moment ago.
func (t *jobTable) others(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, until := range t.mu.areas {
		if now.Before(until) {
			return true
		}
	}
	return len(t.mu.held) > 0
}

// took notes how long a job took here. By the machine's clock, whatever Parts.Now
// says: pauses go by it.
func (t *jobTable) took(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.longest = max(t.mu.longest, d)
	t.mu.busy = time.Now()
}

// idleSince is when there was something to do last, but not before began.
func (t *jobTable) idleSince(began time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.busy.After(began) {
		return t.mu.busy
	}
	return began
}

// pause is how long who has nothing to do waits for a change: where others are at
// work, a part of what a job takes.
func (t *jobTable) pause(now time.Time) time.Duration {
	if !t.others(now) {
		return heldRetry
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	longest := t.mu.longest
	for _, h := range t.mu.held {
		longest = max(longest, time.Since(h.seen))
	}
	return min(max(longest/8, leastPause), t.most)
}

// patience is how long a pass that has nothing left to do waits for the jobs of
// others, which may leave it more: they take about as long as its own did. It is
// 0 where nobody has any.
func (t *jobTable) patience() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.mu.held {
		if h.Owner != "" {
			return 2 * t.mu.longest
		}
	}
	return 0
}

// heldElsewhere tells whether somebody else did a job a moment ago.
func (t *jobTable) heldElsewhere(key string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h, ok := t.mu.held[key]
	return ok && now.Before(h.again)
}

// knownHeld tells whether a job was somebody else's when last asked for.
func (t *jobTable) knownHeld(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.mu.held[key]
	return ok
}

// rate is how many bytes of inputs a worker gets through in a second; 0: unknown.
func (t *jobTable) rate() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.perSec
}

// finishedJobs is how many jobs were done here, or set a block aside.
func (t *jobTable) finishedJobs() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.finished
}

// idle tells whether no job runs here.
func (t *jobTable) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.running) == 0
}

// lists returns what runs, failed and is held, each sorted by key.
func (t *jobTable) lists() (running []*progress, failed []failure, held []heldJob) {
	t.mu.Lock()
	defer t.mu.Unlock()
	running = slices.SortedFunc(maps.Values(t.mu.running), func(a, b *progress) int { return cmp.Compare(a.job.Key, b.job.Key) })
	failed = slices.SortedFunc(maps.Values(t.mu.failed), func(a, b failure) int { return cmp.Compare(a.Key, b.Key) })
	held = slices.SortedFunc(maps.Values(t.mu.held), func(a, b heldJob) int { return cmp.Compare(a.Key, b.Key) })
	return running, failed, held
}

// runs tells whether one of the jobs that write a block runs here.
func (t *jobTable) runs(id ulid.ULID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.mu.running {
		if writes(p.job, id) {
			return true
		}
	}
	return false
}

// writes tells whether a block is one of a job's results.
func writes(j *plan.Job, id ulid.ULID) bool {
	return slices.ContainsFunc(j.Outputs, func(o plan.Output) bool { return o.Meta.ULID == id })
}

func shareInputs(a, b *plan.Job) bool {
	return slices.ContainsFunc(a.Inputs, func(m *block.Meta) bool {
		return slices.ContainsFunc(b.Inputs, func(n *block.Meta) bool { return m.ULID == n.ULID })
	})
}

// work does one job after the other until ctx is done.
func (c *Compactor) work(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.view.next() // before looking, so that nothing is missed meanwhile
		if a := c.nextJob(ctx); a != nil {
			_ = c.do(ctx, a) // it is noted
			continue
		}
		c.tryWriteClean(ctx)
		c.await(ctx, changed)
	}
}

// await waits for a change of what is known here and, where others are at work,
// looks for what they have done.
func (c *Compactor) await(ctx context.Context, changed <-chan struct{}) {
	known := c.view.get()
	select {
	case <-ctx.Done():
		return
	case <-changed:
		return
	case <-time.After(c.jobs.pause(c.now())):
	}
	if c.jobs.others(c.now()) {
		c.glance(ctx, func(s *snapshot) bool { return s == known })
	}
}

// nextJob claims the first job that is due and that nobody does; nil: there is none.
// After a failure it goes on with the plan that there is, for as long as that has
// jobs: thousands may fail, and planning anew after each would take all the time.
func (c *Compactor) nextJob(ctx context.Context) *attempt {
	c.catchUp(ctx)
	defer func() { c.metrics.failing.Set(float64(c.jobs.failing())) }()
	var before *planned
	for _, get := range []func() (*planned, error){c.planSoFar, c.plan} {
		p, err := get() // an error is logged, and told by the loops that plan, too
		if err != nil || p == nil || p == before || p.snap.fault != nil && errors.Is(p.snap.fault, errClocks) {
			return nil
		}
		if a := c.firstOf(ctx, p); a != nil {
			return a
		}
		before = p
	}
	return nil
}

// firstOf claims the first job of a plan that it can; nil: none.
func (c *Compactor) firstOf(ctx context.Context, p *planned) *attempt {
	c.jobs.keepHeld(p.Jobs)
	for j := range p.Apart(func(area string) bool { return c.jobs.atWork(area, c.now()) }) {
		if ctx.Err() != nil {
			return nil
		}
		if a := c.tryJob(ctx, p, j); a != nil {
			return a
		}
	}
	return nil
}

// catchUp looks at the bucket before its time, where a job has just ended and
// others are at work: what they have done since is not to be tried again, and
// gives rise to jobs that they may leave to us.
func (c *Compactor) catchUp(ctx context.Context) {
	if c.jobs.others(c.now()) {
		c.glance(ctx, func(s *snapshot) bool { return s.ended < c.ended.Load() })
	}
}

// tryJob claims a job; nil: not now.
func (c *Compactor) tryJob(ctx context.Context, p *planned, j *plan.Job) *attempt {
	if c.jobs.heldElsewhere(j.Key, c.now()) || c.jobs.rests(j.Key, c.now()) || !c.othersAtWork(p, j) {
		return nil
	}
	limit, err := c.roomFor(j)
	if err != nil {
		c.failed(j, err)
		return nil
	}
	a := c.newAttempt(p, j)
	if !c.jobs.start(j, a.progress, limit) {
		return nil
	}
	if c.foundClean(j) {
		c.jobs.stop(j)
		return nil
	}
	if a.claim, err = c.claims.acquire(ctx, j.Key, describe(j)); err == nil {
		return a
	}
	c.jobs.stop(j)
	var held *block.HeldError
	switch {
	case errors.As(err, &held):
		c.jobs.hold(j, held, c.now())
	case ctx.Err() == nil:
		c.failed(j, err)
	}
	return nil
}

// othersAtWork tells, for a job that closes a split, whether each of the other
// shards is there or being made, since it waits for them in the end.
func (c *Compactor) othersAtWork(p *planned, j *plan.Job) bool {
	for _, out := range j.Outputs {
		for _, id := range out.Others {
			if p.snap.Metas[id] == nil && !c.jobs.runs(id) && !c.madeElsewhere(p, id) {
				return false
			}
		}
	}
	return true
}

// madeElsewhere tells whether another worker has claimed the job that writes a block.
func (c *Compactor) madeElsewhere(p *planned, id ulid.ULID) bool {
	return slices.ContainsFunc(p.Jobs, func(j plan.Job) bool {
		return c.jobs.knownHeld(j.Key) && writes(&j, id)
	})
}

// errRoom tells that a job needs more than it may have.
var errRoom = errors.New("job is left out")

// roomFor compares what a job may take on disk with what there is, and returns
// what all running jobs together may take.
func (c *Compactor) roomFor(j *plan.Job) (limit int64, err error) {
	free, err := freeBytes(c.dir.jobs())
	if err != nil {
		return 0, err
	}
	used, err := usedBytes(c.dir.jobs())
	if err != nil {
		return 0, err
	}
	c.metrics.diskFree.Set(float64(free))
	limit = max(free, free+used) // the second overflows where free is unknown
	what := fmt.Sprintf("%s has %s free", c.dir.jobs(), size(limit))
	if most := int64(min(uint64(c.cfg.DiskLimit), math.MaxInt64)); most > 0 && most < limit {
		limit, what = most, fmt.Sprintf("--compact.disk is %s", size(most))
	}
	if j.DiskBytes > limit {
		return 0, fmt.Errorf("%w: its results may take %s of disk, and %s", errRoom, size(j.DiskBytes), what)
	}
	return limit, nil
}

// failed postpones a job and says why.
func (c *Compactor) failed(j *plan.Job, err error) {
	f := c.jobs.fail(j.Key, err, c.now(), c.rand())
	c.metrics.jobFailures.WithLabelValues(string(j.Kind)).Inc()
	c.log.Warn("job failed; it is tried again, all others go on", "job", j.Key, "kind", j.Kind, "group", j.Group, "err", err, "tries", f.Tries, "again", f.Until)
	c.view.tell()
}

// describe says what a job does, for others.
func describe(j *plan.Job) string {
	return fmt.Sprintf("%s %s of %d blocks, %s to %s", j.Kind, j.Labels, len(j.Inputs), day(j.MinTime), day(j.MaxTime))
}

func day(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04") }
