package storeapi

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// Merge makes one sorted set of many. Equal series become one with the chunks
// of all, sorted and without exact duplicates; reports are combined. The first
// error of a set ends the merged one with it: a caller for whom the loss of one
// set is a warning wraps that set beforehand.
//
// It streams: of each set it holds the series it stands at, and it allocates
// nothing per sample or chunk once its buffer has grown. The sets are read by
// the goroutine that calls Next. Close closes all of them.
func Merge(sets ...SeriesSet) SeriesSet {
	if len(sets) == 0 {
		return EmptySet(Report{})
	}
	return &mergeSet{sets: sets, at: make([]labels.Labels, len(sets)), done: make([]bool, len(sets))}
}

type mergeSet struct {
	sets []SeriesSet
	at   []labels.Labels // of the series each set stands at
	done []bool
	tree *loserTree // nil until the first call of Next

	cur    Series
	chunks []Chunk // buffer of cur
	read   bool    // cur is set
	err    error
}

func (s *mergeSet) Next() bool {
	if s.err != nil {
		return false
	}
	if s.tree == nil && !s.start() {
		return false
	}
	w := s.tree.winner()
	if s.done[w] {
		return false
	}
	lset := s.at[w]
	if s.read && labels.Compare(s.cur.Labels, lset) >= 0 {
		s.err = fmt.Errorf("%w: merge: series %s follows %s", ErrCorrupt, lset, s.cur.Labels)
		return false
	}
	s.chunks = s.chunks[:0]
	for !s.done[w] && labels.Equal(s.at[w], lset) {
		s.chunks = append(s.chunks, s.sets[w].At().Chunks...)
		if !s.advance(w) {
			return false
		}
		s.tree.replay()
		w = s.tree.winner()
	}
	s.cur, s.read = Series{Labels: lset, Chunks: SortChunks(s.chunks)}, true
	return true
}

// start moves every set to its first series.
func (s *mergeSet) start() bool {
	for i := range s.sets {
		if !s.advance(i) {
			return false
		}
	}
	s.tree = newLoserTree(len(s.sets), s.less)
	return true
}

// advance moves set i on. It returns false after an error.
func (s *mergeSet) advance(i int) bool {
	if s.sets[i].Next() {
		s.at[i] = s.sets[i].At().Labels
		return true
	}
	s.done[i], s.at[i] = true, labels.EmptyLabels()
	s.err = s.sets[i].Err()
	return s.err == nil
}

// less orders sets by the series they stand at, equal ones by their place, those at their end last.
func (s *mergeSet) less(a, b int) bool {
	if s.done[a] || s.done[b] {
		return !s.done[a]
	}
	c := labels.Compare(s.at[a], s.at[b])
	return c < 0 || c == 0 && a < b
}

func (s *mergeSet) At() Series { return s.cur }
func (s *mergeSet) Err() error { return s.err }

func (s *mergeSet) Report() Report {
	var r Report
	for _, set := range s.sets {
		r.Add(set.Report())
	}
	return r
}

func (s *mergeSet) Close() {
	for i, set := range s.sets {
		set.Close()
		s.done[i] = true
	}
	if s.tree == nil {
		s.tree = newLoserTree(len(s.sets), s.less)
	}
}
