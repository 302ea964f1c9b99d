package dedup

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Split tells apart the replicas whose chunks were mixed into one series: within
// each returned list no two chunks overlap, and a chunk goes to the replica
// which it continues best, that is, where the pause before it is nearest to its
// own interval between samples. Equal chunks are kept once.
//
// The chunks carry their data. The result depends on the chunks alone, not on
// their order, and there are as few replicas as can be.
func Split(metas []chunks.Meta) [][]chunks.Meta {
	sorted := slices.Clone(metas)
	slices.SortFunc(sorted, compare)
	sorted = slices.CompactFunc(sorted, func(a, b chunks.Meta) bool { return compare(a, b) == 0 })

	var replicas [][]chunks.Meta
	for _, m := range sorted {
		if i := bestFit(replicas, m); i >= 0 {
			replicas[i] = append(replicas[i], m)
		} else {
			replicas = append(replicas, []chunks.Meta{m})
		}
	}
	return replicas
}

// compare orders chunks by time and then by content.
func compare(a, b chunks.Meta) int {
	return cmp.Or(
		cmp.Compare(a.MinTime, b.MinTime),
		cmp.Compare(a.MaxTime, b.MaxTime),
		cmp.Compare(a.Chunk.Encoding(), b.Chunk.Encoding()),
		bytes.Compare(a.Chunk.Bytes(), b.Chunk.Bytes()),
	)
}

// bestFit returns the replica which m continues best, or -1 where m overlaps all.
func bestFit(replicas [][]chunks.Meta, m chunks.Meta) int {
	best, bestOff := -1, int64(0)
	own := meanInterval(m)
	for i, r := range replicas {
		last := r[len(r)-1]
		if last.MaxTime >= m.MinTime {
			continue
		}
		interval := own
		if interval == 0 {
			interval = meanInterval(last)
		}
		off := m.MinTime - last.MaxTime - interval
		if off < 0 {
			off = -off
		}
		if best < 0 || off < bestOff {
			best, bestOff = i, off
		}
	}
	return best
}

// meanInterval is the mean distance of the samples of m in ms, or 0 for a single one.
func meanInterval(m chunks.Meta) int64 {
	if n := m.Chunk.NumSamples(); n > 1 {
		return (m.MaxTime - m.MinTime) / int64(n-1)
	}
	return 0
}
