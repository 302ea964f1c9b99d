package compact

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// made is a result on disk.
type made struct {
	plan.Output
	dir     string
	content *block.Content // what is in dir
	around  []block.Copied // segments that are in the bucket already
}

// publish makes a result visible in the bucket: upload, read back, mark against
// other compactors, and only then meta.json.
func (a *attempt) publish(ctx context.Context, r made) (ulid.ULID, error) {
	id := r.Meta.ULID
	a.progress.at(stageUpload)
	up := block.Uploader{
		Bucket: a.bkt, Concurrency: a.cfg.FilesConcurrency, HashFunc: a.cfg.HashFunc, Now: a.clock.now,
		Fault:      func(step string) error { return a.point(ctx, uploadPoint(step), id.String()) },
		Sent:       func(n int64) { a.progress.sent.Add(n) },
		BeforeMeta: func(ctx context.Context, m *block.Meta) error { return a.beforeMeta(ctx, r, m) },
	}
	sent, err := up.UploadWritten(ctx, r.dir, r.Meta, r.content, r.around...)
	if err != nil {
		return id, err
	}
	change := []block.Change{{Block: id, Meta: sent.Meta}}
	if r.NoCompact {
		change = append(change, block.Change{Block: id, Marks: &block.Marks{NoCompact: a.shardMark(id)}})
	}
	a.announce(ctx, change...)
	a.metrics.written.WithLabelValues(resolutionName(sent.Meta.Resolution())).Add(float64(sent.Meta.SizeBytes()))
	return id, a.point(ctx, pointUploaded, id.String())
}

// beforeMeta does what must be done before a result is visible.
func (a *attempt) beforeMeta(ctx context.Context, r made, m *block.Meta) error {
	a.progress.at(stageVerify)
	if err := block.VerifyRemote(ctx, a.bkt, m); err != nil {
		a.metrics.unverified.Inc()
		if wrong(err) { // what is there has the right size, so that it would never be sent again
			return errors.Join(err, a.discard(ctx, m.ULID))
		}
		return err
	}
	if err := a.point(ctx, pointReadBack, m.ULID.String()); err != nil {
		return err
	}
	if r.NoCompact {
		if err := block.WriteNoCompactMark(ctx, a.bkt, *a.shardMark(m.ULID)); err != nil {
			return err
		}
	}
	if r.Closes {
		if err := a.awaitShards(ctx, r.Others); err != nil {
			return err
		}
		if m.Resolution() == a.job.Resolution { // coarser ones have the same edges, and hide no inputs
			if err := a.closes(ctx, m, r.Others); err != nil {
				return err
			}
		}
	}
	if err := a.claim.check(ctx); err != nil {
		return err
	}
	return a.point(ctx, pointBeforeMeta, m.ULID.String())
}

func (a *attempt) shardMark(id ulid.ULID) *block.NoCompactMark {
	return &block.NoCompactMark{ID: id, Version: 1, Details: plan.DetailsShard, NoCompactTime: a.clock.now().Unix(), Reason: block.ReasonManual}
}

// awaitShards waits until the other shards of a split are visible, which they
// are only after they have been verified. It gives up when nobody makes one.
func (a *attempt) awaitShards(ctx context.Context, others []ulid.ULID) error {
	a.progress.at(stageWait)
	for {
		changed := a.view.next()
		missing, err := a.missing(ctx, others)
		if err != nil || missing.IsZero() {
			return err
		}
		if !a.jobs.runs(missing) && !a.claimedElsewhere(ctx, missing) {
			return fmt.Errorf("shard %s: %w", missing, errOthers)
		}
		if !sleep(ctx, heldRetry/4, changed) {
			return ctx.Err()
		}
	}
}

// closes makes sure that a shard and the others of its split hold, side by side, all
// that was split, before it hides that. They may have been made by other versions
// of this program.
func (a *attempt) closes(ctx context.Context, closing *block.Meta, others []ulid.ULID) error {
	set := []*block.Meta{closing}
	for _, id := range others {
		m, err := block.FetchMeta(ctx, a.bkt, id)
		if err != nil {
			return err
		}
		set = append(set, m)
	}
	shard, err := shardOf(closing)
	if err != nil {
		return err
	}
	return whole(set, shard.Within)
}

// missing returns one of the blocks that is not visible, or marked; zero: all are there.
func (a *attempt) missing(ctx context.Context, ids []ulid.ULID) (ulid.ULID, error) {
	for _, id := range ids {
		live, err := a.live(ctx, id)
		if err != nil || !live {
			return id, err
		}
	}
	return ulid.ULID{}, nil
}

// claimedElsewhere tells whether another worker has the claim on the job that
// writes a block. If it has not, the claim that we got by asking is given back.
func (a *attempt) claimedElsewhere(ctx context.Context, id ulid.ULID) bool {
	for i := range a.known.Jobs {
		j := &a.known.Jobs[i]
		if !writes(j, id) {
			continue
		}
		claim, err := a.claims.acquire(ctx, j.Key, describe(j))
		if err != nil {
			return errors.As(err, new(*block.HeldError))
		}
		if err := claim.release(ctx); err != nil {
			a.log.Warn("claim is not given up; it will lapse", "err", err)
		}
		return false
	}
	return false
}

// dirOf is where a job writes one of its results.
func (a *attempt) dirOf(id ulid.ULID) string { return filepath.Join(a.dir, id.String()) }
