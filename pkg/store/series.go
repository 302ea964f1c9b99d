package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/store/internal/blockreader"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Series implements storeapi.Store. All blocks are read at the same time, each
// a window of chunks ahead, and merged.
func (s *Store) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	if len(sel.Matchers) == 0 {
		return nil, fmt.Errorf("%w: no matchers: a selection of all series needs at least one, such as {__name__!=\"\"}", storeapi.ErrBadRequest)
	}
	if s.view.Load() == nil {
		return nil, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, s.Ready())
	}
	if !s.clamp(&sel) {
		return storeapi.EmptySet(storeapi.Report{}), nil
	}
	if err := s.gate.enter(ctx); err != nil {
		return nil, err
	}
	r := &resultSet{store: s}
	r.again = func() error { return s.plan(ctx, sel, r) }
	r.await = func() bool { return s.awaitLook(ctx) }
	if err := r.again(); err != nil {
		s.gate.leave()
		return nil, err
	}
	return r, nil
}

// plan chooses the blocks for a selection and begins to read them.
func (s *Store) plan(ctx context.Context, sel storeapi.Selection, r *resultSet) error {
	picks, err := s.acquire(sel, false)
	if err != nil {
		return err
	}
	s.metrics.blocksQueried.Observe(float64(len(picks)))
	lim := s.limits()
	sets := make([]storeapi.SeriesSet, len(picks))
	for i, p := range picks {
		sets[i] = &blockSet{SeriesSet: s.open(ctx, p, sel, lim, len(picks)), store: s, block: p.block, partial: sel.PartialResponse}
	}
	set := storeapi.Merge(sets...)
	set = &limitedSet{SeriesSet: set, series: fetch.NewBudget(s.cfg.RequestSeries, "series", flagRequestSeries),
		samples: fetch.NewBudget(s.cfg.RequestSamples, "samples", flagRequestSamples)}
	r.SeriesSet, r.picks = storeapi.Limit(set, sel.Limit), picks
	return nil
}

func (s *Store) limits() blockreader.Limits {
	return blockreader.Limits{
		Bytes:   fetch.NewBudget(int64(s.cfg.DownloadedLimit), "bytes", flagDownloaded),
		Touched: fetch.NewBudget(s.cfg.TouchedLimit, "series", flagTouched),
		Samples: fetch.NewBudget(s.cfg.FetchedSamples, "samples", flagFetchedSamples),
		Held:    s.chunkPool,
	}
}

// leastBatch is how many bytes of a block's index a batch of series may take
// however many blocks share the window: some 10,000 entries that lie together.
const leastBatch = 2 << 20

// query is a selection as one of n blocks needs it.
func (s *Store) query(p pick, sel storeapi.Selection, n int) blockreader.Query {
	// Each block holds two windows: one that is sent, one that is read.
	window := max(int64(s.cfg.ChunkWindowSize)/int64(2*n), 1)
	return blockreader.Query{
		Mint: sel.Mint, Maxt: sel.Maxt, Matchers: p.matchers,
		External: p.block.labels, Without: sel.WithoutReplicaLabels, Shard: sel.Shard,
		SkipChunks: sel.SkipChunks, Aggregates: sel.Aggregates,
		Hidden: s.hidden(p), Resolution: p.block.meta.Resolution(),
		BatchSeries: s.cfg.SeriesBatch, BatchBytes: max(window, leastBatch), WindowBytes: window,
	}
}

// hidden tells which of a block's samples not to show: those that delete requests
// hide, and those that coarser blocks answer for; nil for none. It looks at all
// of the block's time, since chunks reach beyond a selection.
func (s *Store) hidden(p pick) storeapi.Hidden {
	l := p.block
	deleted := s.deletes.Hider().For(l.meta.MinTime, l.meta.MaxTime, l.labels)
	switch {
	case deleted == nil:
		return p.hidden
	case p.hidden == nil:
		return deleted.Intervals
	}
	return func(lset labels.Labels) tombstones.Intervals {
		cuts := slices.Clone(deleted.Intervals(lset))
		for _, c := range p.hidden(lset) {
			cuts = cuts.Add(c)
		}
		return cuts
	}
}

// open starts reading a block.
func (s *Store) open(ctx context.Context, p pick, sel storeapi.Selection, lim blockreader.Limits, n int) storeapi.SeriesSet {
	if err := p.block.usable(ctx, s.now()); err != nil {
		return storeapi.ErrSet(err)
	}
	return p.block.reader.Series(ctx, s.query(p, sel, n), lim)
}

// blockSet names the block in errors and, for a partial response, makes them warnings.
type blockSet struct {
	storeapi.SeriesSet
	store   *Store
	block   *loaded
	partial bool
	counted bool
}

