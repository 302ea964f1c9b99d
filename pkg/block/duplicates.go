package block

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// Duplicates returns the blocks whose sources all lie in one other block of the
// same group, so that they hold nothing that it does not. Of blocks with the
// same sources the one with the lowest ULID stays. Of a group that was cut into
// shards the closing one carries the sources of all of them; it covers those
// only where the others are there too. Since other shards name only themselves,
// of these it counts what they were cut from (Shard.Sources): one is a duplicate
// of a block that has all of that, at least for its part of the series, as the
// same shard has once late data was cut too. A block that replicas were made one in
// (Extension.ReplicaLabels) also covers theirs, whose groups are others: read
// side by side, its windows and their samples would count twice. The result is
// sorted.
func Duplicates(metas map[ulid.ULID]*Meta) []ulid.ULID {
	groups := candidates(metas)
	var out []ulid.ULID
	for _, group := range groups {
		out = append(out, duplicates(group)...)
	}
	out = append(out, replicas(groups)...)
	slices.SortFunc(out, ulid.ULID.Compare)
	return slices.Compact(out)
}

// candidate is a block that may cover others and be covered itself, with what is
// asked of it many times.
type candidate struct {
	*Meta
	ext     Extension   // zero where it can't be read
	sources []ulid.ULID // sorted
	stands  []ulid.ULID // sources that it covers, sorted
	part    []ulid.ULID // what it is a part of, if it is a shard, sorted
}

// candidates reads what metas say, each once, by group.
func candidates(metas map[ulid.ULID]*Meta) map[string][]*candidate {
	groups := map[string][]*candidate{}
	for _, m := range metas {
		c := &candidate{Meta: m, sources: m.Sources()}
		if !slices.IsSortedFunc(c.sources, ulid.ULID.Compare) {
			c.sources = slices.SortedFunc(slices.Values(c.sources), ulid.ULID.Compare)
		}
		if ext, _, err := m.Extension(); err == nil {
			c.ext = ext
		}
		if s := c.ext.Shard; s != nil {
			c.part = slices.SortedFunc(slices.Values(s.Sources), ulid.ULID.Compare)
		}
		key := m.GroupKey()
		groups[key] = append(groups[key], c)
	}
	for _, group := range groups {
		shards := shardsOf(group)
		for _, c := range group {
			if c.stands = c.sources; !siblings(shards, c) {
				c.stands = []ulid.ULID{c.ULID}
			}
		}
	}
	return groups
}

// size is how many sources a block speaks of.
func (c *candidate) size() int { return max(len(c.sources), len(c.part)) }

// shardsOf lists the shards of a group by the split that they are of.
func shardsOf(group []*candidate) map[string][]*candidate {
	shards := map[string][]*candidate{}
	for _, c := range group {
		if s := c.ext.Shard; s != nil {
			shards[s.Split] = append(shards[s.Split], c)
		}
	}
	return shards
}

// siblings tells whether all shards that were cut together with c are there, for
// its time, or had no series, if it is the one that closes their split. Any other
// block has all.
func siblings(shards map[string][]*candidate, c *candidate) bool {
	s := c.ext.Shard
	if s == nil || s.Index != s.Count-1 {
		return true
	}
	there := map[int]bool{}
	for _, i := range s.Void {
		there[i] = true
	}
	for _, other := range shards[s.Split] {
		if other.Overlaps(c.MinTime, c.MaxTime-1) {
			there[other.ext.Shard.Index] = true
		}
	}
	return len(there) == s.Count
}

// covers tells whether all sources of o are among those that c stands for.
func (c *candidate) covers(o *candidate) bool {
	return c.ULID != o.ULID && subset(o.sources, c.stands)
}

// holds tells whether all of a shard is in c.
func (c *candidate) holds(shard *candidate) bool {
	if own := c.ext.Shard; own != nil {
		return c.ULID != shard.ULID && subset(shard.part, c.part) && own.holds(shard.ext.Shard)
	}
	return subset(shard.part, c.stands)
}

// holds tells whether all series of o are among those of s.
func (s *Shard) holds(o *Shard) bool {
	return labels.Compare(s.From, o.From) <= 0 && (s.To.IsEmpty() || !o.To.IsEmpty() && labels.Compare(o.To, s.To) <= 0)
}

// subset tells whether all of a is in b; both are sorted.
func subset(a, b []ulid.ULID) bool {
	return len(a) <= len(b) && !slices.ContainsFunc(a, func(id ulid.ULID) bool { return !has(b, id) })
}

// coverers are blocks by each of the sources that they stand for.
type coverers map[ulid.ULID][]*candidate

func (by coverers) add(c *candidate) {
	for _, id := range c.stands {
		by[id] = append(by[id], c)
	}
	for _, id := range c.part {
		if !has(c.stands, id) {
			by[id] = append(by[id], c)
		}
	}
}

// of returns those that may cover c: who covers it has its first source, too.
func (by coverers) of(c *candidate) []*candidate { return by[c.sources[0]] }

// duplicates returns the blocks of a group that others in it cover.
func duplicates(group []*candidate) []ulid.ULID {
	// The most sources first, so that whoever may cover a block is seen before it.
	slices.SortFunc(group, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.size(), a.size()), cmp.Compare(len(a.part), len(b.part)), a.ULID.Compare(b.ULID))
	})
	var out []ulid.ULID
	kept := coverers{}
	for _, c := range group {
		if slices.ContainsFunc(kept.of(c), func(o *candidate) bool { return o.covers(c) }) {
			out = append(out, c.ULID)
			continue
		}
		if len(c.part) > 0 && slices.ContainsFunc(kept[c.part[0]], func(o *candidate) bool { return o.holds(c) }) {
			out = append(out, c.ULID)
			continue
		}
		kept.add(c)
	}
	return out
}

// deduplication is what was made by taking some labels off.
type deduplication struct {
	names []string            // the labels
	made  map[string]coverers // by group
}

// replicas returns the blocks that lie in one that was deduplicated.
func replicas(groups map[string][]*candidate) []ulid.ULID {
	var out []ulid.ULID
	for _, d := range deduplications(groups) {
		for _, group := range groups {
			without := withoutReplica(group[0].Meta, d.names)
			if without == nil {
				continue
			}
			made := d.made[without.GroupKey()]
			for _, c := range group {
				if slices.ContainsFunc(made.of(c), func(o *candidate) bool { return o.covers(c) && o.Overlaps(c.MinTime, c.MaxTime-1) }) {
					out = append(out, c.ULID)
				}
			}
		}
	}
	return out
}

// deduplications lists the blocks that were deduplicated, by the labels they lost.
func deduplications(groups map[string][]*candidate) map[string]deduplication {
	out := map[string]deduplication{}
	for key, group := range groups {
		for _, c := range group {
			names := c.ext.ReplicaLabels
			if len(names) == 0 {
				continue
			}
			d, ok := out[strings.Join(names, "\xff")]
			if !ok {
				d = deduplication{names, map[string]coverers{}}
				out[strings.Join(names, "\xff")] = d
			}
			if d.made[key] == nil {
				d.made[key] = coverers{}
			}
			d.made[key].add(c)
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

// Sources are the blocks of level 1 in m. One that names none is its own.
func (m *Meta) Sources() []ulid.ULID {
	if len(m.Compaction.Sources) == 0 {
		return []ulid.ULID{m.ULID}
	}
	return m.Compaction.Sources
}
