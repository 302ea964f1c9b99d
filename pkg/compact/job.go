package compact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// attempt is one try at a job, under a claim:
//
//	claim ─► look at the inputs again ─► merge ─► for each result: upload, read back, meta.json ─► mark the inputs ─► release
//
// It may be cut off, or sleep for hours, between any two of these and go on: the
// results have the same names and bytes as anybody else's, and inputs are marked
// only after another look at what replaces them.
type attempt struct {
	*Compactor
	known    *planned
	job      *plan.Job
	claim    *claim
	dir      string // of its own, for results
	progress *progress
	log      *slog.Logger
	// noted: what it has found is in the delete requests soon. Its claim is not
	// given up, but lapses, so that no other finds it out meanwhile.
	noted bool
}

// releaseTimeout bounds giving up a claim when the process is told to stop.
const releaseTimeout = 10 * time.Second

// What is no failure of a job.
var (
	errStale  = errors.New("the blocks have changed since the job was planned")
	errGone   = errors.New("it was removed since the job was planned")
	errOthers = errors.New("another shard is not being made at the moment")
)

// errAgain is a job that was done and then planned once more, the same as before.
// It would be for ever: it is tried again seldom, until something else changes.
var errAgain = errors.New("the job was done before, and the bucket looks as if it was not")

func (c *Compactor) newAttempt(p *planned, j *plan.Job) *attempt {
	return &attempt{
		Compactor: c, known: p, job: j, progress: newProgress(j, c.now()),
		dir: filepath.Join(c.dir.jobs(), claimName(j.Key)),
		log: c.log.With("job", j.Key, "kind", j.Kind, "group", j.Group),
	}
}

// do runs an attempt, gives its claim and disk back, and takes note of how it
// went. Who only wants to go on with the next job needs no look at the error.
func (c *Compactor) do(ctx context.Context, a *attempt) error {
	began, clock := c.now(), time.Now()
	a.log.Info("job begins", "inputs", len(a.job.Inputs), "bytes", a.job.InputBytes, "why", a.job.Why)
	err := a.claim.during(ctx, a.guarded)
	if gone := os.RemoveAll(a.dir); gone != nil {
		a.log.Warn("results of a job stay on disk until the next start", "err", gone)
	}
	if err != nil || !a.noted {
		a.giveUp(ctx)
	}
	c.jobs.stop(a.job)
	c.jobs.took(time.Since(clock))
	c.ended.Add(1)
	c.note(ctx, a, err)
	c.metrics.jobSeconds.WithLabelValues(string(a.job.Kind)).Observe(c.now().Sub(began).Seconds())
	c.wantLook()
	return err
}

// giveUp gives the claim up, even when we are told to stop: nobody should have to
// wait for it to lapse.
func (a *attempt) giveUp(ctx context.Context) {
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := a.claim.release(release); err != nil {
		a.log.Warn("claim is not given up; it will lapse", "err", err)
	}
}

// note takes note of how an attempt went.
func (c *Compactor) note(ctx context.Context, a *attempt, err error) {
	took := c.now().Sub(a.progress.started)
	switch {
	case err == nil && c.jobs.again(a.job):
		c.failed(a.job, errAgain)
		return
	case err == nil:
		c.jobs.done(a.job, took)
		c.metrics.jobs.WithLabelValues(string(a.job.Kind)).Inc()
		c.metrics.jobSuccess.Set(float64(c.now().Unix()))
		a.log.Info("job is done", "duration", took.Round(time.Millisecond),
			"results", a.resultIDs(), "read", size(a.progress.read.Load()), "sent", size(a.progress.sent.Load()))
	case ctx.Err() != nil:
		a.log.Info("job is cut off; whoever takes it up goes on", "err", err)
	case errors.Is(err, errSetAside): // planned again without the block, at once
	case errors.Is(err, errGone): // likewise: our view lacks it by now
		a.log.Info("job is planned anew", "err", err)
	case errors.Is(err, errStale), errors.Is(err, errOthers), errors.Is(err, block.ErrLeaseLost):
		c.jobs.hold(a.job, &block.HeldError{For: err.Error(), Since: c.now()}, c.now())
		a.log.Info("job is left for now", "err", err)
	default:
		c.failed(a.job, err)
		return
	}
	c.view.tell()
}

// resultIDs names the blocks that a job writes, those that come out empty too.
func (a *attempt) resultIDs() []string {
	var out []string
	for _, o := range a.job.Outputs {
		out = append(out, o.Meta.ULID.String())
	}
	return out
}

// guarded runs the attempt and makes an error of a panic: a block that nobody
// has thought of must not end the process.
func (a *attempt) guarded(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.metrics.panics.Inc()
			a.log.Error("job panicked; please report it", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	err = a.run(ctx)
	var bad *input.Error
	if errors.As(err, &bad) && (errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrUnknownVersion) || a.lacks(ctx, bad)) {
		return a.setAside(ctx, bad)
	}
	if bad != nil && a.bkt.IsObjNotFoundErr(bad.Err) && a.view.get().Metas[bad.Block] == nil {
		return fmt.Errorf("%w: %w", errGone, bad)
	}
	return err
}

