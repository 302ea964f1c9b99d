// Package notes keeps what blocks have no place for beside them in the bucket:
// what senders say about metrics (type, help, unit), and exemplars. A Note
// belongs to one block of level 1 and is found by that block's ULID for as long
// as any live block names it as a source, so compaction need not touch it.
//
// A Log is where a Note comes from: a bounded file on the writer's disk to which
// exemplars are added as they come, cut by the time of a block when that is
// shipped. Losing a note loses no samples, so nothing waits for one for ever.
//
// Everything here is safe for concurrent use but the fields of a Note.
package notes

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
)

// Note is what is kept beside a block.
type Note struct {
	MinTime, MaxTime int64    // ms, of the block; MaxTime exclusive
	Families         []Family // sorted, each once
	Series           []Series // sorted by labels, each once
}

// Family is one meaning that senders have given to a metric. A metric may have several.
type Family struct {
	Name, Type, Help, Unit string
}

// Series are the exemplars of one series, without external labels.
type Series struct {
	Labels    labels.Labels
	Exemplars []exemplar.Exemplar // sorted by time, each once; all have timestamps
}

// Empty tells that there is nothing worth keeping.
func (n *Note) Empty() bool { return len(n.Families) == 0 && len(n.Series) == 0 }

// Exemplars counts them.
func (n *Note) Exemplars() (sum int) {
	for _, s := range n.Series {
		sum += len(s.Exemplars)
	}
	return sum
}

// normalize sorts everything and makes equal things one.
func (n *Note) normalize() {
	slices.SortFunc(n.Families, compareFamilies)
	n.Families = slices.Compact(n.Families)
	n.Series = MergeSeries(n.Series)
}

func compareFamilies(a, b Family) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
}

// MergeSeries sorts a list by labels and its exemplars by time, and makes equal
// ones one. It may change the list, and not the exemplars in it.
func MergeSeries(list []Series) []Series {
	slices.SortStableFunc(list, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	out := list[:0]
	for _, s := range list {
		if last := len(out) - 1; last >= 0 && labels.Equal(out[last].Labels, s.Labels) {
			out[last].Exemplars = append(out[last].Exemplars, s.Exemplars...)
			continue
		}
		s.Exemplars = slices.Clone(s.Exemplars)
		out = append(out, s)
	}
	for i := range out {
		slices.SortFunc(out[i].Exemplars, compareExemplars)
		out[i].Exemplars = slices.CompactFunc(out[i].Exemplars, func(a, b exemplar.Exemplar) bool { return compareExemplars(a, b) == 0 })
	}
	return slices.DeleteFunc(out, func(s Series) bool { return len(s.Exemplars) == 0 })
}

func compareExemplars(a, b exemplar.Exemplar) int {
	return cmp.Or(cmp.Compare(a.Ts, b.Ts), labels.Compare(a.Labels, b.Labels), cmp.Compare(a.Value, b.Value))
}

// SizeBytes is roughly the memory that a note takes once it was read.
func (n *Note) SizeBytes() int {
	const family, series, one = 64, 48, 56 // the structs themselves
	size := 0
	for _, f := range n.Families {
		size += family + len(f.Name) + len(f.Type) + len(f.Help) + len(f.Unit)
	}
	for _, s := range n.Series {
		size += series + sizeOfLabels(s.Labels)
		for _, e := range s.Exemplars {
			size += one + sizeOfLabels(e.Labels)
		}
	}
	return size
}
