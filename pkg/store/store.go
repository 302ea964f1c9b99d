// Package store makes the blocks in a bucket readable: it finds them, keeps a
// small header of each index on local disk, and answers storeapi.Store from
// ranged reads. It writes nothing to the bucket and keeps nothing that it could
// not fetch again.
//
// A Store is safe for concurrent use. Run keeps it up to date; queries are
// refused until Run has seen the bucket once.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/store/internal/blockreader"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/store/internal/indexcache"
	"github.com/firnline/firnline/pkg/store/internal/indexheader"
	"github.com/firnline/firnline/pkg/store/internal/notereader"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Store answers queries from the blocks in a bucket.
type Store struct {
	cfg           Config
	bkt           block.Bucket
	fetcher       *block.Fetcher
	deletes       *block.DeleteWatcher
	parts         blockreader.Parts
	headerMetrics *indexheader.Metrics
	chunkPool     *fetch.Budget // of all requests
	notes         *notereader.Reader
	metadata      *metadata
	gate          *gate
	log           *slog.Logger
	metrics       *metrics
	now           func() time.Time

	view      atomic.Pointer[view] // nil until the first look into the bucket
	progress  progress
	lookAgain chan struct{} // holds one wish for a look before its time
	looks     looks

	// Of sync, which one goroutine runs.
	blocks      map[ulid.ULID]*loaded
	known       map[ulid.ULID]string // problems that were logged
	incomplete  map[ulid.ULID]error  // why blocks that others stand for can't be read: an object is missing
	failedLooks int                  // before the first view
	byManifest  bool                 // the last look was by the bucket's manifest
}

// progress is how far the first look into the bucket has come.
type progress struct {
	mu struct {
		sync.Mutex
		done, total int
		err         error // of the last try
	}
}

// New wires a Store and starts nothing; call Run.
func New(cfg Config, bkt block.Bucket, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := block.CheckFolder(cfg.DataDir); err != nil {
		return nil, fmt.Errorf("--data-dir=%s: %w", cfg.DataDir, err)
	}
	cfg.Blocks.KeepDuplicates = true // see loadNeeded
	fetcher, err := block.NewFetcher(cfg.Blocks, bkt, cfg.DataDir, log, reg)
	if err != nil {
		return nil, err
	}
	cacheSize, err := cfg.indexCacheSize()
	if err != nil {
		return nil, err
	}
	cache, err := indexcache.New(int64(cacheSize), reg)
	if err != nil {
		return nil, err
	}
	m := newMetrics(reg)
	s := &Store{
		cfg: cfg, bkt: bkt, fetcher: fetcher, deletes: block.NewDeleteWatcher(cfg.Deletes, bkt, log, reg), log: log, metrics: m, now: time.Now,
		parts: blockreader.Parts{
			Fetcher: fetch.New(cfg.fetcher(), bkt, reg), Cache: cache,
			Guesses: blockreader.Guesses{Series: int64(cfg.MaxSeriesGuess), Chunk: int64(cfg.MaxChunkGuess)},
		},
		headerMetrics: indexheader.NewMetrics(reg),
		chunkPool:     fetch.NewBudget(int64(cfg.ChunkPoolSize), "bytes of indexes and chunks for all requests together", flagChunkPool),
		gate:          newGate(cfg.MaxConcurrency, m),
		lookAgain:     make(chan struct{}, 1),
		blocks:        map[ulid.ULID]*loaded{}, known: map[ulid.ULID]string{}, incomplete: map[ulid.ULID]error{},
		metadata: newMetadata(cfg.MaxMetadata),
	}
	s.notes, err = notereader.New(cfg.notes(), bkt, reg, func() time.Time { return s.now() })
	return s, err
}

// SetClock replaces time.Now, for tests. Call it before Run.
func (s *Store) SetClock(now func() time.Time) {
	s.now = now
	s.fetcher.SetClock(now)
	s.deletes.SetClock(now)
}

// soon is how long after a look another one may follow before its time: when
// the first one failed, or a query found the objects of a block gone.
const soon = 5 * time.Second

// manifestInterval is the most between two looks at a bucket that has a manifest:
// they cost two requests, so that new blocks can be had sooner.
const manifestInterval = 30 * time.Second

// Run keeps up with the bucket until ctx is done and then returns nil, after
// unloading the headers that no query uses. A look that fails is logged and
// tried again.
func (s *Store) Run(ctx context.Context) error {
	idle := time.Duration(s.cfg.HeaderIdleTimeout)
	defer s.dropAll()
	s.looks.open()
	defer s.looks.close()
	var g sync.WaitGroup
	defer g.Wait()
	g.Go(func() { _ = s.deletes.Run(ctx) }) // it logs what goes wrong, and has no error
	if idle > 0 {
		g.Go(func() { s.unloadIdle(ctx, idle) })
	}
	for {
		wait := time.Duration(s.cfg.SyncInterval)
		s.looks.begin()
		if err := s.sync(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("look for blocks failed", "err", err)
			if s.view.Load() == nil {
				wait = min(wait, soon)
			}
		}
		s.looks.end()
		if s.byManifest {
			wait = min(wait, manifestInterval)
		}
		if !s.rest(ctx, wait) {
			return nil
		}
	}
}

// rest waits until the next look: for wait or, when one is asked for, until
// soon is over. It is false when ctx is done.
func (s *Store) rest(ctx context.Context, wait time.Duration) bool {
	early, regular := time.NewTimer(min(wait, soon)), time.NewTimer(wait)
	defer early.Stop()
	defer regular.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-early.C:
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.lookAgain:
	case <-regular.C:
	}
	return true
}

// unloadIdle unloads headers that nobody has used for idle, until ctx is done.
func (s *Store) unloadIdle(ctx context.Context, idle time.Duration) {
	tick := time.NewTicker(max(idle/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if v := s.view.Load(); v != nil {
			for _, l := range v.blocks {
				l.unloadIdle(s.now().Add(-idle))
			}
		}
	}
}

// Ready returns nil once queries can be answered, and else what is waited for.
func (s *Store) Ready() error {
	if s.view.Load() != nil {
		return nil
	}
	p := &s.progress.mu
	p.Lock()
	defer p.Unlock()
	switch {
	case p.err != nil:
		return fmt.Errorf("looking for blocks: %w", p.err)
	case p.total > 0:
		return fmt.Errorf("loading blocks %d/%d", p.done, p.total)
	}
	return errors.New("looking for blocks in the bucket")
}

// Services are what a store gateway serves.
func (s *Store) Services() storeapi.Services {
	return storeapi.Services{Store: s, Metadata: s, Exemplars: s}
}
