package plan

import (
	"fmt"
	"slices"

	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// downsample plans for what no compaction fills a coarser tier with: blocks that
// are merged already, by whomever, or that nothing can be merged with. It goes by
// windows of time, and where blocks are longer by these. What is to be split along
// shards beside it comes to the coarser tier together with them.
func (p *planner) downsample(l *lane, to *tier) {
	length := p.window(to)
	var todo []*entry
	for _, e := range l.blocks {
		if e.taken || e.garbage || e.expired || e.marks.NoDownsample != nil || !p.wants(e, to) || !p.due(l.tier, around(hull([]*entry{e}), length)) || p.joinsShards(l, e) {
			continue
		}
		if e.aside || !aligned(e.meta.MinTime, length).holds(e) {
			p.fill(l, to, []*entry{e})
			continue
		}
		todo = append(todo, e)
	}
	windows, held := inWindows(todo, length)
	for i := range windows {
		in := slices.DeleteFunc(held[i], func(e *entry) bool { return e.taken })
		if slices.ContainsFunc(in, thinned) { // the others are to stay free of that
			for i := range in {
				p.fill(l, to, in[i:i+1])
			}
			continue
		}
		if len(in) > 0 {
			p.fill(l, to, in)
		}
	}
}

// fill makes what a coarser tier lacks of in. Where something of the same time is
// there already, made from blocks that are still here, all of it is made anew.
func (p *planner) fill(l *lane, to *tier, in []*entry) {
	all, wait := p.again(l, to, in)
	if wait {
		return
	}
	if all != nil {
		in = all
	}
	d, w := p.downsampling(l, to, in)
	if d == nil {
		return
	}
	if beyond := to.coarser(); beyond != nil {
		long := around(hull(d.in), p.window(beyond))
		if p.due(l.tier, long) && p.allOf(l, long, d.in) && replaceable(l.span, d.in, to.live) {
			d.resolutions = p.andCoarser(l, long, d.in, to)
		}
	}
	d.why = fmt.Sprintf("%s of %s data in %s not in the %s tier yet", count(len(d.in), "block"), policy.ResolutionName(l.tier.resolution), w, policy.ResolutionName(to.resolution))
	p.emit(d)
}

// downsampleAlone fills the next tier from late blocks whose neighbours are gone.
func (p *planner) downsampleAlone(l *lane, in []*entry) {
	to := l.tier.coarser()
	d, w := p.downsampling(l, to, in)
	if d == nil {
		return
	}
	d.why = fmt.Sprintf("%s in %s came late: what the %s tier has there was made from blocks that are gone or changed, so they are downsampled before they are merged",
		count(len(d.in), "block"), w, policy.ResolutionName(to.resolution))
	p.emit(d)
}

// downsampling drafts a job that makes a coarser tier of as many of in as it may
// have, and tells which windows that fills; nil where it has to wait.
func (p *planner) downsampling(l *lane, to *tier, in []*entry) (*draft, window) {
	in = in[:min(len(in), p.maxInputs())]
	if p.closesEarly(l, in) {
		return nil, window{}
	}
	w := around(hull(in), p.window(to))
	d := p.draft(Downsample, l, in)
	d.key = w.key() + "/" + policy.ResolutionName(to.resolution)
	d.resolutions = []int64{to.resolution}
	return d, w
}

// again returns in and all blocks that have gone into what the coarser tier has
// in their time; nil where nothing is there, or not all of it can be made anew.
// wait is true where another job is about to change one of them.
func (p *planner) again(l *lane, to *tier, in []*entry) (all []*entry, wait bool) {
	all = slices.Clone(in)
	for {
		made := to.around(l.span, hull(all))
		if len(made) == 0 {
			return nil, false
		}
		sources, before := union(made), len(all)
		for _, e := range l.blocks {
			switch {
			case slices.Contains(all, e) || e.garbage || !share(e.sources, sources):
			case e.taken:
				return nil, true
			case !p.free(e) || len(all) == p.maxInputs():
				return nil, false
			default:
				all = append(all, e)
			}
		}
		if len(all) > before {
			continue // they may reach further
		}
		slices.SortFunc(all, byTime)
		if !replaceable(l.span, all, to.live) {
			return nil, false
		}
		return all, false
	}
}

// around returns the blocks of the tier in a time with any of some series.
func (t *tier) around(s span, w window) []*entry {
	var out []*entry
	for _, e := range t.live {
		if !e.garbage && w.overlaps(e) && s.intersects(e.span) {
			out = append(out, e)
		}
	}
	return out
}

// share tells whether two sorted lists have a member in common.
func share(a, b []int32) bool {
	for _, x := range a {
		if _, ok := slices.BinarySearch(b, x); ok {
			return true
		}
	}
	return false
}

// allOf tells whether in are all blocks of the lane that have a part in w.
func (p *planner) allOf(l *lane, w window, in []*entry) bool {
	for _, e := range l.blocks {
		if !e.garbage && w.overlaps(e) && !slices.Contains(in, e) {
			return false
		}
	}
	return true
}
