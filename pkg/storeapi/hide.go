package storeapi

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Hidden tells when the samples of a series must not be shown: intervals in ms,
// sorted and apart, both ends inclusive.
type Hidden func(lset labels.Labels) tombstones.Intervals

// Hide leaves hidden samples out of the answer to a selection. Chunks that lie
// wholly in an interval go, those that reach into one are cut, and series that
// have nothing left vanish. Where only labels were asked for, a series vanishes
// if all of the time asked for is hidden. A nil Hidden hides nothing.
//
// Of a downsampled chunk each window goes that has a part in an interval. Its
// resolution is told from its timestamps; where they fit both it is the coarser.
func Hide(set SeriesSet, sel Selection, hidden Hidden) SeriesSet {
	if hidden == nil {
		return set
	}
	return &hideSet{SeriesSet: set, sel: sel, hidden: hidden}
}

type hideSet struct {
	SeriesSet
	sel    Selection
	hidden Hidden

	cur    Series
	chunks []Chunk // of cur, where it was cut
	err    error
}

func (s *hideSet) Next() bool {
	for s.err == nil && s.SeriesSet.Next() {
		s.cur = s.SeriesSet.At()
		if s.visible() {
			return true
		}
	}
	return false
}

// visible cuts the current series and tells whether anything is left of it.
func (s *hideSet) visible() bool {
	cuts := s.hidden(s.cur.Labels)
	switch {
	case len(cuts) == 0:
		return true
	case Covers(cuts, s.sel.Mint, s.sel.Maxt):
		return false
	case s.sel.SkipChunks || len(s.cur.Chunks) == 0:
		return true
	}
	s.chunks = s.chunks[:0]
	for _, c := range s.cur.Chunks {
		keep, err := CutChunk(&c, cuts, 0)
		if err != nil {
			s.err = fmt.Errorf("hide samples of %s: chunk from %d to %d ms: %w", s.cur.Labels, c.MinTime, c.MaxTime, err)
			return false
		}
		if keep {
			s.chunks = append(s.chunks, c)
		}
	}
	// What is left of an aggregate chunk may begin after the chunk that followed it.
	slices.SortStableFunc(s.chunks, compareTimes)
	s.cur.Chunks = s.chunks
	return len(s.chunks) > 0
}

func (s *hideSet) At() Series { return s.cur }

func (s *hideSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

// Covers tells whether all of [mint, maxt], ms, both inclusive, is in the intervals.
func Covers(cuts tombstones.Intervals, mint, maxt int64) bool {
	return tombstones.Interval{Mint: mint, Maxt: maxt}.IsSubrange(cuts)
}

// overlapping tells whether any interval has a part in [mint, maxt].
func overlapping(cuts tombstones.Intervals, mint, maxt int64) bool {
	i, _ := slices.BinarySearchFunc(cuts, mint, func(in tombstones.Interval, t int64) int {
		if in.Maxt < t {
			return -1
		}
		return 1
	})
	return i < len(cuts) && cuts[i].Mint <= maxt
}
