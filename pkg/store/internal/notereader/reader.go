// Package notereader reads the notes on blocks: it knows from a listing which
// there are, keeps what was read in memory up to a bound, and reads no more than
// so many at once. A Reader is safe for concurrent use.
package notereader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
)

// Config bounds a Reader.
type Config struct {
	CacheBytes   int64         // of notes kept in memory; 0: none
	Concurrency  int           // reads at once
	ListInterval time.Duration // between listings, at least
}

// Reader reads notes.
type Reader struct {
	cfg     Config
	bkt     block.Bucket
	now     func() time.Time
	cache   *otter.Cache[key, *notes.Note] // nil: nothing is kept
	slots   chan struct{}
	metrics *metrics

	mu struct {
		sync.Mutex // held while the bucket is listed, so that one does for all
		listed     time.Time
		sizes      map[ulid.ULID]int64 // of the notes there are; never changed, but replaced
		modified   map[ulid.ULID]int64 // ns
		spans      map[ulid.ULID]span  // of those that were read
	}
}

// key names a note as it was listed: one from which exemplars were deleted is another.
type key struct {
	id       ulid.ULID
	modified int64 // ns
}

// span is the time of a note's block, ms, the end exclusive.
type span struct{ mint, maxt int64 }

type metrics struct{ requests, hits, reads, failures prometheus.Counter }

// New makes a Reader. It reads nothing before it is asked.
func New(cfg Config, bkt block.Bucket, reg prometheus.Registerer, now func() time.Time) (*Reader, error) {
	counter := func(name, help string) prometheus.Counter {
		return promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "firnline_store_notes_" + name, Help: help})
	}
	r := &Reader{cfg: cfg, bkt: bkt, now: now, slots: make(chan struct{}, cfg.Concurrency), metrics: &metrics{
		requests: counter("requests_total", "Notes (exemplars and metadata of a block) asked for."),
		hits:     counter("hits_total", "Notes asked for that were in memory."),
		reads:    counter("reads_total", "Notes read from the bucket."),
		failures: counter("failures_total", "Notes that could not be read, and listings of them that failed."),
	}}
	r.mu.spans = map[ulid.ULID]span{}
	if cfg.CacheBytes <= 0 {
		return r, nil
	}
	var err error
	r.cache, err = otter.New(&otter.Options[key, *notes.Note]{
		MaximumWeight: uint64(cfg.CacheBytes),
		Weigher:       func(_ key, n *notes.Note) uint32 { return uint32(min(n.SizeBytes()+200, math.MaxUint32)) },
	})
	if err != nil {
		return nil, fmt.Errorf("make cache of notes: %w", err)
	}
	return r, nil
}

// Listed returns the notes there are and their sizes in bytes, as of a listing
// that is not older than Config.ListInterval. It must not be changed.
func (r *Reader) Listed(ctx context.Context) (map[ulid.ULID]int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.mu.sizes != nil && now.Sub(r.mu.listed) < r.cfg.ListInterval {
		return r.mu.sizes, nil
	}
	sizes, modified := map[ulid.ULID]int64{}, map[ulid.ULID]int64{}
	err := notes.List(ctx, r.bkt, func(e notes.Entry) { sizes[e.Block], modified[e.Block] = e.SizeBytes, e.LastModified.UnixNano() })
	if err != nil {
		r.metrics.failures.Inc()
		return nil, err
	}
	for id := range r.mu.spans {
		if _, there := sizes[id]; !there {
			delete(r.mu.spans, id)
		}
	}
	r.mu.sizes, r.mu.modified, r.mu.listed = sizes, modified, now
	return sizes, nil
}

// Outside tells that the note on a block is known to have nothing of [mint, maxt], ms.
func (r *Reader) Outside(id ulid.ULID, mint, maxt int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.mu.spans[id]
	return known && (s.maxt <= mint || s.mint > maxt)
}

// Each reads notes, several at once, counting their sizes against bytes before
// they are fetched, and calls do for one after the other, in no particular order.
// A note is shared and must not be changed. One that is gone is passed by. fail is
// called, likewise, for one that can't be read; what it returns, if not nil, ends all.
func (r *Reader) Each(ctx context.Context, ids []ulid.ULID, bytes *fetch.Budget, do func(ulid.ULID, *notes.Note) error, fail func(error) error) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.cfg.Concurrency)
	for _, id := range ids {
		g.Go(func() error {
			n, err := r.read(ctx, id, bytes)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, notes.ErrNone):
				return nil
			case err != nil:
				return fail(err)
			}
			return do(id, n)
		})
	}
	return g.Wait()
}

func (r *Reader) read(ctx context.Context, id ulid.ULID, bytes *fetch.Budget) (*notes.Note, error) {
	r.metrics.requests.Inc()
	r.mu.Lock()
	size, as := r.mu.sizes[id], key{id, r.mu.modified[id]}
	r.mu.Unlock()
	if r.cache != nil {
		if n, ok := r.cache.GetIfPresent(as); ok {
			r.metrics.hits.Inc()
			return n, nil
		}
	}
	if err := bytes.Take(size); err != nil {
		return nil, err
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r.metrics.reads.Inc()
	n, err := notes.Read(ctx, r.bkt, id)
	if err != nil {
		if !errors.Is(err, notes.ErrNone) && ctx.Err() == nil {
			r.metrics.failures.Inc()
		}
		return nil, err
	}
	r.mu.Lock()
	r.mu.spans[id] = span{n.MinTime, n.MaxTime}
	r.mu.Unlock()
	if r.cache != nil {
		r.cache.Set(as, n)
	}
	return n, nil
}
