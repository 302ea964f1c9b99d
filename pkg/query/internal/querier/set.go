package querier

import (
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// seriesSet is a storage.SeriesSet that is being fetched. What it holds is
// complete, and no longer written to, once done is closed.
type seriesSet struct {
	done     chan struct{}
	series   []*series
	warnings annotations.Annotations
	err      error

	at int // series returned so far
}

func newSet() *seriesSet { return &seriesSet{done: make(chan struct{})} }

// Next implements storage.SeriesSet. The first call waits for the whole answer;
// an answer that ended in an error has no series.
func (s *seriesSet) Next() bool {
	<-s.done
	if s.err != nil || s.at >= len(s.series) {
		return false
	}
	s.at++
	return true
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.series[s.at-1] }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error {
	<-s.done
	return s.err
}

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations {
	<-s.done
	return s.warnings
}
