package store

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// candidate is what the choice of blocks looks at.
type candidate struct {
	id         ulid.ULID
	mint, maxt int64 // ms, maxt exclusive
	resolution int64 // ms
	shard      *block.Shard
	odd        bool // nobody knows which series it has, so it stands for none
}

// choice is a block to read, and what of it not to.
type choice struct {
	at   int         // its place among the candidates
	over []candidate // coarser blocks that overlap it: they answer for their time
}

// hidden returns the time of which coarser blocks have a series, so that nothing
// is counted twice; nil where that is so of no series.
func (c choice) hidden() storeapi.Hidden {
	if len(c.over) == 0 {
		return nil
	}
	return func(lset labels.Labels) tombstones.Intervals {
		return times(c.over, func(o candidate) bool { return o.shard.Contains(lset) })
	}
}

// times returns the time of those blocks that are wanted.
func times(blocks []candidate, wanted func(candidate) bool) (out tombstones.Intervals) {
	for _, b := range blocks {
		if wanted(b) {
			out = out.Add(tombstones.Interval{Mint: b.mint, Maxt: b.maxt - 1})
		}
	}
	return out
}

// chooseBlocks picks, among blocks of the same external labels, those to answer
// [mint, maxt] (closed, ms) from: the coarsest resolution up to maxResolution
// first and, where its blocks leave a gap, the next finer one, and so on; of a
// block that overlaps coarser ones, only the gap is read. A shard answers for its
// own series alone. All blocks of one resolution are taken, overlapping or not.
// The result is in order of time.
func chooseBlocks(blocks []candidate, mint, maxt, maxResolution int64) []choice {
	var coarse []candidate
	for _, b := range blocks {
		if b.resolution > 0 && b.resolution <= maxResolution && !b.odd && b.mint <= maxt && b.maxt > mint {
			coarse = append(coarse, b)
		}
	}
	var out []choice
	for i, b := range blocks {
		from, to := max(b.mint, mint), min(b.maxt-1, maxt)
		if b.resolution > maxResolution || from > to {
			continue
		}
		var over []candidate
		for _, c := range coarse {
			if c.resolution > b.resolution && c.mint < b.maxt && c.maxt > b.mint {
				over = append(over, c)
			}
		}
		whole := times(over, func(c candidate) bool { return c.shard == nil || c.shard.Key() == b.shard.Key() })
		if !storeapi.Covers(whole, from, to) {
			out = append(out, choice{at: i, over: over})
		}
	}
	slices.SortFunc(out, func(x, y choice) int {
		return byTime(blocks[x.at], blocks[y.at])
	})
	return out
}

func byTime(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.mint, b.mint), cmp.Compare(a.maxt, b.maxt), a.id.Compare(b.id))
}
