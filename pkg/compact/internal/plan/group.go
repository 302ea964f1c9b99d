package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// Blocks are looked at in three circles:
//
//	family   equal external labels, replica labels taken off: retention, coverage, who else is at work
//	└─ tier  of one resolution: what one block covers of another; downsampling goes from tier to tier
//	   └─ lane  of one shard of one split, or of the unsharded: what may be compacted together
type family struct {
	labels  labels.Labels
	all     []*entry // sorted by ULID, marked ones too
	tiers   []*tier  // raw, 5m, 1h; those without blocks too
	numbers map[ulid.ULID]int32
	newest  int64  // largest MinTime of raw data, ms
	cuts    []*cut // newest first
	resting bool
	clashes []*entry // shards that can't be what they say, or others can't
}

type tier struct {
	family     *family
	resolution int64
	live       []*entry // not marked, content usable; sorted by time
	bad        []*entry // not marked, content unusable
	lanes      []*lane
	shards     map[string][]*entry // live ones, by split
	parts      map[string][]*entry // live ones that shards of a split were split into, by that split
	cover      cover
	stays      cover    // without the blocks that retention is about to mark
	pending    []*entry // of the next finer tier: what is still to come into this one
}

type lane struct {
	tier   *tier
	shard  *block.Shard // nil: the unsharded blocks
	span   span
	blocks []*entry // live, sorted by time
}

// entry is a block as the planner sees it.
type entry struct {
	meta     *block.Meta
	ext      block.Extension
	ours     bool
	marks    block.Marks
	lane     *lane
	span     span
	sources  []int32 // numbers in the family of the blocks of level 1 that it is made of, sorted
	visible  []int32 // those that its meta.json names to other readers; of a shard they differ
	external labels.Labels
	aside    bool // may be covered, kept and read, but is no input of compaction

	clashes bool // with what others, made of more, say of the same split
	doubted bool // it clashes, or another does with it: it covers nothing, and only what was made of it covers it
	garbage bool
	expired bool // retention is about to mark it
	taken   bool // a job has it
	classes []policy.Class
	cut     []policy.Class // have expired, and may go
}

func (e *entry) id() ulid.ULID { return e.meta.ULID }

// closing tells of the shard that closes a split, or is compacted from such.
func (e *entry) closing() bool { return e.ext.Shard != nil && e.ext.Shard.Index == e.ext.Shard.Count-1 }

// standsFor is what the shard that closes a split names in its meta.json: all that
// was split and, where that was such a shard itself, what that one stood for.
func (e *entry) standsFor() span {
	within := e.ext.Shard.Within
	for within != nil && within.Index == within.Count-1 {
		within = within.Within
	}
	if within == nil {
		return span{}
	}
	return span{within.From, within.To}
}

// bad tells of a block whose content was found unusable.
func (e *entry) bad() bool { return IsBad(e.marks.NoCompact) }

// level1 are the blocks of level 1 that m is made of, or is a part of. A block
// that names none is its own.
func level1(m *block.Meta, ext block.Extension) []ulid.ULID {
	switch {
	case ext.Shard != nil && len(ext.Shard.Sources) > 0:
		return ext.Shard.Sources
	case len(m.Compaction.Sources) > 0:
		return m.Compaction.Sources
	}
	return []ulid.ULID{m.ULID}
}

func (f *family) tier(resolution int64) *tier {
	for _, t := range f.tiers {
		if t.resolution == resolution {
			return t
		}
	}
	return nil
}

// coarser returns the tier that is downsampled from t; nil for the last one.
func (t *tier) coarser() *tier {
	i := slices.Index(t.family.tiers, t)
	if i+1 == len(t.family.tiers) {
		return nil
	}
	return t.family.tiers[i+1]
}

func (t *tier) key() string { return fmt.Sprintf("%d@%d", t.resolution, t.family.labels.Hash()) }

func (l *lane) key() string { return l.tier.key() + "/" + l.name() }

func (l *lane) name() string {
	if l.shard == nil {
		return "whole"
	}
	return l.shard.Key()
}

