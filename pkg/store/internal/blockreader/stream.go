package blockreader

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/storeapi"
)

// samplesPerChunk is what a chunk counts for against a limit of samples: exact
// numbers are only known once the chunk has been fetched.
const samplesPerChunk = 120

// Series streams the series that match, with their external labels and without
// the replica labels of q, sorted. Reading starts at once and stays one window
// of chunks ahead of the caller, who has to close the set.
func (b *Block) Series(ctx context.Context, q Query, lim Limits) storeapi.SeriesSet {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{
		block: b, query: q, work: Work{Limits: lim}, cancel: cancel,
		clash: make(chan bool, 1), windows: make(chan window),
	}
	go s.run(ctx)
	return s
}

// window is a run of series whose chunks were read together.
type window struct {
	series []storeapi.Series
	held   int64 // bytes to give back when the caller has passed
}

// stream is a SeriesSet with a goroutine, run, that fills it.
type stream struct {
	block  *Block
	query  Query
	cancel context.CancelFunc

	clash   chan bool   // told once, before the first window
	windows chan window // closed by run when all is over

	// Of run until windows is closed, then of the caller.
	work Work
	err  error

	set  storeapi.SeriesSet // the windows in their final order; nil before the first Next
	over bool               // windows is closed
}

func (s *stream) run(ctx context.Context) {
	defer close(s.windows)
	defer close(s.clash)
	s.err = s.produce(ctx)
}

// produce selects labels and places of chunks, then reads the chunks, window by
// window. Where the order can change at will it selects everything first.
func (s *stream) produce(ctx context.Context) error {
	clash, err := s.block.clashes(ctx, &s.query)
	if err != nil {
		return err
	}
	s.clash <- clash
	sel := newSelector(s.block, &s.query, clash)
	var all []selected
	err = s.block.scan(ctx, &s.query, &s.work, func(entries []entry) error {
		batch, err := sel.choose(ctx, entries)
		if err != nil {
			return err
		}
		if clash {
			all = append(all, batch...)
			return nil
		}
		return s.materialise(ctx, batch)
	})
	if err != nil {
		return err
	}
	return s.materialise(ctx, mergeEqual(all))
}

// materialise reads the chunks of series and sends them on.
func (s *stream) materialise(ctx context.Context, batch []selected) error {
	for len(batch) > 0 {
		var (
			win  window
			want []wanted
			n    int
		)
		reach := s.block.parts.Fetcher.Reach(s.query.WindowBytes)
		for n < len(batch) && (n == 0 || reach.Bytes < s.query.WindowBytes) {
			out := storeapi.Series{Labels: batch[n].labels}
			if !s.query.SkipChunks {
				out.Chunks = make([]storeapi.Chunk, batch[n].within(s.query.Mint, s.query.Maxt))
				w, err := s.block.planChunks(&batch[n], s.query.Mint, s.query.Maxt, out.Chunks)
				if err != nil {
					return err
				}
				for _, c := range w {
					reach.Add(c.place())
				}
				want = append(want, w...)
				for i := range out.Chunks {
					out.Chunks[i].Replica = batch[n].replica
				}
			}
			win.series = append(win.series, out)
			n++
		}
		if err := s.fill(ctx, &win, want); err != nil {
			return err
		}
		select {
		case s.windows <- win:
		case <-ctx.Done():
			s.work.Limits.Held.Give(win.held)
			return ctx.Err()
		}
		batch = batch[n:]
	}
	return nil
}

// fill reads the chunks of a window, limits first.
func (s *stream) fill(ctx context.Context, win *window, want []wanted) error {
	lim := s.work.Limits
	if len(want) == 0 {
		return nil
	}
	if err := lim.Samples.Take(int64(len(want)) * samplesPerChunk); err != nil {
		return err
	}
	var err error
	if win.held, err = s.block.loadChunks(ctx, want, &s.query, &s.work); err != nil {
		return err
	}
	if s.query.Hidden != nil {
		win.dropHidden()
	}
	for _, series := range win.series {
		slices.SortStableFunc(series.Chunks, compareChunks)
	}
	return nil
}

