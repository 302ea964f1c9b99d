package sidecar

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/storeapi"
)

// readSet makes series of the parts that a remote read yields: consecutive
// parts of one series become one. It holds the chunks of one series and one
// frame, whatever the size of the answer.
//
// The labels it returns are those that Prometheus stores: what Prometheus has
// added as external labels it takes away, so that the order is that of the set.
type readSet struct {
	ctx    context.Context // of the request; the set is that request's answer
	cancel context.CancelCauseFunc
	next   func(context.Context) ([]promapi.Part, error) // io.EOF after the last
	body   io.Closer
	idle   *idleTimer
	ext    labels.Labels
	use    *usage

	parts   []promapi.Part // of the latest frame, not yet looked at
	ended   bool           // no more frames
	raw     labels.Labels  // of cur, with what Prometheus added
	cur     storeapi.Series
	report  storeapi.Report
	builder labels.Builder
	err     error
}

func (s *readSet) Next() bool {
	if s.err != nil {
		return false
	}
	s.cur = storeapi.Series{}
	for begun := false; ; {
		for len(s.parts) > 0 {
			p := s.parts[0]
			if begun && !labels.Equal(p.Labels, s.raw) {
				return s.finish()
			}
			if s.err = s.add(p, !begun); s.err != nil {
				return false
			}
			s.parts, begun = s.parts[1:], true
		}
		if s.ended {
			return begun && s.finish()
		}
		if s.err = s.fill(); s.err != nil {
			return false
		}
	}
}

// fill takes the next frame. While it waits the idle time runs.
func (s *readSet) fill() error {
	s.idle.start()
	parts, err := s.next(s.ctx)
	s.idle.stop()
	if err == io.EOF { //nolint:errorlint // bare, it is the regular end; a connection's error may wrap it
		s.ended = true
		return nil
	}
	s.parts = parts
	return err
}

// add puts a part into the current series.
func (s *readSet) add(p promapi.Part, first bool) error {
	if first {
		s.raw = p.Labels
		s.cur.Labels = strip(&s.builder, p.Labels, s.ext)
		s.report.Stats.SeriesFetched++
		if err := s.use.addSeries(); err != nil {
			return err
		}
	}
	for _, c := range p.Chunks {
		n, err := samples(c.Raw)
		if err != nil {
			return fmt.Errorf("series %s: %w", p.Labels, err)
		}
		if err := s.use.addSamples(n); err != nil {
			return err
		}
		s.report.Stats.ChunksFetchedBytes += int64(len(c.Raw.Bytes))
	}
	s.report.Stats.ChunksFetched += int64(len(p.Chunks))
	if s.cur.Chunks == nil {
		s.cur.Chunks = p.Chunks
	} else {
		s.cur.Chunks = append(s.cur.Chunks, p.Chunks...)
	}
	return nil
}

func (s *readSet) finish() bool {
	s.cur.Chunks = storeapi.SortChunks(s.cur.Chunks)
	return true
}

func (s *readSet) At() storeapi.Series     { return s.cur }
func (s *readSet) Err() error              { return s.err }
func (s *readSet) Report() storeapi.Report { return s.report }

// Close ends the transfer.
func (s *readSet) Close() {
	s.cancel(nil)
	s.idle.stop()
	s.body.Close() // says nothing that matters: what was wanted has been read
	s.parts, s.ended = nil, true
}

// samples returns how many samples a chunk says to hold.
func samples(d storeapi.Data) (int, error) {
	c, err := d.Chunk()
	if err != nil {
		return 0, err
	}
	return c.NumSamples(), nil
}

// strip removes the labels that equal an external one: unless series have such
// labels of their own, Prometheus has added them.
func strip(b *labels.Builder, lset, ext labels.Labels) labels.Labels {
	b.Reset(lset)
	ext.Range(func(l labels.Label) {
		if lset.Get(l.Name) == l.Value {
			b.Del(l.Name)
		}
	})
	return b.Labels()
}

// idleTimer cancels a request during whose waiting no bytes come for too long.
type idleTimer struct {
	timer *time.Timer
	after time.Duration
}

