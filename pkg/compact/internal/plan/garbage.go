package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

// collect finds blocks that others hold all of. First those that the shards of a
// split hold together, then those that one block holds. Each coverer stays, is
// not marked, and was not made into what it would cover.
func (p *planner) collect(t *tier) {
	if len(t.live)+len(t.bad) < 2 {
		return
	}
	if len(t.lanes) > 1 {
		p.collectSplit(t)
	}
	p.collectCovered(t)
}

// collectSplit marks what was split. The shard that closes a split is written
// after all others, and names what it was made from: where it is, all are, but for
// those in which there was nothing.
func (p *planner) collectSplit(t *tier) {
	closers := map[int32][]*entry{} // by source
	for _, e := range t.live {
		if e.closing() && !t.family.torn(e) {
			for _, n := range e.visible {
				closers[n] = append(closers[n], e)
			}
		}
	}
	for _, e := range t.live {
		for _, c := range closers[e.visible[0]] {
			if c.lane == e.lane || !subset(e.visible, c.visible) || !t.family.cutOf(c).of(e.span) || parent(c, e) {
				continue
			}
			e.garbage = true
			p.plan.Garbage = append(p.plan.Garbage, Mark{
				Block: e.id(), CoveredBy: c.id(), Shards: t.siblings(c, e),
				Why: fmt.Sprintf("the shards of split %s hold all of it", c.ext.Shard.Split),
			})
			break
		}
	}
}

// siblings are the shards of the split that c closes, one of each that holds a
// part of e.
func (t *tier) siblings(c, e *entry) []ulid.ULID {
	byIndex := map[int]ulid.ULID{}
	for _, s := range t.shards[c.ext.Shard.Split] {
		i := s.ext.Shard.Index
		if _, ok := byIndex[i]; !ok && i != c.ext.Shard.Index && subset(e.sources, s.sources) {
			byIndex[i] = s.id()
		}
	}
	var out []ulid.ULID
	for _, i := range slices.Sorted(maps.Keys(byIndex)) {
		out = append(out, byIndex[i])
	}
	return out
}

// parent tells whether e was made from a directly.
func parent(a, e *entry) bool {
	return slices.ContainsFunc(e.meta.Compaction.Parents, func(d block.Desc) bool { return d.ULID == a.id() })
}

// collectCovered marks blocks whose sources another one has too. Of blocks with
// the same sources that with the lowest ULID stays, as with block.Duplicates. One
// whose content is unusable goes when what was made in its place is there.
func (p *planner) collectCovered(t *tier) {
	order := slices.Clone(t.live)
	slices.SortFunc(order, func(a, b *entry) int { // who may cover a block comes before it
		return cmp.Or(cmp.Compare(len(b.sources), len(a.sources)), compareSpans(a.span, b.span), a.id().Compare(b.id()))
	})
	kept := newBySource(len(t.family.numbers), t.live)
	for _, e := range slices.Concat(order, t.bad) { // a bad one covers none
		if e.garbage || e.clashes {
			continue
		}
		candidates := kept.of(e.sources[0])
		i := slices.IndexFunc(candidates, func(c *entry) bool {
			// A split is not done before all shards are there: until then each is a part of its input.
			// One that another clashes with is held only by what was made of it in its place.
			return c.span.contains(e.span) && subset(e.sources, c.sources) && (e.ext.Shard == nil || !parent(c, e) || c.lane == e.lane) &&
				(!e.doubted || c.lane == e.lane && c.span.equal(e.span))
		})
		if i >= 0 {
			by := candidates[i].id()
			e.garbage = true
			p.plan.Garbage = append(p.plan.Garbage, Mark{Block: e.id(), CoveredBy: by, Why: fmt.Sprintf("block %s holds all of it", by)})
			continue
		}
		if e.lane != nil && !e.doubted {
			kept.add(e)
		}
	}
}

// bySource lists entries by each of their sources, in one piece of memory: there
// are some hundred sources to a block.
type bySource struct {
	begin, used []int32 // by source: where its list begins, how long it is so far
	lists       []*entry
}

// newBySource makes room for all of blocks.
func newBySource(numbers int, blocks []*entry) *bySource {
	b := &bySource{begin: make([]int32, numbers+1), used: make([]int32, numbers)}
	for _, e := range blocks {
		for _, s := range e.sources {
			b.begin[s+1]++
		}
	}
	for i := range numbers {
		b.begin[i+1] += b.begin[i]
	}
	b.lists = make([]*entry, b.begin[numbers])
	return b
}

func (b *bySource) of(s int32) []*entry { return b.lists[b.begin[s] : b.begin[s]+b.used[s]] }

func (b *bySource) add(e *entry) {
	for _, s := range e.sources {
		b.lists[b.begin[s]+b.used[s]] = e
		b.used[s]++
	}
}

// removals lists what is due to go: blocks marked for long enough, those whose
// removal was cut short too, and partial ones that nobody completes.
func (p *planner) removals() {
	for id, marks := range p.in.Marks {
		if p.in.LeftOut[id] != nil {
			continue // its remover has a delay of its own, and sees what replaces it
		}
		if marks.Deletion != nil && marks.Deletion.DeletionTime <= 0 {
			p.setAside(id, "", "its deletion mark can't be read: write it anew, or remove it")
			continue
		}
		if m := marks.Deletion; m != nil && p.now-m.DeletionTime*1000 >= p.cfg.DeleteDelay.Milliseconds() {
			p.plan.Remove = append(p.plan.Remove, id)
		}
	}
	for id, newest := range p.in.Partial {
		if p.in.Marks[id].Deletion == nil && p.now-newest.UnixMilli() >= p.cfg.PartialDelay.Milliseconds() {
			p.plan.Partial = append(p.plan.Partial, id)
		}
	}
	slices.SortFunc(p.plan.Remove, ulid.ULID.Compare)
	slices.SortFunc(p.plan.Partial, ulid.ULID.Compare)
}