// families calls plan for the blocks of each family. One is looked at after the
// other, so that what is worked out for one needs no memory during the next.
func (p *planner) families(plan func(*family)) {
	byLabels := map[string][]ulid.ULID{}
	for id, m := range p.in.Metas {
		key := string(p.strip(m.Labels()).Bytes(nil))
		byLabels[key] = append(byLabels[key], id)
	}
	for _, key := range slices.Sorted(maps.Keys(byLabels)) {
		ids := byLabels[key]
		slices.SortFunc(ids, ulid.ULID.Compare)
		f := &family{labels: p.strip(p.in.Metas[ids[0]].Labels()), numbers: map[ulid.ULID]int32{}}
		for _, id := range ids {
			e := &entry{meta: p.in.Metas[id], marks: p.in.Marks[id], external: p.in.Metas[id].Labels()}
			if p.admit(e, f) {
				f.all = append(f.all, e)
			}
		}
		f.build()
		p.clashes(f)
		f.cuts = f.findCuts()
		for _, t := range f.tiers {
			t.cover = f.newCover(t.live)
		}
		plan(f)
	}
}

// strip takes replica labels off where replicas are merged. Since a block in a
// bucket has labels, one is put in place of the last.
func (p *planner) strip(external labels.Labels) labels.Labels {
	if !p.cfg.Dedup || len(p.cfg.ReplicaLabels) == 0 {
		return external
	}
	out := labels.NewBuilder(external).Del(p.cfg.ReplicaLabels...).Labels()
	if out.IsEmpty() {
		return labels.FromStrings(p.cfg.ReplicaLabels[0], block.Deduped)
	}
	return out
}

// admit reads what the planner needs of a block; false where it must be left
// alone altogether, since it may hold what this program doesn't understand.
func (p *planner) admit(e *entry, f *family) bool {
	id := e.id()
	group := fmt.Sprintf("%d@%d", e.meta.Resolution(), f.labels.Hash())
	if err := p.in.Problems[id]; err != nil {
		return false // said with the other problems
	}
	var err error
	if e.ext, e.ours, err = e.meta.Extension(); err != nil {
		p.setAside(id, group, err.Error())
		return false
	}
	switch r := e.meta.Resolution(); r {
	case block.ResolutionRaw, block.Resolution5m, block.Resolution1h:
	default:
		p.setAside(id, group, fmt.Sprintf("its resolution of %d ms is none of raw, 5m, 1h", r))
		return false
	}
	if s := e.ext.Shard; s != nil {
		e.span = span{s.From, s.To}
		if s.Count < 2 || s.Count > maxShards || s.Index < 0 || s.Index >= s.Count || e.span.empty() {
			p.setAside(id, group, fmt.Sprintf("its record of shard %s from %s to %s makes no sense", s.Key(), s.From, s.To))
			return false
		}
	}
	p.markedAside(e, group)
	return true
}

// markedAside keeps a block out of compaction where a mark says so. The marks on
// our own shards are for others.
func (p *planner) markedAside(e *entry, group string) {
	if e.marks.Deletion != nil {
		return
	}
	if m := e.marks.NoCompact; m != nil && (!e.ours || e.ext.Shard == nil || m.Details != DetailsShard) {
		e.aside = true
		why := strings.TrimSuffix("no-compact mark, "+m.Reason+": "+m.Details, ": ")
		p.plan.SetAside = append(p.plan.SetAside, SetAside{Block: e.id(), Group: group, Why: why, ByOthers: !IsBad(m)})
	}
	if m := e.marks.NoDownsample; m != nil && p.cfg.Downsample && !e.aside {
		e.aside = true
		why := strings.TrimSuffix("no-downsample mark, "+m.Reason+": what it is merged with would stay raw, or it would not: "+m.Details, ": ")
		p.plan.SetAside = append(p.plan.SetAside, SetAside{Block: e.id(), Group: group, Why: why, ByOthers: true})
	}
}

// build numbers the sources and fills tiers and lanes.
func (f *family) build() {
	for _, r := range []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h} {
		f.tiers = append(f.tiers, &tier{family: f, resolution: r})
	}
	for _, e := range f.all {
		e.sources = f.number(level1(e.meta, e.ext))
		e.visible = e.sources
		if e.ext.Shard != nil {
			e.visible = f.number(level1(e.meta, block.Extension{}))
		}
		t := f.tier(e.meta.Resolution())
		if t.resolution == block.ResolutionRaw {
			f.newest = max(f.newest, e.meta.MinTime)
		}
		switch {
		case e.marks.Deletion != nil:
		case e.bad():
			t.bad = append(t.bad, e)
		default:
			t.live = append(t.live, e)
		}
	}
	for _, t := range f.tiers {
		slices.SortFunc(t.live, byTime)
		t.fillLanes()
	}
}