// lacks tells whether an input could not be read because some of its objects
// are gone, though the block is still visible. One that is being removed is not:
// its meta.json goes first.
func (a *attempt) lacks(ctx context.Context, bad *input.Error) bool {
	if ctx.Err() != nil || !a.bkt.IsObjNotFoundErr(bad.Err) {
		return false
	}
	live, err := a.live(ctx, bad.Block)
	if err != nil || !live {
		return false
	}
	m, err := block.FetchMeta(ctx, a.bkt, bad.Block)
	if err != nil {
		return false
	}
	err = block.VerifyRemote(ctx, a.bkt, m)
	return err != nil && (wrong(err) || a.bkt.IsObjNotFoundErr(err))
}

func (a *attempt) run(ctx context.Context) error {
	if err := a.point(ctx, pointClaimed, a.job.Key); err != nil {
		return err
	}
	if err := a.reread(ctx); err != nil {
		return err
	}
	if err := a.point(ctx, pointReread, a.job.Key); err != nil {
		return err
	}
	if a.job.Kind == plan.Rewrite {
		needed, err := a.needed(ctx)
		if err != nil || !needed {
			return err
		}
	}
	there, err := a.produce(ctx)
	if err != nil {
		return err
	}
	if a.job.Replaces {
		if err := a.replace(ctx, there); err != nil {
			return err
		}
	}
	return a.point(ctx, pointRelease, a.job.Key)
}

// replace marks the inputs. Where it takes all shards of a split to replace them
// these must be there, even if the one that we were to write has no series.
func (a *attempt) replace(ctx context.Context, results []ulid.ULID) error {
	for _, out := range a.job.Outputs {
		if !out.Closes {
			continue
		}
		if err := a.awaitShards(ctx, out.Others); err != nil {
			return err
		}
		if !slices.Contains(results, out.Meta.ULID) {
			if err := a.coveredWithoutClosing(out); err != nil {
				return err
			}
		}
		results = append(results, out.Others...)
	}
	return a.markInputs(ctx, results)
}

// coveredWithoutClosing remembers of the finer blocks that what is split was made
// from that they have nothing more for it: the shards that are there hold all of
// that, and the closing one, which would tell so, had no series. Without that they
// would be brought to the coarser tier, and that be split, again and again.
func (a *attempt) coveredWithoutClosing(out plan.Output) error {
	split := map[ulid.ULID]bool{}
	for _, m := range a.job.Inputs {
		for _, s := range m.Compaction.Sources {
			split[s] = true
		}
	}
	var keys []string
	for _, m := range a.known.snap.Metas {
		missing := func(s ulid.ULID) bool { return !split[s] }
		if m.Resolution() < out.Meta.Resolution() && !slices.ContainsFunc(m.Compaction.Sources, missing) {
			keys = append(keys, plan.EmptyKey(m.ULID, out.Meta.Resolution()))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return a.finds.add(a.known.snap.Metas, keys...)
}

// produce sees to it that all results are in the bucket, and says which there are.
func (a *attempt) produce(ctx context.Context) ([]ulid.ULID, error) {
	if !a.job.Around.IsZero() && !a.cantCopy.Load() {
		around := *a
		job, err := a.job.AsAround()
		if err != nil {
			return nil, err
		}
		around.job = &job
		there, err := around.write(ctx, around.mergeIndexes)
		// Segments that came out wrong may have been so before: whoever reads them finds out whose.
		copied := wrong(err) && !errors.As(err, new(*input.Error))
		if ctx.Err() != nil || !copied && !errors.Is(err, merge.ErrOverlap) && !errors.Is(err, block.ErrNotCopied) {
			return there, err
		}
		a.cantCopy.Store(errors.Is(err, errors.ErrUnsupported))
		a.log.Info("segments can't be copied within the bucket and are merged here", "err", err)
	}
	return a.write(ctx, a.merge)
}

// write makes the results that are not in the bucket already.
func (a *attempt) write(ctx context.Context, by func(context.Context, merging) ([]made, error)) ([]ulid.ULID, error) {
	there, todo, err := a.results(ctx)
	if err != nil || len(todo) == 0 {
		return there, err
	}
	results, err := a.overInputs(ctx, todo, by)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		id, err := a.publish(ctx, r)
		if err != nil {
			return nil, err
		}
		there = append(there, id)
	}
	return there, nil
}

// reread looks at the inputs again: the plan may be minutes old.
func (a *attempt) reread(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, m := range a.job.Inputs {
		g.Go(func() error {
			live, err := a.live(ctx, m.ULID)
			if err != nil {
				return err
			}
			if !live && a.view.get().Metas[m.ULID] == nil {
				return fmt.Errorf("input %s: %w", m.ULID, errGone)
			}
			if !live {
				return fmt.Errorf("input %s is gone or marked: %w", m.ULID, errStale)
			}
			return nil
		})
	}
	return g.Wait()
}

// live tells whether a block is visible and not marked for deletion. What it
// finds out against our view it notes there.
func (c *Compactor) live(ctx context.Context, id ulid.ULID) (bool, error) {
	visible, err := c.bkt.Exists(ctx, block.Name(id, block.MetaFilename))
	if err != nil {
		return false, fmt.Errorf("block %s: look for meta.json: %w", id, err)
	}
	snap := c.view.get()
	known := snap != nil && snap.Metas[id] != nil
	if !visible {
		if known {
			c.view.add(c.now(), block.Change{Block: id, Removed: true})
			c.fetcher.Suspect(id) // the manifest is put right
		}
		return false, nil
	}
	mark, err := block.ReadDeletionMark(ctx, c.bkt, id)
	if errors.Is(err, block.ErrNoMark) {
		return true, nil
	}
	if err != nil && !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, block.ErrUnknownVersion) {
		return false, err
	}
	if mark == nil {
		mark = &block.DeletionMark{ID: id} // one that can't be read keeps hands off all the same
	}
	if known && snap.Marks[id].Deletion == nil {
		c.view.add(c.now(), snap.marked(id, mark))
	}
	return false, nil
}

