package compact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
)

// leastOrphaned bounds the delete delay from below, for notes: one is there
// before its block can be seen.
const leastOrphaned = 24 * time.Hour

// orphans are the notes that no block names as a source, and since when that has
// been seen, by the bucket's clock. A file of the data folder keeps them, since a
// pass may be all that a process makes; without it the wait begins anew. Of the
// cleaning loop alone.
type orphans struct {
	path  string
	since map[ulid.ULID]time.Time
}

func readOrphans(dir string) (*orphans, error) {
	o := &orphans{path: filepath.Join(dir, "orphans.json"), since: map[ulid.ULID]time.Time{}}
	data, err := os.ReadFile(o.path)
	if errors.Is(err, os.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if json.Unmarshal(data, &o.since) != nil || o.since == nil { // a torn file is an empty one
		o.since = map[ulid.ULID]time.Time{}
	}
	return o, nil
}

// update takes note of what a listing showed, and returns the notes to be
// removed: those that nobody has named for delay and that are older than that
// themselves. It reads nothing and can't fail.
func (o *orphans) update(listed []notes.Entry, named map[ulid.ULID]bool, now time.Time, delay time.Duration) (remove []ulid.ULID) {
	next := map[ulid.ULID]time.Time{}
	for _, e := range listed {
		if named[e.Block] {
			continue
		}
		since, known := o.since[e.Block]
		if !known || since.After(now) {
			since = now
		}
		next[e.Block] = since
		if now.Sub(since) >= delay && now.Sub(e.LastModified) >= delay {
			remove = append(remove, e.Block)
		}
	}
	o.since = next
	return remove
}

// namedSources are the blocks of level 1 whose notes are to stay: all that any
// block in the bucket names, marked or left out of our work though it be, and
// those on their way in or out. The error tells why nobody can know.
func namedSources(v block.View) (map[ulid.ULID]bool, error) {
	if len(v.Metas)+len(v.LeftOut) == 0 {
		return nil, errors.New("the bucket shows no blocks")
	}
	for id, err := range v.Problems {
		return nil, fmt.Errorf("block %s can't be read: %w", id, err)
	}
	named := map[ulid.ULID]bool{}
	for id := range v.Partial {
		named[id] = true
	}
	for _, metas := range []map[ulid.ULID]*block.Meta{v.Metas, v.LeftOut} {
		for id, m := range metas {
			named[id] = true
			sources, err := m.Origins()
			if err != nil {
				return nil, err
			}
			for _, s := range sources {
				named[s] = true
			}
		}
	}
	return named, nil
}

// cleanNotes removes the notes of blocks of which nothing is left. It lists them all.
func (c *Compactor) cleanNotes(ctx context.Context, v block.View) error {
	named, err := namedSources(v)
	if err != nil {
		c.log.Info("no notes are removed, since nobody can tell which are needed", "why", err)
		return nil
	}
	var listed []notes.Entry
	if err := notes.List(ctx, c.bkt, func(e notes.Entry) { listed = append(listed, e) }); err != nil {
		return err
	}
	var errs []error
	delay := max(time.Duration(c.cfg.DeleteDelay), leastOrphaned)
	for _, id := range c.orphans.update(listed, named, c.clock.now(), delay) {
		if err := notes.Remove(ctx, c.bkt, id); err != nil {
			errs = append(errs, err)
			continue
		}
		c.metrics.notesRemoved.Inc()
		delete(c.orphans.since, id)
	}
	c.metrics.notesOrphaned.Set(float64(len(c.orphans.since)))
	data, err := json.Marshal(c.orphans.since)
	if err == nil {
		err = block.WriteFile(c.orphans.path, data)
	}
	return block.FirstError(append(errs, err))
}
