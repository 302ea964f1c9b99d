package store

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"
)

// candidate is what the choice of blocks looks at.
type candidate struct {
	id         ulid.ULID
	mint, maxt int64 // ms, maxt exclusive
	resolution int64 // ms
}

// chooseBlocks picks, among blocks of the same external labels, those to answer
// [mint, maxt] (closed, ms) from: the coarsest resolution up to maxResolution
// first and, where its blocks leave a gap, the next finer one, and so on. All
// blocks of one resolution are taken, overlapping or not. The result has places
// in blocks, in order of time.
func chooseBlocks(blocks []candidate, mint, maxt, maxResolution int64) []int {
	levels := levelsOf(blocks, maxResolution)
	taken := map[int]bool{}
	fill(blocks, levels, mint, maxt, taken)
	out := make([]int, 0, len(taken))
	for i := range taken {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b int) int { return byTime(blocks[a], blocks[b]) })
	return out
}

// levelsOf groups blocks by resolution, coarsest first, each level by time.
func levelsOf(blocks []candidate, maxResolution int64) [][]int {
	by := map[int64][]int{}
	for i, b := range blocks {
		if b.resolution <= maxResolution {
			by[b.resolution] = append(by[b.resolution], i)
		}
	}
	var levels [][]int
	for _, level := range by {
		slices.SortFunc(level, func(a, b int) int { return byTime(blocks[a], blocks[b]) })
		levels = append(levels, level)
	}
	slices.SortFunc(levels, func(a, b []int) int { return cmp.Compare(blocks[b[0]].resolution, blocks[a[0]].resolution) })
	return levels
}

func byTime(a, b candidate) int {
	return cmp.Or(cmp.Compare(a.mint, b.mint), cmp.Compare(a.maxt, b.maxt), a.id.Compare(b.id))
}

// fill takes the blocks of the first level in [mint, maxt], and has the gaps
// between them filled from the others.
func fill(blocks []candidate, levels [][]int, mint, maxt int64, taken map[int]bool) {
	if mint > maxt || len(levels) == 0 {
		return
	}
	from := mint
	for _, i := range levels[0] {
		b := blocks[i]
		if b.maxt <= mint {
			continue
		}
		if b.mint > maxt {
			break
		}
		fill(blocks, levels[1:], from, b.mint-1, taken)
		taken[i] = true
		from = max(from, b.maxt)
	}
	fill(blocks, levels[1:], from, maxt, taken)
}