// dropHidden takes out the chunks that were cut down to nothing, and the series
// that had no others.
func (w *window) dropHidden() {
	for i := range w.series {
		s := &w.series[i]
		s.Chunks = slices.DeleteFunc(s.Chunks, func(c storeapi.Chunk) bool { return c.Aggr == nil && c.Raw.IsZero() })
	}
	w.series = slices.DeleteFunc(w.series, func(s storeapi.Series) bool { return len(s.Chunks) == 0 })
}

// Next implements storeapi.SeriesSet.
func (s *stream) Next() bool {
	if s.set == nil {
		var in storeapi.SeriesSet = &windowSet{stream: s, at: -1}
		if !<-s.clash {
			in = storeapi.Extended(in, s.query.External, s.query.Without, false)
		}
		s.set = in
	}
	return s.set.Next()
}

// At implements storeapi.SeriesSet.
func (s *stream) At() storeapi.Series { return s.set.At() }

// Err implements storeapi.SeriesSet.
func (s *stream) Err() error {
	if s.set == nil {
		return nil
	}
	return s.set.Err()
}

// Report implements storeapi.SeriesSet. Before the end it knows the block only.
func (s *stream) Report() storeapi.Report {
	r := storeapi.Report{QueriedBlocks: []ulid.ULID{s.block.id}}
	if s.over {
		r.Stats = s.work.Stats
	}
	r.Stats.BlocksQueried = 1
	return r
}

// Close implements storeapi.SeriesSet.
func (s *stream) Close() {
	s.cancel()
	for w := range s.windows {
		s.work.Limits.Held.Give(w.held)
	}
	if s.set == nil {
		s.set = storeapi.EmptySet(storeapi.Report{})
	}
	s.set.Close()
	s.over = true
}

// windowSet are the series of a stream as its windows bring them.
type windowSet struct {
	stream *stream
	cur    window
	at     int
	closed bool
}

func (s *windowSet) Next() bool {
	if s.closed {
		return false
	}
	for s.at++; s.at >= len(s.cur.series); s.at = 0 {
		s.stream.work.Limits.Held.Give(s.cur.held)
		var ok bool
		if s.cur, ok = <-s.stream.windows; !ok {
			s.closed, s.stream.over = true, true
			return false
		}
	}
	return true
}

func (s *windowSet) At() storeapi.Series { return s.cur.series[s.at] }

func (s *windowSet) Err() error {
	if !s.stream.over {
		return nil
	}
	return s.stream.err
}

func (s *windowSet) Report() storeapi.Report { return storeapi.Report{} }

func (s *windowSet) Close() {
	s.stream.work.Limits.Held.Give(s.cur.held)
	s.cur, s.closed = window{}, true
}

// selected is a series before its chunks are read.
type selected struct {
	labels  labels.Labels
	chunks  []layout.Chunk
	replica uint32 // of all chunks; 0: not known here

	cuts []tombstones.Intervals // what is hidden of each chunk; nil: nothing of any
}

// hide leaves out the chunks that are hidden as a whole, and tells whether any
// is left in the time asked for.
func (s *selected) hide(q *Query, cuts tombstones.Intervals) bool {
	if len(cuts) == 0 {
		return true
	}
	if storeapi.Covers(cuts, q.Mint, q.Maxt) {
		return false
	}
	var left []layout.Chunk // the entry's own may be wanted as they are
	for _, c := range s.chunks {
		if !storeapi.Covers(cuts, c.MinTime, c.MaxTime) {
			left = append(left, c)
			s.cuts = append(s.cuts, cuts)
		}
	}
	s.chunks = left
	return s.within(q.Mint, q.Maxt) > 0
}

// allCuts are the cuts of each chunk, where there are any at all in a block.
func (s *selected) allCuts() []tombstones.Intervals {
	if s.cuts == nil {
		return make([]tombstones.Intervals, len(s.chunks))
	}
	return s.cuts
}

// within counts the chunks that overlap [mint, maxt].
func (s *selected) within(mint, maxt int64) (n int) {
	for _, c := range s.chunks {
		if overlaps(c, mint, maxt) {
			n++
		}
	}
	return n
}
