package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// Splitting. When the index of a merged block would get larger than one may be,
// the job writes shards instead: contiguous parts of the series. From then on
// shard i is merged with shard i of the same split only, each in its own lane.
//
//   - Unsharded blocks are split along the bounds of shards that lie in the same
//     window; else, if they need it, along those of the newest split, if it has
//     enough shards; else along new bounds, which the first worker finds.
//   - A lane that has grown too large is split in the same way, within its own
//     bounds: its shards get a split of their own and are lanes of their own.
//     So the lanes always hold disjoint, contiguous parts, and nothing is ever
//     merged back.
//     Each shard tells what it was split from, so unsharded blocks that come late
//     find the bounds to go by.
//   - A split that was cut short goes on from the same inputs, which the shards
//     that are there name as parents: nobody else gets these inputs meanwhile.

// maxShards bounds one split; a shard may be split again.
const maxShards = 1024

// cut is one split, as the shards that are there tell of it.
type cut struct {
	id     string
	count  int
	edges  map[int]labels.Labels // edge i is where shard i begins and shard i−1 ends
	newest int64                 // ms
}

// known tells whether all bounds are. A shard without series has no block, but
// its neighbours tell where it was.
func (c *cut) known() bool { return len(c.edges) == c.count+1 }

func (c *cut) bounds(i int) span { return span{c.edges[i], c.edges[i+1]} }

// edge returns edge i of a split of a span, if it is known.
func (c *cut) edge(i int, within span) (labels.Labels, bool) {
	switch i {
	case 0:
		return within.from, true
	case c.count:
		return within.to, true
	}
	at, ok := c.edges[i]
	return at, ok
}

// within returns the span that was split.
func (c *cut) within() (span, bool) {
	from, begins := c.edges[0]
	to, ends := c.edges[c.count]
	return span{from, to}, begins && ends
}

// of tells whether the split is one of a span.
func (c *cut) of(s span) bool {
	from, ok := c.edges[0]
	to, ok2 := c.edges[c.count]
	return (!ok || labels.Equal(from, s.from)) && ok2 && labels.Equal(to, s.to) && !c.bounds(c.count-1).equal(s)
}

// findCuts lists the splits of a family, newest data first.
func (f *family) findCuts() []*cut {
	byID := map[string]*cut{}
	for _, e := range f.all {
		if e.clashes {
			continue
		}
		for s := e.ext.Shard; s != nil; s = s.Within {
			c := byID[s.Split]
			if c == nil {
				c = &cut{id: s.Split, count: s.Count, edges: map[int]labels.Labels{}}
				byID[s.Split] = c
			}
			c.edges[s.Index], c.edges[s.Index+1] = s.From, s.To
			c.newest = max(c.newest, e.meta.MaxTime)
		}
	}
	out := slices.Collect(maps.Values(byID))
	slices.SortFunc(out, func(a, b *cut) int { return cmp.Or(cmp.Compare(b.newest, a.newest), cmp.Compare(a.id, b.id)) })
	return out
}

// cutOf returns the split that a shard belongs to.
func (f *family) cutOf(e *entry) *cut {
	for _, c := range f.cuts {
		if c.id == e.ext.Shard.Split {
			return c
		}
	}
	return &cut{id: e.ext.Shard.Split, count: e.ext.Shard.Count} // all that is known of it clashes
}

// splitIn returns the split of the lane that has shards, or parts of such, in a
// window, the newest if there are several; nil if none has.
func (p *planner) splitIn(l *lane, w window) *cut {
	if len(l.tier.lanes) == 1 {
		return nil
	}
	for _, c := range l.tier.family.cuts {
		if !c.known() || !c.of(l.span) {
			continue
		}
		in := func(e *entry) bool { return !e.garbage && w.holds(e) }
		if slices.ContainsFunc(l.tier.shards[c.id], in) || slices.ContainsFunc(l.tier.parts[c.id], in) {
			return c
		}
	}
	return nil
}

// joinsShards tells whether a block is about to be split, since it lies beside
// shards in a window that is over.
func (p *planner) joinsShards(l *lane, e *entry) bool {
	if !p.free(e) || len(l.tier.lanes) == 1 {
		return false
	}
	return slices.ContainsFunc(p.cfg.Ranges, func(length int64) bool {
		w := aligned(e.meta.MinTime, length)
		return w.holds(e) && p.due(l.tier, w) && p.splitIn(l, w) != nil
	})
}