// failure is what went wrong with the block, or nil.
func (s *blockSet) failure() error {
	err := s.SeriesSet.Err()
	if err == nil {
		return nil
	}
	if !s.counted {
		s.counted = true
		s.store.noteFailure(err)
		s.store.noteGone(s.block, err)
	}
	return blockError(s.block, err)
}

func (s *blockSet) Err() error {
	if err := s.failure(); err != nil && !(s.partial && canWarn(err)) {
		return err
	}
	return nil
}

func (s *blockSet) Report() storeapi.Report {
	r := s.SeriesSet.Report()
	if err := s.failure(); err != nil && s.partial && canWarn(err) {
		r.Warnings = append(r.Warnings, err.Error())
	}
	return r
}

// blockError names the block. Where its objects are gone, what replaces it will
// be known after the next look into the bucket.
func blockError(l *loaded, err error) error {
	if errors.As(err, new(*fetch.GoneError)) {
		return fmt.Errorf("%w: block %s was removed or is incomplete, ask again: %w", storeapi.ErrUnavailable, l.meta.ULID, err)
	}
	return fmt.Errorf("block %s: %w", l.meta.ULID, err)
}

// canWarn tells whether an error may become a warning: not one that says the
// request is too large or that its time is over.
func canWarn(err error) bool {
	return !errors.Is(err, storeapi.ErrLimit) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// noteFailure counts what could not be answered.
func (s *Store) noteFailure(err error) {
	switch {
	case errors.Is(err, storeapi.ErrLimit):
		s.metrics.refused.Inc()
	case canWarn(err):
		s.metrics.blockFailures.Inc()
	}
}

// limitedSet ends with storeapi.ErrLimit before it returns more than allowed.
type limitedSet struct {
	storeapi.SeriesSet
	series, samples *fetch.Budget
	err             error
}

// samplesPerChunk is what a chunk counts for, as in Thanos.
const samplesPerChunk = 120

func (s *limitedSet) Next() bool {
	if s.err != nil || !s.SeriesSet.Next() {
		return false
	}
	s.err = errors.Join(s.series.Take(1), s.samples.Take(int64(len(s.At().Chunks))*samplesPerChunk))
	return s.err == nil
}

func (s *limitedSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

// resultSet is the answer of Series: it counts, and gives everything back on
// Close. Where a block turns out to be gone before anything was returned, blocks
// are chosen once more, after a look into the bucket.
type resultSet struct {
	storeapi.SeriesSet
	store  *Store
	picks  []pick
	again  func() error // plans anew
	await  func() bool  // waits for a look
	begun  bool
	err    error
	count  storeapi.Stats
	closed bool
}

// first is the first Next.
func (s *resultSet) first() bool {
	ok := s.SeriesSet.Next()
	if !missedAny(s.picks) || !s.await() {
		return ok
	}
	s.SeriesSet.Close()
	s.store.release(s.picks)
	s.SeriesSet, s.picks = storeapi.EmptySet(storeapi.Report{}), nil
	if s.err = s.again(); s.err != nil {
		return false
	}
	return s.SeriesSet.Next()
}

func (s *resultSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

func (s *resultSet) Next() bool {
	next := s.SeriesSet.Next
	if !s.begun {
		s.begun, next = true, s.first
	}
	began := time.Now()
	ok := next()
	s.count.MergeNanos += time.Since(began).Nanoseconds()
	if ok {
		s.count.SeriesMerged++
		s.count.ChunksMerged += int64(len(s.At().Chunks))
	}
	return ok
}

func (s *resultSet) Report() storeapi.Report {
	r := s.SeriesSet.Report()
	r.Add(storeapi.Report{Stats: s.count})
	return r
}

func (s *resultSet) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.SeriesSet.Close()
	s.store.observe(s.Report().Stats)
	s.store.release(s.picks)
	s.store.gate.leave()
}

// observe adds what a request took to the metrics.
func (s *Store) observe(st storeapi.Stats) {
	s.metrics.resultSeries.Observe(float64(st.SeriesMerged))
	for _, d := range []struct {
		name                         string
		touched, fetched, fetchedLen int64
	}{
		{"postings", st.PostingsTouched, st.PostingsFetched, st.PostingsFetchedBytes},
		{"series", st.SeriesTouched, st.SeriesFetched, st.SeriesFetchedBytes},
		{"chunks", st.ChunksTouched, st.ChunksFetched, st.ChunksFetchedBytes},
	} {
		s.metrics.touched.WithLabelValues(d.name).Add(float64(d.touched))
		s.metrics.fetched.WithLabelValues(d.name).Add(float64(d.fetched))
		s.metrics.fetchedBytes.WithLabelValues(d.name).Add(float64(d.fetchedLen))
	}
}
