package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// compact merges what lies in one window into one block. The largest window that
// is complete counts: going through the smaller ones would write all data once
// more for each. So the smallest range makes no windows of its own either, where
// there are others.
func (p *planner) compact(l *lane) {
	var blocks []*entry
	for _, e := range l.blocks {
		if p.free(e) {
			blocks = append(blocks, e)
		}
	}
	if len(blocks) == 0 || len(p.cfg.Ranges) == 0 {
		return
	}
	top := len(p.cfg.Ranges) - 1
	p.misfits(l, blocks, p.cfg.Ranges[top])
	blocks = slices.DeleteFunc(blocks, func(e *entry) bool { return e.taken })
	p.level(l, blocks, top)
}

// free tells whether a block may be an input of compaction.
func (p *planner) free(e *entry) bool { return !e.taken && !e.aside && !e.garbage && !e.expired }

// misfits merges what overlaps a block that lies in no window, since somebody
// else cut it; else two such would stay side by side for ever.
func (p *planner) misfits(l *lane, blocks []*entry, length int64) {
	for i := 0; i < len(blocks); {
		w := window{blocks[i].meta.MinTime, blocks[i].meta.MaxTime}
		fits := true
		j := i
		for ; j < len(blocks) && (j == i || blocks[j].meta.MinTime < w.to); j++ {
			w.to = max(w.to, blocks[j].meta.MaxTime)
			fits = fits && aligned(blocks[j].meta.MinTime, length).holds(blocks[j])
		}
		if in := blocks[i:j]; !fits && len(in) > 1 && p.due(l.tier, w) {
			p.merge(l, w, in[:min(len(in), p.maxInputs())], fmt.Sprintf("%d blocks overlap between %s and fit no window of %s", len(in), w, duration(length)))
		}
		i = j
	}
}

func (p *planner) maxInputs() int {
	if p.cfg.MaxInputs < 2 {
		return 1 << 30
	}
	return p.cfg.MaxInputs
}

// level looks at the windows of one range, from the newest on, and at the smaller
// ones within those that are not complete.
func (p *planner) level(l *lane, blocks []*entry, level int) {
	lowest := min(1, len(p.cfg.Ranges)-1)
	windows, held := inWindows(blocks, p.cfg.Ranges[level])
	for i := len(windows) - 1; i >= 0; i-- {
		w, in := windows[i], held[i]
		due := p.due(l.tier, w)
		var shards *cut
		if due {
			shards = p.splitIn(l, w)
		}
		switch {
		case !due:
			if level > lowest {
				p.level(l, in, level-1)
			}
		case shards != nil:
			p.besideShards(l, w, in[:min(len(in), p.maxInputs())], shards)
		case len(in) < 2:
		case len(in) > p.maxInputs() || p.begun(l, in, level):
			p.smallerFirst(l, w, in, level)
		default:
			p.merge(l, w, in, fmt.Sprintf("%s of %s fill %s", count(len(in), "block"), blockLengths(in), w))
		}
	}
}

// begun tells whether smaller windows, by which the coarser tier is filled too,
// are done in part. To leave the others out would save to write their blocks once
// more, but then the coarser tier were made anew of everything, which takes longer.
// And as what is to be done does not depend on how far it is, several workers do
// the same jobs as one.
func (p *planner) begun(l *lane, in []*entry, level int) bool {
	to := l.tier.coarser()
	if to == nil || !p.cfg.Downsample || level == 0 || p.cfg.Ranges[level-1] < p.window(to) {
		return false
	}
	missing := slices.ContainsFunc(in, func(e *entry) bool { return p.wants(e, to) })
	return missing && slices.ContainsFunc(in, func(e *entry) bool { return !p.wants(e, to) })
}

// smallerFirst goes by smaller windows first or, where these are done, takes as
// many blocks as a job may have: neighbours.
func (p *planner) smallerFirst(l *lane, w window, in []*entry, level int) {
	before := len(p.plan.Jobs)
	if level > 0 {
		p.level(l, in, level-1)
	}
	if len(p.plan.Jobs) > before {
		return
	}
	why := fmt.Sprintf("%s of %s fill %s", count(len(in), "block"), blockLengths(in), w)
	if n := p.maxInputs(); len(in) > n {
		why = fmt.Sprintf("%d of the %d blocks in %s, the most that a job takes", n, len(in), w)
		in = in[:n]
	}
	p.merge(l, w, in, why)
}

// merge plans a job that puts one block, or the shards of a split, in the place
// of in. It waits for a downsampling that would be inexact afterwards.
func (p *planner) merge(l *lane, w window, in []*entry, why string) {
	to, alone := p.coarserOutputs(l, w, in)
	if len(alone) > 0 {
		p.downsampleAlone(l, alone)
		return
	}
	if len(to) > 0 && p.closesEarly(l, in) {
		return
	}
	if s := p.splitFor(l, w, in); s != nil {
		p.split(l, in, s, to, why)
		return
	}
	if len(in) < 2 {
		return
	}
	d := p.draft(Compact, l, in)
	d.key, d.replaces, d.why = w.key(), true, why
	d.last = w.length() >= p.cfg.Ranges[len(p.cfg.Ranges)-1]
	d.resolutions = append(to, l.tier.resolution)
	p.emit(d)
}

// besideShards splits blocks along shards that lie in their window. What the coarser
// tier has nothing of comes there behind that, when each part is merged with its
// shard, and what there is of the shard is made anew with it: by itself it would be
// inexact where both have samples of one series.
func (p *planner) besideShards(l *lane, w window, in []*entry, c *cut) {
	if to := l.tier.coarser(); to != nil && p.cfg.Downsample {
		fresh := slices.DeleteFunc(slices.Clone(in), func(e *entry) bool { return !p.wants(e, to) || to.cover.touches(e) })
		if len(fresh) > 0 {
			p.split(l, fresh, c, nil, beside(w, fresh))
			return
		}
	}
	p.merge(l, w, in, beside(w, in))
}

