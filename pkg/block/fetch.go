package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/relabel"
)

// Fetcher keeps track of the blocks in a bucket, in one of two ways.
//
// By the manifest (fetchmanifest.go): a pass costs one conditional GET, one
// listing of what was announced since, and one GET for each announcement that is
// new, however many blocks there are.
//
// By a listing (fetchlist.go): one listing of the bucket, one GET for each
// meta.json and mark that is new or was written anew, and nothing for the
// others, whose content it keeps in memory and, for meta.json, on disk. So it
// goes where there is no manifest that can be used, or none that anybody has
// compared with a listing lately.
//
// Either is believed when it shows a block and doubted when it doesn't; see judge.
type Fetcher struct {
	cfg     FetcherConfig
	rules   []*relabel.Config
	bkt     Bucket
	log     *slog.Logger
	metrics *fetchMetrics
	now     func() time.Time
	fault   func(step string) error
	pub     publishing // under mu

	suspects struct {
		sync.Mutex // after mu, if both are held
		ids        map[ulid.ULID]struct{}
	}

	mu struct {
		sync.Mutex // held during a pass
		fetchState
	}
}

// fetchState is what passes hand on to one another.
type fetchState struct {
	started  bool
	cache    metaCache
	known    *Manifest // what is known of all blocks, in the form of a manifest
	missing  sightings
	lost     lost
	badMarks map[string]string // marks that can't be used, by object: the error that was logged
	manifest manifestState
	listed   struct { // by a pass of ours
		at   time.Time // by our clock
		last bool      // it was the last pass
	}
	err error // of the last pass
}

// NewFetcher wires a Fetcher and reads nothing from the bucket; the error is
// cfg's. dir is the component's data folder, where copies of each meta.json that
// was read are kept in meta-syncer/, but by who publishes, since all are in the
// manifest then; "" keeps none.
func NewFetcher(cfg FetcherConfig, bkt Bucket, dir string, log *slog.Logger, reg prometheus.Registerer) (*Fetcher, error) {
	rules, err := loadSelector(cfg.Selector, cfg.SelectorFile)
	if err != nil {
		return nil, err
	}
	f := &Fetcher{cfg: cfg, rules: rules, bkt: bkt, log: log, metrics: newFetchMetrics(reg), now: time.Now}
	f.mu.fetchState = fetchState{
		cache:   newMetaCache(dir),
		known:   newManifest(),
		missing: sightings{},
		lost:    lost{blocks: map[ulid.ULID]record{}},

		badMarks: map[string]string{},
	}
	return f, nil
}

// SetClock replaces time.Now, for tests. Call it before the first pass.
func (f *Fetcher) SetClock(now func() time.Time) { f.now = now }

// SetFault sets the hook at the steps of Publish, for tests. Call it before anything else.
func (f *Fetcher) SetFault(fault func(step string) error) { f.fault = fault }

// Fetch makes a pass and returns the blocks that the config asks for.
//
// The view is the best that is known, with an error too: after a listing that
// failed or lacks blocks (ErrListing) it is what was known before. Who only
// reads blocks goes on with it; who removes any must stop at an error, and where
// the view isn't Complete.
func (f *Fetcher) Fetch(ctx context.Context) (View, error) {
	all, err := f.FetchAll(ctx)
	v := Select(all, f.cfg.at(f.now(), f.rules), f.now())
	for _, r := range []Reason{DroppedTime, DroppedSelector, DroppedFresh, DroppedMarked, DroppedDuplicate} {
		f.metrics.blocks.WithLabelValues(string(r)).Set(float64(v.Dropped[r]))
	}
	f.metrics.blocks.WithLabelValues("used").Set(float64(len(v.Metas)))
	return v, err
}

// FetchAll is Fetch without leaving any block out.
func (f *Fetcher) FetchAll(ctx context.Context) (View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.mu.fetchState
	start := time.Now()
	s.err = f.pass(ctx, s)
	if doubted := errors.Is(s.err, ErrListing); s.err == nil || doubted {
		s.err = errors.Join(s.err, f.confirm(ctx, s, doubted))
	}
	f.metrics.duration.Observe(time.Since(start).Seconds())
	f.observe(s)
	return f.view(s), s.err
}

func (f *Fetcher) observe(s *fetchState) {
	if s.err != nil {
		f.metrics.failures.Inc()
	} else {
		f.metrics.success.Set(float64(f.now().Unix()))
	}
	f.metrics.blocks.WithLabelValues("partial").Set(float64(len(s.known.Partial)))
	f.metrics.blocks.WithLabelValues("problem").Set(float64(len(s.known.Problems)))
	f.metrics.blocks.WithLabelValues("missing").Set(float64(len(s.missing)))
	f.metrics.observeManifest(s, f.now())
}

func (f *Fetcher) view(s *fetchState) View {
	v := View{
		Metas: s.known.Metas, Marks: s.known.Marks, Partial: s.known.Partial, Problems: s.known.Problems,
		FromManifest: !s.listed.last, ListedAt: s.listed.at, Complete: s.err == nil,
	}
	if v.FromManifest {
		v.ListedAt = s.manifest.listedAt()
		v.Complete = v.Complete && !f.stale(s)
	}
	return v.clone()
}

// pass brings s up to date with the bucket.
func (f *Fetcher) pass(ctx context.Context, s *fetchState) error {
	if err := f.start(s); err != nil {
		return err
	}
	refreshErr := f.refresh(ctx, s)
	if refreshErr != nil && s.manifest.base == nil {
		f.log.Debug("bucket manifest can't be read; the bucket is listed", "err", refreshErr)
		refreshErr = nil
	}
	if !f.mustList(ctx, s) {
		s.adopt(false)
		sound, err := f.follow(ctx, s)
		if sound || ctx.Err() != nil {
			s.listed.last = false
			f.metrics.passes.WithLabelValues("manifest").Inc()
			return errors.Join(refreshErr, err)
		}
		f.log.Warn("bucket manifest lacks too many known blocks to be believed; the bucket is listed")
	}
	f.metrics.passes.WithLabelValues("listing").Inc()
	return errors.Join(refreshErr, f.list(ctx, s))
}

// start takes what an earlier process knew from disk, once. Such a block was
// seen before; if it is missing now, that is the second time.
func (f *Fetcher) start(s *fetchState) error {
	if s.started {
		return nil
	}
	ids, err := s.cache.ids()
	if err != nil {
		return fmt.Errorf("read cached metas: %w", err)
	}
	for _, id := range ids {
		if m, v, ok := s.cache.get(id); ok {
			s.known.set(id, record{meta: m, versions: versions{meta: v}})
			s.missing[id] = sighting{}
		}
	}
	s.started = true
	return nil
}

// drop forgets blocks that are gone for certain.
func (f *Fetcher) drop(s *fetchState, ids []ulid.ULID) {
	for _, id := range ids {
		if listed := s.manifest.now.record(id); listed.meta != nil {
			s.lost.blocks[id] = listed
		}
		s.known.set(id, record{})
		delete(s.known.Partial, id)
		delete(s.missing, id)
		if err := s.cache.remove(id); err != nil {
			f.log.Warn("cached meta stays on disk", "block", id, "err", err)
		}
	}
}
