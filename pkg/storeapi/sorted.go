package storeapi

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Sorted changes the labels of each series of a set as e does, sorts the result
// and makes one of the series that have become equal. It holds the whole set in memory,
// from the first call of Next on; where the order is known to survive there are
// cheaper ways (Extended).
func Sorted(set SeriesSet, e *Extender) SeriesSet {
	return &sortedSet{SeriesSet: set, extender: e}
}

type sortedSet struct {
	SeriesSet
	extender *Extender
	series   []Series // left to return, when read is set
	read     bool
	cur      Series
	closed   bool
}

func (s *sortedSet) Next() bool {
	if !s.read {
		s.readAll()
	}
	if s.closed || s.Err() != nil || len(s.series) == 0 {
		return false
	}
	n := 1
	for n < len(s.series) && labels.Equal(s.series[0].Labels, s.series[n].Labels) {
		n++
	}
	s.cur = s.series[0]
	if n > 1 {
		for _, o := range s.series[1:n] {
			s.cur.Chunks = append(s.cur.Chunks, o.Chunks...)
		}
		s.cur.Chunks = SortChunks(s.cur.Chunks)
	}
	clear(s.series[:n])
	s.series = s.series[n:]
	return true
}

func (s *sortedSet) readAll() {
	s.read = true
	for s.SeriesSet.Next() {
		at := s.SeriesSet.At()
		chunks := slices.Clone(at.Chunks)
		mark(chunks, s.extender.Replica(at.Labels))
		s.series = append(s.series, Series{Labels: s.extender.Extend(at.Labels), Chunks: chunks})
	}
	slices.SortStableFunc(s.series, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
}

func (s *sortedSet) At() Series { return s.cur }

func (s *sortedSet) Close() {
	s.SeriesSet.Close()
	s.closed, s.series = true, nil
}

// Sharded leaves out of a set the series that don't belong to the shard. The
// set's series must have all their labels already.
func Sharded(set SeriesSet, shard *Shard) SeriesSet {
	if shard == nil || shard.Total <= 1 {
		return set
	}
	return &shardedSet{SeriesSet: set, shard: shard}
}

type shardedSet struct {
	SeriesSet
	shard *Shard
	buf   []byte
}

func (s *shardedSet) Next() bool {
	for s.SeriesSet.Next() {
		var mine bool
		if mine, s.buf = s.shard.Matches(s.At().Labels, s.buf); mine {
			return true
		}
	}
	return false
}
