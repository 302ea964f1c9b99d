package storeapi

import "slices"

// SliceSet returns a set of series that are already sorted, each once.
func SliceSet(series []Series, report Report) SeriesSet {
	return &sliceSet{series: series, report: report, at: -1}
}

// EmptySet returns a set without series, which has only a report.
func EmptySet(report Report) SeriesSet { return SliceSet(nil, report) }

// ErrSet returns a set that ends at once with err.
func ErrSet(err error) SeriesSet { return &sliceSet{at: -1, err: err} }

type sliceSet struct {
	series []Series
	at     int
	err    error
	report Report
}

func (s *sliceSet) Next() bool {
	if s.at+1 >= len(s.series) {
		return false
	}
	s.at++
	return true
}

func (s *sliceSet) At() Series     { return s.series[s.at] }
func (s *sliceSet) Err() error     { return s.err }
func (s *sliceSet) Report() Report { return s.report }
func (s *sliceSet) Close()         { s.at = len(s.series) - 1 }

// Limit returns the first n series of set; n of 0 or below is no limit. The
// rest is not read, and the set is closed as soon as the last one was passed.
func Limit(set SeriesSet, n int) SeriesSet {
	if n <= 0 {
		return set
	}
	return &limitSet{SeriesSet: set, left: n}
}

type limitSet struct {
	SeriesSet
	left int
}

func (s *limitSet) Next() bool {
	if s.left <= 0 {
		s.SeriesSet.Close()
		return false
	}
	s.left--
	return s.SeriesSet.Next()
}

// limitNames returns the first n of sorted names or values; n of 0 or below is no limit.
func limitNames(names []string, n int) []string {
	if n <= 0 || len(names) <= n {
		return names
	}
	return slices.Clip(names[:n])
}