// number gives sources their numbers, sorted.
func (f *family) number(sources []ulid.ULID) []int32 {
	out := make([]int32, 0, len(sources))
	for _, s := range sources {
		n, ok := f.numbers[s]
		if !ok {
			n = int32(len(f.numbers))
			f.numbers[s] = n
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (t *tier) fillLanes() {
	byKey := map[string]*lane{}
	for _, e := range t.live {
		key := e.ext.Shard.Key()
		if key != "" {
			key += "\xff" + string(e.span.from.Bytes(nil)) + "\xff" + string(e.span.to.Bytes(nil))
		}
		l := byKey[key]
		if l == nil {
			l = &lane{tier: t, shard: e.ext.Shard, span: e.span}
			byKey[key] = l
		}
		e.lane = l
		l.blocks = append(l.blocks, e)
		if s := e.ext.Shard; s != nil {
			if t.shards == nil {
				t.shards, t.parts = map[string][]*entry{}, map[string][]*entry{}
			}
			t.shards[s.Split] = append(t.shards[s.Split], e)
			for s = s.Within; s != nil; s = s.Within {
				t.parts[s.Split] = append(t.parts[s.Split], e)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		t.lanes = append(t.lanes, byKey[key])
	}
}

// byTime orders blocks from old to new data.
func byTime(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.meta.MinTime, b.meta.MinTime), cmp.Compare(a.meta.MaxTime, b.meta.MaxTime), a.id().Compare(b.id()))
}

// clashes sets shards aside that say otherwise of their split than others do that
// are made of more, or of as much and are older: another number of shards, or
// another edge, that of a neighbour included. Then together they may not hold all
// that was split (torn).
func (p *planner) clashes(f *family) {
	type edge struct {
		split  string
		number int
	}
	first := map[edge]*entry{} // who told of an edge first; none that clashes
	for _, e := range f.byWeight() {
		s := e.ext.Shard
		edges := []edge{{s.Split, s.Index}, {s.Split, s.Index + 1}}
		for _, at := range edges {
			if other := first[at]; other != nil && !agree(other.ext.Shard, s, at.number) {
				p.clash(f, e, other)
			}
		}
		for _, at := range edges {
			if first[at] == nil && !e.clashes {
				first[at] = e
			}
		}
	}
}

// byWeight are the shards that stay, those first whose record is that of most
// sources. So it makes no difference which of them were merged meanwhile.
func (f *family) byWeight() (shards []*entry) {
	weight := map[string]int{}
	record := func(e *entry) string {
		s := e.ext.Shard
		return fmt.Sprintf("%s %s %s", s.Key(), s.From, s.To)
	}
	for _, e := range f.all {
		if e.ext.Shard != nil && e.marks.Deletion == nil {
			shards = append(shards, e)
			weight[record(e)] += len(e.sources)
		}
	}
	slices.SortStableFunc(shards, func(a, b *entry) int { return cmp.Compare(weight[record(b)], weight[record(a)]) })
	return shards
}

// clash takes note of two shards that don't agree, e being the one that has less to say.
func (p *planner) clash(f *family, e, other *entry) {
	other.doubted = other.doubted || share(e.sources, other.sources)
	if e.clashes {
		return // and that is said
	}
	e.aside, e.clashes, e.doubted = true, true, true
	f.clashes = append(f.clashes, e)
	s, o := e.ext.Shard, other.ext.Shard
	p.setAside(e.id(), e.lane.tierKey(e), fmt.Sprintf("shard %s from %s to %s clashes with shard %s from %s to %s, block %s", s.Key(), s.From, s.To, o.Key(), o.From, o.To, other.id()))
}

// agree tells whether two shards say the same of how many there are, and of an edge that both have.
func agree(a, b *block.Shard, number int) bool {
	return a.Count == b.Count && labels.Equal(edgeOf(a, number), edgeOf(b, number))
}

// torn tells of a shard that closes a split whose shards clash: it doesn't stand
// for the others then.
func (f *family) torn(closing *entry) bool {
	return slices.ContainsFunc(f.clashes, func(e *entry) bool {
		return e.ext.Shard.Split == closing.ext.Shard.Split && share(e.sources, closing.sources)
	})
}

// edgeOf is where a shard begins, or ends: edge i is where shard i begins and shard i−1 ends.
func edgeOf(s *block.Shard, number int) labels.Labels {
	if number == s.Index {
		return s.From
	}
	return s.To
}

// tierKey is the group of e, which has no lane where its content is unusable.
func (l *lane) tierKey(e *entry) string {
	if l == nil {
		return e.meta.GroupKey()
	}
	return l.tier.key()
}
