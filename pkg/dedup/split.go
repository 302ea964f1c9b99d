package dedup

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Replica are the chunks of one replica, as runs within each of which no two
// chunks overlap. More than one run: the replica has some of its samples twice,
// from a live Prometheus and from its blocks, or came by some of them late.
type Replica [][]chunks.Meta

// Split tells apart the replicas whose chunks were mixed into one series. Ref of
// a chunk says which replica it is of; 0: not known. Among chunks without a Ref
// those that overlap are taken for different replicas, and each goes to the
// replica which it continues best, that is, where the pause before it is nearest
// to its own interval between samples. Equal chunks of one replica are kept once.
//
// The chunks carry their data. The result depends on the chunks alone, not on
// their order, and there are as few runs as can be.
func Split(metas []chunks.Meta) []Replica {
	sorted := slices.Clone(metas)
	slices.SortFunc(sorted, compare)
	sorted = slices.CompactFunc(sorted, func(a, b chunks.Meta) bool { return compare(a, b) == 0 })

	var replicas []Replica
	var unknown [][]chunks.Meta
	at := map[chunks.ChunkRef]int{}
	for _, m := range sorted {
		if m.Ref == 0 {
			unknown = addToRuns(unknown, m)
			continue
		}
		i, ok := at[m.Ref]
		if !ok {
			i = len(replicas)
			at[m.Ref] = i
			replicas = append(replicas, nil)
		}
		replicas[i] = addToRuns(replicas[i], m)
	}
	for _, run := range unknown {
		replicas = append(replicas, Replica{run})
	}
	return replicas
}

// addToRuns adds m to the run that it continues best, or begins a run with it.
func addToRuns(runs [][]chunks.Meta, m chunks.Meta) [][]chunks.Meta {
	if i := bestFit(runs, m); i >= 0 {
		runs[i] = append(runs[i], m)
		return runs
	}
	return append(runs, []chunks.Meta{m})
}

// compare orders chunks by time, then by content, then by replica.
func compare(a, b chunks.Meta) int {
	return cmp.Or(
		cmp.Compare(a.MinTime, b.MinTime),
		cmp.Compare(a.MaxTime, b.MaxTime),
		cmp.Compare(a.Chunk.Encoding(), b.Chunk.Encoding()),
		bytes.Compare(a.Chunk.Bytes(), b.Chunk.Bytes()),
		cmp.Compare(a.Ref, b.Ref),
	)
}

// bestFit returns the run which m continues best, or -1 where m overlaps all.
func bestFit(runs [][]chunks.Meta, m chunks.Meta) int {
	best, bestOff := -1, int64(0)
	own := meanInterval(m)
	for i, r := range runs {
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
