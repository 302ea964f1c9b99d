package compact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// readDeletes reads the delete requests. One that can't be used holds up
// nothing: it is logged, and what it asks for is not done.
func readDeletes(ctx context.Context, reader *block.DeleteReader, bkt block.Bucket, log *slog.Logger) ([]*block.DeleteRequest, error) {
	all, err := reader.List(ctx, bkt)
	if err != nil && (errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrUnknownVersion)) {
		log.Warn("delete requests can't be read; they are left alone", "err", err)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read delete requests: %w", err)
	}
	return all, nil
}

// closeDeletes sets the requests to done that no block needs any more.
func (c *Compactor) closeDeletes(ctx context.Context) error {
	p, err := c.plan()
	if p == nil || !p.snap.sound() {
		return err // no block may be missing from the view
	}
	var errs []error
	for _, id := range p.DeletesDone {
		if err := c.point(ctx, pointDeletesDone, id.String()); err != nil {
			return err
		}
		if err := c.stripNotes(ctx, p.snap.View, id, p.snap.deletes); err != nil {
			errs = append(errs, fmt.Errorf("delete request %s: %w", id, err))
			continue
		}
		err := block.UpdateDelete(ctx, c.bkt, id, func(r *block.DeleteRequest) error {
			if r.State == block.DeletePending {
				r.State, r.Finished = block.DeleteDone, c.clock.now().UTC()
			}
			return nil
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.log.Info("delete request is done: its samples are in no block any more", "request", id)
		c.wantLook()
	}
	return errors.Join(errs...)
}

// removal is what a job takes out of its inputs.
type removal struct {
	external labels.Labels
	hider    *block.Hider
	job      *plan.Job
}

func newRemoval(j *plan.Job) (*removal, error) {
	hider, err := block.NewHider(j.Deletes...)
	if err != nil {
		return nil, err
	}
	return &removal{external: j.Labels, hider: hider.For(j.MinTime, j.MaxTime-1, j.Labels), job: j}, nil
}

// nothing tells whether there is nothing to take out of any series.
func (r *removal) nothing() bool { return r.hider == nil && len(r.job.Expired) == 0 }

// full returns a series' labels with the external ones, which override its own.
func (r *removal) full(lset labels.Labels) labels.Labels {
	b := labels.NewBuilder(lset)
	r.external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

// looked is what of a job's deletes and classes a block was found to hold.
type looked struct {
	deletes []ulid.ULID // requests without a sample in the block
	classes []string    // classes without a series in the block
	found   bool        // anything else
}

// needed looks through the inputs of a job that only takes samples out, and
// tells whether there are any. Where there are none that is written down, so
// that nobody looks again, and the blocks stay as they are.
func (a *attempt) needed(ctx context.Context) (bool, error) {
	a.progress.at(stageLook)
	var keys []string
	for _, m := range a.job.Inputs {
		l, err := a.lookInto(ctx, m)
		if err != nil {
			return false, err
		}
		if l.found {
			return true, nil
		}
		for _, class := range l.classes {
			keys = append(keys, plan.ClassKey(m.ULID, class))
		}
		if len(l.deletes) > 0 {
			a.noted = true
			a.noteClean(m.ULID, l.deletes)
		}
	}
	a.writeCleanIfDue(ctx)
	a.log.Info("nothing is to be taken out of the blocks; they stay")
	if len(keys) == 0 {
		return false, nil
	}
	return false, a.finds.add(a.known.snap.Metas, keys...)
}

// lookInto reads a block's index until each of the job's deletes and classes has
// been found in it, or to the end.
func (a *attempt) lookInto(ctx context.Context, m *block.Meta) (looked, error) {
	window, err := a.window()
	if err != nil {
		return looked{}, err
	}
	in, err := input.Open(ctx, a.bkt, m, input.Config{WindowBytes: window})
	if err != nil {
		return looked{}, err
	}
	defer in.Close()
	names, err := readNames(ctx, in)
	if err != nil {
		return looked{}, err
	}
	r, err := newRemoval(a.job)
	if err != nil {
		return looked{}, err
	}
	return r.search(func() (labels.Labels, *input.Series, error) {
		s, err := in.Next(ctx)
		if err != nil {
			return labels.EmptyLabels(), nil, err
		}
		return names.labels(s), s, nil
	})
}

// search goes through the series that next returns, until io.EOF. A single find
// will do: the block must be written anew then.
func (r *removal) search(next func() (labels.Labels, *input.Series, error)) (looked, error) {
	for {
		lset, s, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return looked{}, err
		}
		full := r.full(lset)
		for _, class := range r.job.Expired {
			if class.Matches(full) {
				return looked{found: true}, nil
			}
		}
		for _, cut := range r.hider.Intervals(full) {
			for _, c := range s.Chunks {
				if c.MinTime-r.job.Resolution <= cut.Maxt && cut.Mint <= c.MaxTime { // Thanos' chunks begin at the end of their first window
					return looked{found: true}, nil
				}
			}
		}
	}
	var out looked
	for _, class := range r.job.Expired {
		out.classes = append(out.classes, class.Name)
	}
	for _, d := range r.job.Deletes {
		out.deletes = append(out.deletes, d.ID)
	}
	return out, nil
}
