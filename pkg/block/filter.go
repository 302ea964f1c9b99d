package block

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// BlockIDLabel is the label by which a selector sees a block's ULID.
const BlockIDLabel = "__block_id"

// Selection tells Select which blocks to leave out. Its zero value leaves out none.
type Selection struct {
	MinTime, MaxTime         int64             // ms; both zero: all times
	Selector                 []*relabel.Config // over external labels and BlockIDLabel
	IgnoreLabels             []string          // external labels that the selector doesn't see
	ConsistencyDelay         time.Duration     // blocks visible for less are left out
	IgnoreDeletionMarksDelay time.Duration     // blocks marked for longer are left out
	IgnoreMarked             bool              // apply IgnoreDeletionMarksDelay, even if 0
	Deduplicate              bool              // leave out blocks whose sources another block has too
}

// Select returns v without the blocks that sel leaves out at the moment now. It
// asks in a fixed order, since each step sees only what the one before has left:
// time, selector, consistency delay, deletion marks, duplicates. It reads
// nothing and can't fail.
func Select(v View, sel Selection, now time.Time) View {
	out := v.clone()
	out.Dropped, out.LeftOut = map[Reason]int{}, map[ulid.ULID]*Meta{}
	for id, m := range v.Metas {
		if reason := sel.refuses(m, v.Marks[id], now); reason != "" {
			out.leaveOut(id, reason)
		}
	}
	if sel.Deduplicate {
		for _, id := range Duplicates(out.Metas) {
			out.leaveOut(id, DroppedDuplicate)
		}
	}
	return out
}

func (v *View) leaveOut(id ulid.ULID, reason Reason) {
	v.LeftOut[id] = v.Metas[id]
	delete(v.Metas, id)
	v.Dropped[reason]++
}

// refuses looks at one block by itself; "" keeps it.
func (sel *Selection) refuses(m *Meta, marks Marks, now time.Time) Reason {
	switch {
	case !sel.inTime(m):
		return DroppedTime
	case !selected(m, sel.Selector, sel.IgnoreLabels):
		return DroppedSelector
	case fresh(m, sel.ConsistencyDelay, now):
		return DroppedFresh
	case sel.IgnoreMarked && marks.Deletion != nil && marks.Deletion.age(now) >= sel.IgnoreDeletionMarksDelay:
		return DroppedMarked
	}
	return ""
}

func (sel *Selection) inTime(m *Meta) bool {
	if sel.MinTime == 0 && sel.MaxTime == 0 {
		return true
	}
	return m.Overlaps(sel.MinTime, sel.MaxTime)
}

// selected applies relabel rules to a block's labels but those to be ignored.
func selected(m *Meta, rules []*relabel.Config, ignore []string) bool {
	if len(rules) == 0 {
		return true
	}
	b := labels.NewBuilder(m.Labels())
	b.Del(ignore...)
	b.Set(BlockIDLabel, m.ULID.String())
	return relabel.ProcessBuilder(b, rules...)
}

// fresh tells whether a block became visible less than delay ago. Blocks that
// replace others are exempt: they hold nothing new, and their sources may go.
func fresh(m *Meta, delay time.Duration, now time.Time) bool {
	if delay <= 0 {
		return false // even where an uploader's clock is ahead of ours
	}
	switch m.Thanos.Source {
	case SourceCompactor, SourceCompactorRepair, SourceBucketRepair:
		return false
	}
	return now.Sub(m.Uploaded()) < delay
}

// age is how long ago a block was marked.
func (m *DeletionMark) age(now time.Time) time.Duration { return now.Sub(time.Unix(m.DeletionTime, 0)) }

// Duplicates returns the blocks whose sources all lie in one other block of the
// same group, so that they hold nothing that it does not. Of blocks with the
// same sources the one with the lowest ULID stays. Of a group that was cut into
// shards the closing one carries the sources of all of them; it covers those
// only where the others are there too. A block that replicas were made one in
// (Extension.ReplicaLabels) also covers theirs, whose groups are others: read
// side by side, its windows and their samples would count twice. The result is
// sorted.
func Duplicates(metas map[ulid.ULID]*Meta) []ulid.ULID {
	groups := map[string][]*Meta{}
	for _, m := range metas {
		key := m.GroupKey()
		groups[key] = append(groups[key], m)
	}
	var out []ulid.ULID
	for _, group := range groups {
		out = append(out, duplicates(group)...)
	}
	out = append(out, replicas(metas, groups)...)
	slices.SortFunc(out, ulid.ULID.Compare)
	return slices.Compact(out)
}

