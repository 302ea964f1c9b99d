package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// present are the classes of series that may be in a block.
func (p *planner) present(e *entry) []policy.Class {
	key := string(e.external.Bytes(nil))
	all, ok := p.classes[key]
	if !ok {
		all = p.cfg.Policy.Classes(e.external)
		p.classes[key] = all
	}
	gone := func(c policy.Class) bool {
		return slices.Contains(e.ext.Expired, c.Name) || len(p.in.Unmatched) > 0 && p.in.Unmatched[ClassKey(e.id(), c.Name)]
	}
	if !slices.ContainsFunc(all, gone) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), gone)
}

// over tells whether data up to maxTime, in ms, is older than retention says.
func (p *planner) over(maxTime int64, retention time.Duration) bool {
	return retention > 0 && maxTime+retention.Milliseconds() < p.now
}

// retain decides for each block whether it has expired, or some of its series
// have. What a coarser tier is to outlive goes only once that tier has it.
func (p *planner) retain(t *tier) {
	for _, e := range t.live {
		e.classes = p.present(e)
		if e.garbage {
			continue
		}
		var due, free []policy.Class
		missing := ""
		for _, c := range e.classes {
			if !p.over(e.meta.MaxTime, c.Tiers().At(t.resolution)) {
				continue
			}
			due = append(due, c)
			if why := p.needs(e, c); why != "" {
				missing = why
				continue
			}
			free = append(free, c)
		}
		p.verdict(e, due, free, missing)
	}
	t.stays = t.cover
	if expired := func(e *entry) bool { return e.expired }; slices.ContainsFunc(t.live, expired) {
		t.stays = t.family.newCover(slices.DeleteFunc(slices.Clone(t.live), expired))
	}
}

// needs says what is missing before the series of a class can leave a block: the
// finest of the coarser tiers that still keep them has to have it.
//
// RELIABILITY P5. A block is as old as its newest sample, so of a long one that
// tier may have let the beginning go by now, since that was in blocks of its own
// there. This is no reason to hold the block, but the rest is to be there, and all
// of it in the tier beyond, if that keeps it: the beginning is for that one now.
func (p *planner) needs(e *entry, c policy.Class) string {
	if !p.cfg.Downsample {
		return ""
	}
	for t := e.lane.tier.coarser(); t != nil; t = t.coarser() {
		keep := c.Tiers().At(t.resolution)
		switch {
		case p.over(e.meta.MaxTime, keep):
		case p.there(e, t):
			return ""
		case !p.outlived(e, t, keep):
			return lacking(e, t, keep)
		}
	}
	return ""
}

func lacking(e *entry, t *tier, keep time.Duration) string {
	why := fmt.Sprintf("%s data, kept for longer, doesn't cover it yet", policy.ResolutionName(t.resolution))
	switch {
	case e.marks.NoDownsample != nil:
		why += "; its no-downsample mark prevents that: remove the mark, or mark the block for deletion"
	case keep == 0 && e.ext.Thinned && t.cover.touches(e):
		why += "; it can't be made of the block any more, since series have left that: to let it go, mark it for deletion"
	}
	return why
}

// outlived tells whether what a coarser tier lacks of a block was there until
// retention removed it: from some time on the tier has blocks made of the same as
// it, without a gap, and what lies before that is too old to be kept there.
//
// What is missing can't be of a later time, where the tier has something: nothing
// is merged into a block before it is in the coarser tier, or too old for it, unless
// downsampling was off. So it has to be of sources that are too old for the tier
// themselves: a block has no samples from after it was made. That
// much is only said of blocks that series have left. The tier is made anew from
// any other; from these it can't be, so they would wait for nothing.
func (p *planner) outlived(e *entry, t *tier, keep time.Duration) bool {
	if !e.ext.Thinned || slices.ContainsFunc(t.bad, func(b *entry) bool { return share(b.sources, e.sources) }) {
		return false
	}
	for _, source := range level1(e.meta, e.ext) {
		if !t.cover.has(t.family.numbers[source], e.span) && !p.over(int64(source.Time()), keep) {
			return false
		}
	}
	w, at := window{e.meta.MinTime, e.meta.MaxTime}, e.meta.MinTime
	for _, b := range t.live { // by time
		if !w.overlaps(b) || !share(b.sources, e.sources) {
			continue
		}
		if b.doubted {
			return false
		}
		if !b.span.contains(e.span) {
			continue
		}
		if b.meta.MinTime > at && !p.over(b.meta.MinTime, keep) {
			return false
		}
		at = max(at, b.meta.MaxTime)
	}
	return at >= e.meta.MaxTime
}