// splitFor returns the split that a merge has to go by; nil if it needs none.
func (p *planner) splitFor(l *lane, w window, in []*entry) *cut {
	if c := p.splitIn(l, w); c != nil {
		return c
	}
	if len(in) < 2 || p.cfg.MaxIndexBytes <= 0 {
		return nil
	}
	size := indexEstimate(in)
	if size <= p.cfg.MaxIndexBytes {
		return nil
	}
	n := 2
	for int64(n)*p.cfg.MaxIndexBytes < size && n < maxShards {
		n *= 2
	}
	for _, c := range l.tier.family.cuts {
		if c.known() && c.count >= n && c.of(l.span) {
			return c
		}
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %d", l.key(), n)
	for _, id := range ids(in) {
		sum.Write(id[:])
	}
	return &cut{id: hex.EncodeToString(sum.Sum(nil)[:8]), count: n}
}

// indexEstimate is how large the index of a merged block gets: the largest one
// and half of each other, for series that go on in the next block need only their
// chunks listed, and new ones everything.
func indexEstimate(in []*entry) int64 {
	var sum, largest int64
	for _, e := range in {
		n := indexBytes(e.meta)
		sum, largest = sum+n, max(largest, n)
	}
	return largest + (sum-largest)/2
}

func indexBytes(m *block.Meta) int64 {
	for _, f := range m.Thanos.Files {
		if f.RelPath == block.IndexFilename {
			return f.SizeBytes
		}
	}
	return 0
}

// split plans a job for each shard that isn't there yet, with the one that closes
// the split as the last.
func (p *planner) split(l *lane, in []*entry, c *cut, coarser []int64, why string) {
	sources, others := union(in), map[int64][]ulid.ULID{}
	var void []int
	if l.begunWithout(c, sources, coarser) {
		coarser = nil
	}
	for i := range c.count {
		d := p.draft(Split, l, in)
		d.shard = &block.Shard{Split: c.id, Index: i, Count: c.count, From: l.span.from, To: l.span.to, Within: l.bounds()}
		from, begins := c.edge(i, l.span)
		to, ends := c.edge(i+1, l.span)
		if d.findBounds = !begins || !ends; !d.findBounds {
			d.shard.From, d.shard.To = from, to
		}
		d.resolutions = append(slices.Clone(coarser), l.tier.resolution)
		d.key = fmt.Sprintf("%s/%d-%d", hull(in).key(), i, c.count)
		d.why = fmt.Sprintf("%s; shard %d of %d of split %s", why, i+1, c.count, c.id)
		if done := l.tier.shardDone(c.id, i, sources); done != nil {
			others[l.tier.resolution] = append(others[l.tier.resolution], done.id())
			continue
		}
		if i == c.count-1 {
			d.closes, d.replaces, d.others, d.void = true, true, others, void
		} else if p.leaveOut(d); p.in.Unmatched[VoidKey(p.resultID(d, l.tier.resolution))] {
			void = append(void, i)
			continue
		}
		if job := p.emit(d); job != nil {
			for _, o := range job.Outputs {
				others[o.Meta.Resolution()] = append(others[o.Meta.Resolution()], o.Meta.ULID)
			}
		} else if i < c.count-1 {
			return // it failed a short while ago: nothing to close yet
		}
	}
}

// bounds is the shard of a lane, without what is said of its blocks.
func (l *lane) bounds() *block.Shard {
	if l.shard == nil {
		return nil
	}
	s := *l.shard
	s.Sources, s.Void = nil, nil
	return &s
}

// begunWithout tells whether a shard that is there was written without the
// coarser ones that others would get. The closing one would stand for it there.
func (l *lane) begunWithout(c *cut, sources []int32, coarser []int64) bool {
	for i := range c.count {
		if len(coarser) == 0 || l.tier.shardDone(c.id, i, sources) == nil {
			continue
		}
		if slices.ContainsFunc(coarser, func(r int64) bool { return l.tier.family.tier(r).shardDone(c.id, i, sources) == nil }) {
			return true
		}
	}
	return false
}

// shardDone returns a live block that holds the part of all the sources that
// belongs to one shard of a split; nil if there is none yet.
func (t *tier) shardDone(split string, index int, sources []int32) *entry {
	for _, e := range t.shards[split] {
		if e.ext.Shard.Index == index && subset(sources, e.sources) {
			return e
		}
	}
	return nil
}

// continueSplits goes on with splits that were cut short, and keeps their inputs
// and shards away from other jobs until they are closed. A shard is written from
// coarse to fine: of one that was cut short itself there may be the coarser block
// alone, which nothing would cover if its inputs were split otherwise.
func (p *planner) continueSplits(t *tier) {
	if len(t.family.cuts) == 0 {
		return
	}
	live, begun := map[ulid.ULID]*entry{}, t.live
	for _, e := range t.live {
		live[e.id()] = e
	}
	for to := t.coarser(); to != nil; to = to.coarser() {
		begun = slices.Concat(begun, to.live)
	}
	for _, e := range begun {
		if e.taken || e.ext.Shard == nil || !e.ours || e.garbage && e.lane.tier != t {
			continue
		}
		in := inputsOf(e, live)
		if in == nil || in[0].ext.Shard != nil && in[0].ext.Shard.Split == e.ext.Shard.Split {
			continue
		}
		e.taken = true
		c := t.family.cutOf(e)
		l := in[0].lane
		coarser, _ := p.coarserOutputs(l, p.rangeOf(in), in)
		if p.closesEarly(l, in) {
			coarser = nil
		}
		p.split(l, in, c, coarser, fmt.Sprintf("split of %s goes on", count(len(in), "block")))
		p.takeShards(t, e.ext.Shard.Split, in)
	}
}

// direct tells of a shard that a split has written: its own ULID is among its
// sources. What is merged of shards has only theirs.
func (e *entry) direct() bool {
	return e.ours && e.ext.Shard != nil && slices.Contains(e.meta.Compaction.Sources, e.id())
}

// inputsOf returns what a shard was cut from, if all of it is still to be had.
func inputsOf(e *entry, live map[ulid.ULID]*entry) []*entry {
	var in []*entry
	for _, d := range e.meta.Compaction.Parents {
		parent := live[d.ULID]
		if parent == nil || parent.garbage || parent.taken || parent.expired {
			return nil
		}
		in = append(in, parent)
	}
	slices.SortFunc(in, byTime)
	return in
}

// takeShards keeps an unfinished split to itself: its inputs and what there is of
// its shards.
func (p *planner) takeShards(t *tier, split string, in []*entry) {
	for _, e := range in {
		e.taken = true
	}
	for _, e := range t.shards[split] {
		if e.direct() && parent(in[0], e) {
			e.taken = true
		}
	}
}

// rangeOf returns the smallest window of a level that holds all of in.
func (p *planner) rangeOf(in []*entry) window {
	w := hull(in)
	for _, length := range p.cfg.Ranges {
		if a := around(w, length); a.length() == length {
			return a
		}
	}
	return w
}
