package fanout

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

// What a batch holds at most before it is handed on.
const (
	batchSeries = 64
	batchBytes  = 256 << 10
)

// batch is a run of series read from an endpoint.
type batch struct {
	series []storeapi.Series
	chunks []storeapi.Chunk // what the series' slices of chunks point into
	bytes  int
}

// add copies a series, whose slice of chunks the set will use again.
func (b *batch) add(s storeapi.Series) {
	from := len(b.chunks)
	b.chunks = append(b.chunks, s.Chunks...)
	b.series = append(b.series, storeapi.Series{Labels: s.Labels, Chunks: b.chunks[from:len(b.chunks):len(b.chunks)]})
	for i := range s.Chunks {
		b.bytes += chunkBytes(&s.Chunks[i])
	}
}

func (b *batch) full() bool { return len(b.series) >= batchSeries || b.bytes >= batchBytes }

// reset makes the batch empty and lets go of what it held.
func (b *batch) reset() {
	clear(b.series)
	clear(b.chunks)
	*b = batch{series: b.series[:0], chunks: b.chunks[:0]}
}

func chunkBytes(c *storeapi.Chunk) int {
	if c.Aggr == nil {
		return len(c.Raw.Bytes)
	}
	a := c.Aggr
	return len(a.Count.Bytes) + len(a.Sum.Bytes) + len(a.Min.Bytes) + len(a.Max.Bytes) + len(a.Counter.Bytes)
}

// stream reads an endpoint's series ahead, up to the capacity of out, and is
// itself the set of them. What goes wrong goes to the outcome, which makes a
// warning of it or ends the request; the set then just ends.
type stream struct {
	peer    endpoint.Peer
	fan     *Fanout
	outcome *outcome
	out     chan *batch // closed by the reader at its end
	free    chan *batch // batches to use again

	cur *batch // being consumed
	at  int
}

func newStream(f *Fanout, p endpoint.Peer, o *outcome) *stream {
	return &stream{
		peer: p, fan: f, outcome: o, at: -1,
		out: make(chan *batch, f.cfg.MaxBufferedFrames), free: make(chan *batch, f.cfg.MaxBufferedFrames+2),
	}
}

// read asks the endpoint and reads until its end. It is the reader's goroutine.
func (s *stream) read(ctx context.Context, sel storeapi.Selection) {
	defer close(s.out)
	done := s.fan.metrics.begin("series")
	watched, w := newWatch(ctx, s.fan.responseTimeout())
	defer w.close()
	err := w.explain(watched, s.peer, s.pump(watched, w, sel))
	if ctx.Err() != nil {
		done(context.Canceled) // the request is over: nobody is to blame
		return
	}
	done(err)
	if err != nil {
		s.outcome.fail(err)
	}
}

// pump moves series from the endpoint into out.
func (s *stream) pump(ctx context.Context, w *watch, sel storeapi.Selection) error {
	sel, todo := forPeer(sel, s.peer.Info)
	remote, err := s.peer.Services.Store.Series(ctx, sel)
	w.came()
	if err != nil {
		return err
	}
	set := todo.apply(&watchedSet{SeriesSet: remote, watch: w, limit: s.reworkLimit(todo)})
	defer set.Close()
	var last labels.Labels
	b := s.fresh()
	for set.Next() {
		series := set.At()
		if labels.Compare(last, series.Labels) > 0 {
			if err := s.hand(ctx, b); err != nil {
				return err
			}
			return named(s.peer, fmt.Errorf("%w: series %s came after %s", storeapi.ErrCorrupt, series.Labels, last))
		}
		last = series.Labels
		b.add(series)
		if !b.full() {
			continue
		}
		if err := s.hand(ctx, b); err != nil {
			return err
		}
		b = s.fresh()
	}
	if err := s.hand(ctx, b); err != nil {
		return err
	}
	if err := set.Err(); err != nil && !s.outcome.partial {
		return err
	}
	s.outcome.warn(set.Report().Warnings)
	return set.Err()
}

// reworkLimit bounds what an answer that must be held whole may take.
func (s *stream) reworkLimit(todo *rework) *limiter {
	if todo == nil {
		return nil
	}
	return newLimiter(s.fan.cfg)
}

func (s *stream) fresh() *batch {
	select {
	case b := <-s.free:
		b.reset()
		return b
	default:
		return &batch{}
	}
}

// hand gives a batch to the consumer, once it has room.
func (s *stream) hand(ctx context.Context, b *batch) error {
	if len(b.series) == 0 {
		return nil
	}
	s.fan.metrics.series.Add(float64(len(b.series)))
	select {
	case s.out <- b:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Next implements storeapi.SeriesSet.
func (s *stream) Next() bool {
	for s.cur == nil || s.at+1 >= len(s.cur.series) {
		if s.cur != nil {
			s.free <- s.cur // has room for all batches there are
			s.cur = nil
		}
		b, ok := <-s.out
		if !ok {
			return false
		}
		s.cur, s.at = b, -1
	}
	s.at++
	return true
}

// At implements storeapi.SeriesSet.
func (s *stream) At() storeapi.Series { return s.cur.series[s.at] }

// Err implements storeapi.SeriesSet: what ends the request as a whole.
func (s *stream) Err() error { return s.outcome.fatal() }

// Report implements storeapi.SeriesSet. Warnings are the outcome's.
func (s *stream) Report() storeapi.Report { return storeapi.Report{} }

// Close implements storeapi.SeriesSet. The reader is ended by its context.
func (s *stream) Close() {}

// watchedSet tells a watch when an endpoint is waited for.
type watchedSet struct {
	storeapi.SeriesSet
	watch *watch
	limit *limiter // nil: none
	err   error
}

func (s *watchedSet) Next() bool {
	if s.err != nil {
		return false
	}
	s.watch.waiting()
	ok := s.SeriesSet.Next()
	s.watch.came()
	if ok && s.limit != nil {
		s.err = s.limit.count(s.At())
	}
	return ok && s.err == nil
}

func (s *watchedSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}