// verdict puts into the plan what retain has found. due are the classes that
// have expired, free those of them that may go.
func (p *planner) verdict(e *entry, due, free []policy.Class, missing string) {
	group := e.lane.tier.key()
	switch all := len(due) == len(e.classes); {
	case len(due) == 0:
	case all && missing == "":
		e.expired = true
		p.plan.Expired = append(p.plan.Expired, Mark{Block: e.id(), Why: fmt.Sprintf("%s data until %s is older than %s",
			policy.ResolutionName(e.meta.Resolution()), clock(e.meta.MaxTime), longest(due, e.meta.Resolution()))})
	case all:
		since := time.UnixMilli(e.meta.MaxTime).Add(longestOf(due, e.meta.Resolution())).UTC()
		p.plan.Held = append(p.plan.Held, Held{Block: e.id(), Group: group, Resolution: e.meta.Resolution(), Since: since, Why: missing})
		e.cut = free
	default:
		e.cut = free
		if missing != "" {
			held := slices.DeleteFunc(slices.Clone(due), func(c policy.Class) bool { return slices.Contains(free, c) })
			since := time.UnixMilli(e.meta.MaxTime).Add(longestOf(held, e.meta.Resolution())).UTC()
			p.plan.Held = append(p.plan.Held, Held{Block: e.id(), Group: group, Resolution: e.meta.Resolution(), Since: since, Why: names(held) + ": " + missing})
		}
	}
}

func longestOf(classes []policy.Class, resolution int64) time.Duration {
	var out time.Duration
	for _, c := range classes {
		out = max(out, c.Tiers().At(resolution))
	}
	return out
}

func longest(classes []policy.Class, resolution int64) string {
	return duration(longestOf(classes, resolution).Milliseconds())
}

func names(classes []policy.Class) string {
	var out []string
	for _, c := range classes {
		out = append(out, c.String())
	}
	return strings.Join(out, ", ")
}

// there tells whether all of a block has come to a coarser tier, as far as there
// is something to bring there.
func (p *planner) there(e *entry, t *tier) bool {
	return t.cover.covers(e) || slices.Contains(e.ext.Done, t.resolution) || len(p.in.Unmatched) > 0 && p.in.Unmatched[EmptyKey(e.id(), t.resolution)]
}

// wants tells whether a block is to come into a coarser tier: it isn't there,
// and retention keeps it there, or in a tier beyond that is made from it. What
// came of a shard that clashes would clash, too, and never count as there.
func (p *planner) wants(e *entry, t *tier) bool {
	if e.clashes {
		return false
	}
	if p.there(e, t) || e.ext.Thinned && t.cover.touches(e) { // made anew it would hide what it lacks
		return false
	}
	for ; t != nil; t = t.coarser() {
		if p.there(e, t) {
			continue
		}
		for _, c := range e.classes {
			if !p.over(e.meta.MaxTime, c.Tiers().At(t.resolution)) {
				return true
			}
		}
	}
	return false
}

// settled tells whether a block has nothing more to bring to a coarser tier: all
// is there, or was until retention removed it.
func (p *planner) settled(e *entry, t *tier) bool {
	for ; t != nil && !p.there(e, t); t = t.coarser() {
		for _, c := range e.classes {
			if !p.over(e.meta.MaxTime, c.Tiers().At(t.resolution)) {
				return false
			}
		}
	}
	return true
}

// doneIn are the coarser resolutions that a merged block is done with since all
// inputs are, though its sources won't show it: what retention is about to remove
// there is as good as gone.
func (p *planner) doneIn(d *draft) []int64 {
	if !p.cfg.Downsample {
		return nil
	}
	var out []int64
	for t := d.lane.tier.coarser(); t != nil; t = t.coarser() {
		open := func(e *entry) bool { return !p.settled(e, t) }
		hidden := func(e *entry) bool { return !t.stays.covers(e) }
		if !slices.Contains(d.resolutions, t.resolution) && !slices.ContainsFunc(d.in, open) && slices.ContainsFunc(d.in, hidden) {
			out = append(out, t.resolution)
		}
	}
	return out
}

// expiredIn are the classes to leave out of the results of a job: those that may
// leave each input that has them. For a job that keeps its inputs these are the
// ones that no tier from the results' on keeps.
func (p *planner) expiredIn(in []*entry, replaces bool, finest int64) []policy.Class {
	var out []policy.Class
	seen := map[string]bool{}
	for _, e := range in {
		for _, c := range e.classes {
			if seen[c.Name] {
				continue
			}
			seen[c.Name] = true
			if all := func(e *entry) bool { return p.leaves(e, c, replaces, finest) }; !slices.ContainsFunc(in, func(e *entry) bool { return !all(e) }) {
				out = append(out, c)
			}
		}
	}
	return out
}

// leaves tells whether a class may leave what is made of e, or isn't in e.
func (p *planner) leaves(e *entry, c policy.Class, replaces bool, finest int64) bool {
	if !slices.ContainsFunc(e.classes, func(o policy.Class) bool { return o.Name == c.Name }) {
		return true
	}
	if replaces {
		return slices.Contains(e.cut, c)
	}
	for _, r := range []int64{block.Resolution5m, block.Resolution1h} {
		if r >= finest && !p.over(e.meta.MaxTime, c.Tiers().At(r)) {
			return false
		}
	}
	return true
}