// results finds out which results are in the bucket already, from an earlier try
// or another worker's. One that does not stand up to being read back is removed.
func (a *attempt) results(ctx context.Context) (there []ulid.ULID, todo []plan.Output, err error) {
	for _, out := range a.job.Outputs {
		id := out.Meta.ULID
		live, err := a.live(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if !live {
			todo = append(todo, out)
			continue
		}
		m, err := block.FetchMeta(ctx, a.bkt, id)
		if err == nil {
			err = block.VerifyRemote(ctx, a.bkt, m)
		}
		switch {
		case err == nil:
			there = append(there, id)
			a.announce(ctx, block.Change{Block: id, Meta: m})
		case wrong(err):
			a.log.Warn("a result that is there already can't be used; it is made anew", "block", id, "err", err)
			if err := a.discard(ctx, id); err != nil {
				return nil, nil, err
			}
			todo = append(todo, out)
		default:
			return nil, nil, err
		}
	}
	return there, todo, nil
}

// wrong tells an error that is about the bytes of a block from one of reading them.
func wrong(err error) bool {
	return errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrNotVerified) || errors.Is(err, block.ErrUnknownVersion)
}

// discard removes a result that is not what it should be. Its inputs are still
// there, unmarked, which is looked at once more; should a sleeping worker mark
// them after that because of this result, cleaning keeps them (uncovered).
func (a *attempt) discard(ctx context.Context, id ulid.ULID) error {
	if err := errors.Join(a.claim.check(ctx), a.reread(ctx)); err != nil {
		return err
	}
	a.metrics.discarded.Inc()
	if err := block.Delete(ctx, a.bkt, id); err != nil {
		return err
	}
	a.announce(ctx, block.Change{Block: id, Removed: true})
	return nil
}

// errSetAside tells that a block was set aside; the job is planned anew without it.
var errSetAside = errors.New("block is set aside")

// setAside keeps a block that can't be read out of compaction.
func (a *attempt) setAside(ctx context.Context, bad *input.Error) error {
	if err := a.point(ctx, pointSetAside, bad.Block.String()); err != nil {
		return err
	}
	mark := block.NoCompactMark{ID: bad.Block, Details: plan.DetailsBad + bad.Error(), NoCompactTime: a.clock.now().Unix(), Reason: block.ReasonManual}
	// One that is there already doesn't say so: that of every shard, or an operator's.
	switch before, err := block.ReadNoCompactMark(ctx, a.bkt, bad.Block); {
	case err == nil:
		mark.Details, mark.Reason = mark.Details+"; before that: "+before.Details, before.Reason
	case !errors.Is(err, block.ErrNoMark) && !wrong(err):
		return errors.Join(bad, err)
	}
	if err := block.ReplaceNoCompactMark(ctx, a.bkt, mark); err != nil {
		return errors.Join(bad, err)
	}
	a.metrics.setAside.Inc()
	a.log.Error("block can't be read and is set aside; all others go on. Restore it, or mark it for deletion, and then remove its "+block.NoCompactMarkFilename,
		"block", bad.Block, "err", bad.Err)
	marks := a.known.snap.Marks[bad.Block]
	marks.NoCompact = &mark
	a.announce(ctx, block.Change{Block: bad.Block, Marks: &marks})
	return fmt.Errorf("%w: %w", errSetAside, bad)
}