// replicas returns the blocks that lie in one that was deduplicated.
func replicas(metas map[ulid.ULID]*Meta, groups map[string][]*Meta) []ulid.ULID {
	taken := map[string][]string{} // the sets of labels that were taken off somewhere
	for _, m := range metas {
		if ext, _, err := m.Extension(); err == nil && len(ext.ReplicaLabels) > 0 {
			taken[strings.Join(ext.ReplicaLabels, "\xff")] = ext.ReplicaLabels
		}
	}
	var out []ulid.ULID
	for _, names := range taken {
		for _, group := range groups {
			without := withoutReplica(group[0], names)
			if without == nil {
				continue
			}
			for _, m := range group {
				if slices.ContainsFunc(groups[without.GroupKey()], func(c *Meta) bool { return deduplicated(c, names) && covers(groups[without.GroupKey()], c, m) }) {
					out = append(out, m.ULID)
				}
			}
		}
	}
	return out
}

// withoutReplica is a meta with the labels that m's group has once names are
// taken off; nil where it has none of them.
func withoutReplica(m *Meta, names []string) *Meta {
	left := maps.Clone(m.Thanos.Labels)
	for _, name := range names {
		delete(left, name)
	}
	if len(left) == len(m.Thanos.Labels) {
		return nil
	}
	if len(left) == 0 { // no block is without labels
		left[names[0]] = Deduped
	}
	return &Meta{Thanos: Thanos{Labels: left, Downsample: m.Thanos.Downsample}}
}

func deduplicated(m *Meta, names []string) bool {
	ext, _, err := m.Extension()
	return err == nil && slices.Equal(ext.ReplicaLabels, names)
}

// covers tells whether c, with its siblings in group, has all sources of m.
func covers(group []*Meta, c, m *Meta) bool {
	if c.ULID == m.ULID || !c.Overlaps(m.MinTime, m.MaxTime-1) {
		return false
	}
	have := c.Sources()
	return !slices.ContainsFunc(m.Sources(), func(id ulid.ULID) bool { return !slices.Contains(have, id) }) && siblings(group, c)
}

func duplicates(group []*Meta) []ulid.ULID {
	// The most sources first, so that whoever may cover a block is seen before it.
	slices.SortFunc(group, func(a, b *Meta) int {
		if d := len(b.Sources()) - len(a.Sources()); d != 0 {
			return d
		}
		return a.ULID.Compare(b.ULID)
	})
	var out []ulid.ULID
	kept := map[ulid.ULID][]map[ulid.ULID]struct{}{} // by source: the source sets of blocks that stay
	for _, m := range group {
		sources := m.Sources()
		if slices.ContainsFunc(kept[sources[0]], func(set map[ulid.ULID]struct{}) bool { return containsAll(set, sources) }) {
			out = append(out, m.ULID)
			continue
		}
		if !siblings(group, m) {
			sources = []ulid.ULID{m.ULID}
		}
		set := make(map[ulid.ULID]struct{}, len(sources))
		for _, s := range sources {
			set[s] = struct{}{}
		}
		for _, s := range sources {
			kept[s] = append(kept[s], set)
		}
	}
	return out
}

// siblings tells whether all shards that were cut together with m are in its
// group, for its time. A block that is no shard has all.
func siblings(group []*Meta, m *Meta) bool {
	ext, _, err := m.Extension()
	if err != nil || ext.Shard == nil || ext.Shard.Index != ext.Shard.Count-1 {
		return true
	}
	there := map[int]bool{}
	for _, other := range group {
		if o, _, err := other.Extension(); err == nil && o.Shard != nil && o.Shard.Split == ext.Shard.Split && other.Overlaps(m.MinTime, m.MaxTime-1) {
			there[o.Shard.Index] = true
		}
	}
	return len(there) == ext.Shard.Count
}

// Sources are the blocks of level 1 in m. One that names none is its own.
func (m *Meta) Sources() []ulid.ULID {
	if len(m.Compaction.Sources) == 0 {
		return []ulid.ULID{m.ULID}
	}
	return m.Compaction.Sources
}

func containsAll(set map[ulid.ULID]struct{}, ids []ulid.ULID) bool {
	for _, id := range ids {
		if _, ok := set[id]; !ok {
			return false
		}
	}
	return true
}