func beside(w window, in []*entry) string {
	lie := "lie"
	if len(in) == 1 {
		lie = "lies"
	}
	return fmt.Sprintf("%s of %s %s beside shards in %s", count(len(in), "block"), blockLengths(in), lie, w)
}

// closesEarly tells whether in are of the shard that closes a split, and parts of
// other shards are still to come to the coarser tier. Its block there would stand
// for all of them, and for other readers hide what there is. (Nothing waits in a
// ring: such a shard waits for others of what it stands for, and for those that
// stand for less.)
func (p *planner) closesEarly(l *lane, in []*entry) bool {
	to := l.tier.coarser()
	if to == nil || !in[0].closing() {
		return false
	}
	if slices.ContainsFunc(in, p.unseenShards) {
		return true
	}
	sources, all := union(in), in[0].standsFor()
	return slices.ContainsFunc(to.pending, func(e *entry) bool {
		if e.lane == l || !all.contains(e.span) || !share(e.sources, sources) {
			return false
		}
		return !e.closing() || !e.standsFor().contains(all)
	})
}

// unseenFor is for how long shards are waited for that must be there and are not seen.
const unseenFor = time.Hour

// unseenShards tells whether a shard has closed its split a short while ago, and
// others of it, made elsewhere, don't show yet.
func (p *planner) unseenShards(e *entry) bool {
	if !e.direct() || p.now-e.meta.Uploaded().UnixMilli() >= unseenFor.Milliseconds() {
		return false
	}
	seen := map[int]bool{e.ext.Shard.Index: true}
	for _, i := range e.ext.Shard.Void {
		seen[i] = true
	}
	for _, o := range e.lane.tier.family.all {
		if s := o.ext.Shard; s != nil && s.Split == e.ext.Shard.Split && o.meta.Resolution() == e.meta.Resolution() && subset(e.sources, o.sources) {
			seen[s.Index] = true
		}
	}
	return len(seen) < e.ext.Shard.Count
}

// coarserOutputs says which coarser resolutions a job is to write in passing:
// those whose windows it fills, and that lack something of it. What is there
// already is written anew together with it, since aggregates of a window can't be
// mended. Where that is not possible, for parts of the raw data are gone by now,
// alone are the blocks to be downsampled by themselves before they are merged.
func (p *planner) coarserOutputs(l *lane, w window, in []*entry) (resolutions []int64, alone []*entry) {
	to := l.tier.coarser()
	if to == nil || !p.cfg.Downsample {
		return nil, nil
	}
	var missing []*entry
	begun := false
	for _, e := range in {
		if p.wants(e, to) {
			missing = append(missing, e)
		}
		begun = begun || to.cover.touches(e)
	}
	if w.length() < p.window(to) {
		if begun { // a late block in a small window: merged it would be both there and missing
			return nil, missing
		}
		return nil, nil
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if !replaceable(l.span, in, to.live) {
		return nil, missing
	}
	// What comes of thinned blocks is thinned, and could not go on from there either.
	if beyond := to.coarser(); beyond != nil && slices.ContainsFunc(in, thinned) && !replaceable(l.span, in, beyond.live) {
		return nil, missing
	}
	return p.andCoarser(l, w, in, to), nil
}

// andCoarser adds the tier beyond, where one job can fill that as well. The
// result goes from coarse to fine. The shard that closes a split fills one tier
// after the other, behind the other shards.
func (p *planner) andCoarser(l *lane, w window, in []*entry, to *tier) []int64 {
	beyond := to.coarser()
	if beyond == nil || in[0].closing() || w.length() < p.window(beyond) || !replaceable(l.span, in, beyond.live) {
		return []int64{to.resolution}
	}
	for _, e := range in {
		if p.wants(e, beyond) {
			return []int64{beyond.resolution, to.resolution}
		}
	}
	return []int64{to.resolution}
}

// replaceable tells whether what a coarser tier has in the time and the series of
// in is made of nothing else, so that it can be made anew from them. What was
// taken out of the finer blocks since, and is still in the coarser, prevents that.
func replaceable(s span, in, coarser []*entry) bool {
	w, sources := hull(in), []int32(nil)
	for _, c := range coarser {
		if c.garbage || c.expired || !w.overlaps(c) || !s.intersects(c.span) {
			continue
		}
		if sources == nil {
			sources = union(in)
		}
		if c.aside || !s.contains(c.span) || !subset(c.sources, sources) || slices.ContainsFunc(in, thinned) {
			return false
		}
	}
	return true
}

// thinned tells of a block that lacks series that the coarser tiers may still have.
func thinned(e *entry) bool { return e.ext.Thinned }

// window is the length of time by which a tier is filled.
func (p *planner) window(t *tier) int64 {
	if t.coarser() == nil {
		return p.cfg.Window1h
	}
	return p.cfg.Window5m
}

func (w window) key() string { return fmt.Sprintf("%d-%d", w.from, w.to) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// blockLengths lists how long blocks are, shortest first.
func blockLengths(in []*entry) string {
	var all []int64
	for _, e := range in {
		all = append(all, e.meta.MaxTime-e.meta.MinTime)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > 3 {
		return fmt.Sprintf("%s to %s", duration(all[0]), duration(all[len(all)-1]))
	}
	var out []string
	for _, d := range all {
		out = append(out, duration(d))
	}
	return strings.Join(out, ", ")
}
