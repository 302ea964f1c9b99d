package replay

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

// covered is until when head chunk files have the samples of each series. It does not change
// while the log is read.
//
// References are given in order from 1 on, so that pages fill up: at least until many
// series have gone, and what is left is far apart.
type covered struct {
	pages []*[pageSize]int64 // ms
	used  density
}

const (
	pageBits = 9
	pageSize = 1 << pageBits
	// mostPages bounds the tables of a log with absurd references.
	mostPages = 1 << 21
	// freePages is how many pages there may be however few references they have: some 35 MB of
	// either table. References come in any order, in head chunk files every 2048th one first, so that pages that
	// fill up in the end are thin at first: those of 16 million series then, of 5 million at random.
	freePages = 8 << 10
)

// density is how full the pages of a table are.
type density struct{ pages, references int }

// thin tells whether many pages take more than some 260 bytes a reference.
func (d density) thin() bool { return d.pages > freePages+d.references/16 }

// until returns the time of the newest such sample, ms.
func (c *covered) until(ref chunks.HeadSeriesRef) int64 {
	if n := uint64(ref) >> pageBits; n < uint64(len(c.pages)) && c.pages[n] != nil {
		return c.pages[n][uint64(ref)%pageSize]
	}
	return math.MinInt64
}

// set returns false if the reference is absurd, or references are too far apart.
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
		c.used.pages++
	}
	at := &c.pages[n][uint64(ref)%pageSize]
	if *at == math.MinInt64 {
		c.used.references++
	}
	*at = until
	return !c.used.thin()
}
