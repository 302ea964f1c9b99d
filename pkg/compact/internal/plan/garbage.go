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
	if len(t.live) < 2 {
		return
	}
	if len(t.lanes) > 1 {
		p.collectSplit(t)
	}
	p.collectCovered(t)
}

// collectSplit marks what was split, once all shards are there.
func (p *planner) collectSplit(t *tier) {
	shards := map[int32][]*entry{} // by source
	for _, e := range t.live {
		if e.ext.Shard == nil {
			continue
		}
		for _, s := range e.sources {
			shards[s] = append(shards[s], e)
		}
	}
	for _, e := range t.live {
		splits := map[string][]*entry{}
		for _, c := range shards[e.sources[0]] {
			if c.lane != e.lane && e.span.contains(c.span) && !e.span.equal(c.span) && subset(e.sources, c.sources) && !parent(c, e) {
				splits[c.ext.Shard.Split] = append(splits[c.ext.Shard.Split], c)
			}
		}
		for _, id := range slices.Sorted(maps.Keys(splits)) {
			if mark, ok := heldBy(e, splits[id]); ok {
				e.garbage = true
				p.plan.Garbage = append(p.plan.Garbage, mark)
				break
			}
		}
	}
}

// heldBy tells whether the shards hold all of e together.
func heldBy(e *entry, shards []*entry) (Mark, bool) {
	byIndex := map[int]*entry{}
	var spans []span
	for _, s := range shards { // of those that hold one part, one is enough
		if other := byIndex[s.ext.Shard.Index]; other == nil || s.id().Compare(other.id()) < 0 {
			byIndex[s.ext.Shard.Index] = s
		}
		spans = append(spans, s.span)
	}
	if !fills(e.span, spans) {
		return Mark{}, false
	}
	mark := Mark{Block: e.id(), Why: fmt.Sprintf("the %d shards of split %s hold all of it", len(byIndex), shards[0].ext.Shard.Split)}
	for _, i := range slices.Sorted(maps.Keys(byIndex)) {
		mark.Shards = append(mark.Shards, byIndex[i].id())
	}
	last := len(mark.Shards) - 1
	mark.CoveredBy, mark.Shards = mark.Shards[last], mark.Shards[:last]
	return mark, true
}

// parent tells whether e was made from a directly.
func parent(a, e *entry) bool {
	return slices.ContainsFunc(e.meta.Compaction.Parents, func(d block.Desc) bool { return d.ULID == a.id() })
}

// collectCovered marks blocks whose sources another one has too. Of blocks with
// the same sources that with the lowest ULID stays, as with block.Duplicates.
func (p *planner) collectCovered(t *tier) {
	order := slices.Clone(t.live)
	slices.SortFunc(order, func(a, b *entry) int { // who may cover a block comes before it
		return cmp.Or(cmp.Compare(len(b.sources), len(a.sources)), compareSpans(a.span, b.span), a.id().Compare(b.id()))
	})
	kept := map[int32][]*entry{} // by source
	for _, e := range order {
		if e.garbage {
			continue
		}
		i := slices.IndexFunc(kept[e.sources[0]], func(c *entry) bool {
			// A split is not done before all shards are there: until then each is a part of its input.
			return c.span.contains(e.span) && subset(e.sources, c.sources) && (e.ext.Shard == nil || !parent(c, e) || c.lane == e.lane)
		})
		if i >= 0 {
			by := kept[e.sources[0]][i].id()
			e.garbage = true
			p.plan.Garbage = append(p.plan.Garbage, Mark{Block: e.id(), CoveredBy: by, Why: fmt.Sprintf("block %s holds all of it", by)})
			continue
		}
		for _, s := range e.sources {
			kept[s] = append(kept[s], e)
		}
	}
}

// removals lists what is due to go: blocks marked for long enough, those whose
// removal was cut short too, and partial ones that nobody completes.
func (p *planner) removals() {
	for id, marks := range p.in.Marks {
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
