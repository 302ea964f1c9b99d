package querier

import (
	"slices"
	"strings"
	"time"

	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

// reading is what a PromQL function reads of downsampled data (COMPAT A2.3).
type reading uint8

const (
	readAverage reading = iota // sum divided by count
	readCount                  // raw samples have a count of 1
	readSum
	readMin
	readMax
	readCounter
)

// readingFor returns what a function or aggregation reads; ranged tells whether
// it is given the samples of a range. An aggregation "sum" adds up plain values, so
// it reads the average as any other does, and so does a function of a subquery:
// the steps of that are no windows.
func readingFor(function string, ranged bool) reading {
	name, _, _ := strings.Cut(function, "_")
	switch {
	case name == "min":
		return readMin
	case name == "max":
		return readMax
	case function == "count", function == "count_over_time" && ranged:
		return readCount
	case name == "sum" && function != "sum" && ranged:
		return readSum
	case isCounter(function):
		return readCounter
	}
	return readAverage
}

// isCounter tells whether a function takes its series for counters.
func isCounter(function string) bool {
	switch function {
	case "rate", "irate", "increase", "resets", "xrate", "xincrease":
		return true
	}
	return false
}

// aggregates returns what has to be fetched for a reading.
func (r reading) aggregates() []storeapi.Aggregate {
	switch r {
	case readCount:
		return []storeapi.Aggregate{storeapi.AggregateCount}
	case readSum:
		return []storeapi.Aggregate{storeapi.AggregateSum}
	case readMin:
		return []storeapi.Aggregate{storeapi.AggregateMin}
	case readMax:
		return []storeapi.Aggregate{storeapi.AggregateMax}
	case readCounter:
		return []storeapi.Aggregate{storeapi.AggregateCounter}
	}
	return []storeapi.Aggregate{storeapi.AggregateCount, storeapi.AggregateSum}
}

// maxResolution returns the coarsest resolution for a selector, in ms. A range
// must have room for a window, since what lies in part in it is not known; functions
// of how values change need two.
func maxResolution(wanted time.Duration, function string, rangeMillis int64) int64 {
	res := wanted.Milliseconds()
	needsTwo := []string{
		"rate", "irate", "increase", "delta", "idelta", "deriv", "predict_linear", "holt_winters", "double_exponential_smoothing",
	}
	switch {
	case rangeMillis > 0 && slices.Contains(needsTwo, function):
		res = min(res, rangeMillis/2)
	case rangeMillis > 0:
		res = min(res, rangeMillis)
	}
	switch { // what lies between the resolutions there are is the finer of them
	case res >= downsample.Resolution1h:
		return downsample.Resolution1h
	case res >= downsample.Resolution5m:
		return downsample.Resolution5m
	}
	return 0
}
