package heads

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/tenant"
)

// chunkSet is a TSDB's answer as a storeapi.SeriesSet. Bytes and strings that
// it hands out are copies: those of the TSDB are gone when its querier is closed.
type chunkSet struct {
	ctx     context.Context // of the request; the set is that request's answer
	id      tenant.ID
	querier storage.ChunkQuerier
	in      storage.ChunkSeriesSet
	skip    bool // no chunks are wanted
	use     *usage

	it     chunks.Iterator
	chunks []storeapi.Chunk
	cur    storeapi.Series
	labels labels.ScratchBuilder
	report storeapi.Report
	err    error
	closed bool
}

func (s *chunkSet) Next() bool {
	for s.err == nil && !s.closed {
		if s.err = context.Cause(s.ctx); s.err != nil {
			return false
		}
		if !s.in.Next() {
			if err := s.in.Err(); err != nil {
				s.err = fmt.Errorf("tenant %s: %w", s.id, err)
			}
			return false
		}
		if s.read(s.in.At()) {
			return true
		}
	}
	return false
}

// read takes a series over. A series that has no samples in the time asked for is none.
func (s *chunkSet) read(in storage.ChunkSeries) bool {
	s.it = in.Iterator(s.it)
	s.chunks = s.chunks[:0]
	size, samples := 0, 0
	for s.it.Next() {
		m := s.it.At()
		c := storeapi.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime}
		if !s.skip {
			c.Raw = storeapi.DataOf(m.Chunk)
			size += len(c.Raw.Bytes)
			samples += m.Chunk.NumSamples()
			// The head's next chunk may reuse the one that was copied for us.
			c.Raw.Bytes = append([]byte(nil), c.Raw.Bytes...)
		}
		s.chunks = append(s.chunks, c)
		if s.skip {
			break
		}
	}
	if err := s.it.Err(); err != nil {
		s.err = fmt.Errorf("tenant %s: series %s: %w", s.id, in.Labels(), err)
		return false
	}
	if len(s.chunks) == 0 {
		return false
	}
	if s.err = s.use.add(samples); s.err != nil {
		return false
	}
	s.report.Stats.SeriesFetched++
	s.report.Stats.ChunksFetchedBytes += int64(size)
	s.cur = storeapi.Series{Labels: s.own(in.Labels())}
	if !s.skip {
		s.report.Stats.ChunksFetched += int64(len(s.chunks))
		s.cur.Chunks = storeapi.SortChunks(s.chunks)
	}
	return true
}

// own returns labels in memory of their own.
func (s *chunkSet) own(lset labels.Labels) labels.Labels {
	s.labels.Reset()
	lset.Range(func(l labels.Label) { s.labels.Add(l.Name, l.Value) })
	return s.labels.Labels()
}

func (s *chunkSet) At() storeapi.Series     { return s.cur }
func (s *chunkSet) Err() error              { return s.err }
func (s *chunkSet) Report() storeapi.Report { return s.report }

func (s *chunkSet) Close() {
	if s.closed {
		return
	}
	s.closed = true
	s.querier.Close() // nothing is written: it has nothing to say that matters
}

// clone returns a string in memory of its own.
func clone(s string) string { return strings.Clone(s) }

// usage counts what a request reads against its limits; 0 is none.
type usage struct {
	series, samples         int
	seriesRead, samplesRead int
}

func (u *usage) add(samples int) error {
	u.seriesRead++
	u.samplesRead += samples
	if u.series > 0 && u.seriesRead > u.series {
		return fmt.Errorf("%w: request reads more than %d series (%s); add a matcher or raise it", storeapi.ErrLimit, u.series, flagSeries)
	}
	if u.samples > 0 && u.samplesRead > u.samples {
		return fmt.Errorf("%w: request reads more than %d samples (%s); shorten the range, add a matcher or raise it", storeapi.ErrLimit, u.samples, flagSamples)
	}
	return nil
}

// endingSet tells once how an answer ended.
type endingSet struct {
	storeapi.SeriesSet
	end   func(error, storeapi.Report)
	ended bool
}

func (s *endingSet) Close() {
	if s.ended {
		return
	}
	s.ended = true
	s.SeriesSet.Close()
	s.end(s.Err(), s.Report())
}
