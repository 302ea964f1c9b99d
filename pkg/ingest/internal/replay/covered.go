package replay

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

// covered is until when head chunk files have the samples of each series. It does not change
// while the log is read.
//
// References are given in order from 1 on, so that pages fill up.
type covered struct {
	pages []*[pageSize]int64 // ms
}

const (
	pageBits = 12
	pageSize = 1 << pageBits
	// mostPages bounds the tables of a log with absurd references.
	mostPages = 1 << 18
)

// until returns the time of the newest such sample, ms.
func (c *covered) until(ref chunks.HeadSeriesRef) int64 {
	if n := uint64(ref) >> pageBits; n < uint64(len(c.pages)) && c.pages[n] != nil {
		return c.pages[n][uint64(ref)%pageSize]
	}
	return math.MinInt64
}

// set returns false if the reference is absurd.
func (c *covered) set(ref chunks.HeadSeriesRef, until int64) bool {
	n := uint64(ref) >> pageBits
	if n >= mostPages {
		return false
	}
	for uint64(len(c.pages)) <= n {
		c.pages = append(c.pages, nil)
	}
	if c.pages[n] == nil {
		page := new([pageSize]int64)
		for i := range page {
			page[i] = math.MinInt64
		}
		c.pages[n] = page
	}
	c.pages[n][uint64(ref)%pageSize] = until
	return true
}