func newIdleTimer(after time.Duration, cancel context.CancelCauseFunc) *idleTimer {
	return &idleTimer{after: after, timer: time.AfterFunc(after, func() {
		cancel(fmt.Errorf("%w: no answer for %s (--prometheus.read-idle-timeout)", storeapi.ErrUnavailable, after))
	})}
}

func (t *idleTimer) start() { t.timer.Reset(t.after) }
func (t *idleTimer) stop()  { t.timer.Stop() }

// usage counts what a request reads against its limits.
type usage struct {
	limits          LimitsConfig
	series, samples int
	bytes           int64
}

func (u *usage) addSeries() error {
	u.series++
	if u.limits.RequestSeries > 0 && u.series > u.limits.RequestSeries {
		return fmt.Errorf("%w: request reads more than %d series (%s); add a matcher or raise it", storeapi.ErrLimit, u.limits.RequestSeries, flagSeries)
	}
	return nil
}

func (u *usage) addSamples(n int) error {
	u.samples += n
	if u.limits.RequestSamples > 0 && u.samples > u.limits.RequestSamples {
		return fmt.Errorf("%w: request reads more than %d samples (%s); shorten the range, add a matcher or raise it", storeapi.ErrLimit, u.limits.RequestSamples, flagSamples)
	}
	return nil
}

// hold counts bytes that have to be held until the answer is sorted.
func (u *usage) hold(n int) error {
	u.bytes += int64(n)
	if u.bytes > int64(u.limits.SortBytes) {
		return fmt.Errorf("%w: answer needs more than %s to be sorted (%s); add a matcher or raise it", storeapi.ErrLimit, &u.limits.SortBytes, flagSort)
	}
	return nil
}

// heldSet counts the series of a set that is going to be held whole.
type heldSet struct {
	storeapi.SeriesSet
	use *usage
	err error
}

func (s *heldSet) Next() bool {
	if s.err != nil || !s.SeriesSet.Next() {
		return false
	}
	at := s.SeriesSet.At()
	n := labelBytes(at.Labels)
	for _, c := range at.Chunks {
		n += chunkBytes + len(c.Raw.Bytes)
	}
	s.err = s.use.hold(n)
	return s.err == nil
}

func (s *heldSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

// chunkBytes is what a storeapi.Chunk takes beside its data.
const chunkBytes = 56

// labelBytes is about what labels take in memory.
func labelBytes(lset labels.Labels) int {
	n := 16
	lset.Range(func(l labels.Label) { n += len(l.Name) + len(l.Value) + 2 })
	return n
}

// checkedSet watches over a finished answer: its order, and how it ends.
type checkedSet struct {
	storeapi.SeriesSet
	end func(error, storeapi.Report) // called once

	last  labels.Labels
	begun bool
	ended bool
	err   error
}

// errDisorder is an answer whose series are out of order: Prometheus' labels
// changed while it was under way.
var errDisorder = fmt.Errorf("%w: series are out of order; ask again", storeapi.ErrUnavailable)

func (s *checkedSet) Next() bool {
	if s.err != nil {
		return false
	}
	if !s.SeriesSet.Next() {
		s.finish(s.SeriesSet.Err())
		return false
	}
	lset := s.SeriesSet.At().Labels
	if s.begun && labels.Compare(s.last, lset) >= 0 {
		s.err = fmt.Errorf("%s after %s: %w", lset, s.last, errDisorder)
		s.finish(s.err)
		return false
	}
	s.last, s.begun = lset, true
	return true
}

func (s *checkedSet) finish(err error) {
	if !s.ended {
		s.ended = true
		s.end(err, s.SeriesSet.Report())
	}
}

func (s *checkedSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

func (s *checkedSet) Close() {
	s.SeriesSet.Close()
	s.finish(s.Err())
}

// labelSet returns series without chunks, sorted, each once.
func labelSet(lsets []labels.Labels, report storeapi.Report) storeapi.SeriesSet {
	slices.SortFunc(lsets, labels.Compare)
	lsets = slices.CompactFunc(lsets, labels.Equal)
	series := make([]storeapi.Series, len(lsets))
	for i, l := range lsets {
		series[i].Labels = l
	}
	return storeapi.SliceSet(series, report)
}
