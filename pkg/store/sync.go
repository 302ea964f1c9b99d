package store

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
)

// view is what queries see: the blocks as the last look left them. It never changes.
type view struct {
	blocks []*loaded
	groups []group // by external labels
}

// group are the blocks of the same external labels, whatever their resolution.
type group struct {
	labels labels.Labels
	blocks []*loaded // by time
}

func newView(blocks map[ulid.ULID]*loaded) *view {
	v := &view{}
	at := map[string]int{}
	for _, l := range blocks {
		v.blocks = append(v.blocks, l)
	}
	slices.SortFunc(v.blocks, func(a, b *loaded) int { return byTime(a.candidate(), b.candidate()) })
	for _, l := range v.blocks {
		key := l.labels.String()
		i, ok := at[key]
		if !ok {
			i = len(v.groups)
			at[key] = i
			v.groups = append(v.groups, group{labels: l.labels})
		}
		v.groups[i].blocks = append(v.groups[i].blocks, l)
	}
	slices.SortFunc(v.groups, func(a, b group) int { return labels.Compare(a.labels, b.labels) })
	return v
}

// startTries is how many first looks may fail before a Store starts with the
// blocks that it does know.
const startTries = 3

// sync brings the blocks up to date with the bucket. A block that can't be
// prepared doesn't stop the others: it stays, and queries that need it say so.
func (s *Store) sync(ctx context.Context) (err error) {
	began := time.Now()
	s.metrics.syncs.Inc()
	defer func() {
		s.metrics.syncSeconds.Observe(time.Since(began).Seconds())
		if err != nil {
			s.metrics.syncFailures.Inc()
		}
		s.progress.mu.Lock()
		s.progress.mu.err = err
		s.progress.mu.Unlock()
	}()
	asked := map[ulid.ULID]bool{}
	s.suspectMore(asked)
	found, fetchErr := s.fetcher.Fetch(ctx)
	s.byManifest = found.FromManifest
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fetchErr != nil && s.view.Load() == nil {
		// Start with a whole view if one can be had soon, and else with what
		// there is: an object that can't be read must not keep us down.
		if s.failedLooks++; s.failedLooks < startTries || len(found.Metas) == 0 {
			return fetchErr
		}
	}
	if err := s.knowDeletes(ctx); err != nil {
		return err
	}
	metas := s.loadNeeded(ctx, found.Metas)
	if s.suspectMore(asked) { // of a block that is new to us something is missing
		found, fetchErr = s.fetcher.Fetch(ctx)
		metas = s.loadNeeded(ctx, found.Metas)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	dropped := s.absent(metas)
	s.keepIncomplete(found.Metas, dropped)
	maps.DeleteFunc(s.known, func(id ulid.ULID, _ string) bool { return found.Metas[id] == nil })
	first := s.view.Swap(newView(s.blocks)) == nil
	// Only now: queries that begin from here on don't see them any more.
	for _, l := range dropped {
		l.drop(s.log)
		s.metrics.drops.Inc()
	}
	if first && fetchErr == nil {
		s.removeStrangers(found)
	}
	for id := range asked {
		if l := s.blocks[id]; l != nil {
			l.setAsked()
		}
	}
	s.metrics.blocksLoaded.Set(float64(len(s.blocks)))
	return fetchErr
}

// load adds the blocks that are new, several at once, and tries those that are
// broken again but for the ones that this look has tried.
func (s *Store) load(ctx context.Context, metas map[ulid.ULID]*block.Meta, tried map[ulid.ULID]bool) {
	type result struct {
		id ulid.ULID
		l  *loaded
	}
	var todo []*block.Meta
	for id, m := range metas {
		if l := s.blocks[id]; l == nil || l.broken() != nil && !tried[id] {
			todo = append(todo, m)
		}
	}
	p := &s.progress.mu
	p.Lock()
	p.done, p.total = 0, len(todo)
	p.Unlock()

	results := make([]result, len(todo))
	var g errgroup.Group // without a shared context: one bad block must not stop the others
	g.SetLimit(s.cfg.SyncConcurrency)
	for i, m := range todo {
		old := s.blocks[m.ULID]
		g.Go(func() error {
			results[i] = result{m.ULID, s.loadOne(ctx, m, old)}
			p.Lock()
			p.done++
			p.Unlock()
			return nil
		})
	}
	_ = g.Wait() // loadOne has no error: it logs and takes note
	for _, r := range results {
		if s.blocks[r.id] == nil {
			s.metrics.loads.Inc()
		}
		s.blocks[r.id] = r.l
	}
}

// knowDeletes makes sure that the delete requests are known before any block is
// shown; from then on the watcher keeps up with them.
func (s *Store) knowDeletes(ctx context.Context) error {
	if s.deletes.Ready() == nil {
		return nil
	}
	return s.deletes.Look(ctx)
}

// loadOne prepares a block; old is what is known of it, or nil.
func (s *Store) loadOne(ctx context.Context, m *block.Meta, old *loaded) *loaded {
	l := old
	if l == nil || l.header == nil {
		var err error
		if l, err = s.newLoaded(ctx, m); err != nil {
			s.metrics.loadFailures.Inc()
			return s.newBroken(m, err)
		}
		if err := s.incomplete[m.ULID]; err != nil {
			l.note(err, s.now())
		}
		if s.cfg.HeaderDownload == HeaderLazy {
			return l
		}
	}
	if err := l.prepare(ctx, s.now()); err != nil && ctx.Err() == nil {
		s.metrics.loadFailures.Inc()
	}
	return l
}

// noteBroken counts those of metas that can't be read and logs each once.
func (s *Store) noteBroken(metas map[ulid.ULID]*block.Meta) {
	broken := 0
	for id, l := range s.blocks {
		err := l.broken()
		if err == nil || metas[id] == nil {
			continue
		}
		broken++
		if s.known[id] != err.Error() {
			s.known[id] = err.Error()
			s.log.Warn("block can't be read; queries that need it fail or warn", "block", id, "err", err)
		}
	}
	s.metrics.blocksBroken.Set(float64(broken))
}

// absent takes the blocks that are not in metas out of s.blocks and returns them.
func (s *Store) absent(metas map[ulid.ULID]*block.Meta) (out []*loaded) {
	for id, l := range s.blocks {
		if metas[id] == nil {
			out = append(out, l)
			delete(s.blocks, id)
		}
	}
	return out
}

// removeStrangers removes local folders of blocks that an earlier process had
// and nobody needs any more.
func (s *Store) removeStrangers(found block.View) {
	entries, err := os.ReadDir(s.cfg.DataDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("data folder can't be listed", "err", err)
	}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok || !e.IsDir() || found.Metas[id] != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.cfg.DataDir, e.Name())); err != nil {
			s.log.Warn("local folder of an absent block stays", "block", id, "err", err)
		}
	}
}

// dropAll unloads all headers but those that a query still uses, and keeps what
// is on disk for the next start.
func (s *Store) dropAll() {
	for id, l := range s.blocks {
		l.unloadIdle(s.now().Add(time.Hour))
		delete(s.blocks, id)
	}
}
