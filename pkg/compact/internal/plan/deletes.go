package plan

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// deleteGrace is how long a delete request stays pending at least: until then a
// block may still come that was cut before anybody knew of the request.
const deleteGrace = 12 * time.Hour

// deletion is a pending delete request, made ready.
type deletion struct {
	request  *block.DeleteRequest
	matchers [][]*labels.Matcher
	replica  bool // it names a replica label, so it means one replica's blocks
	clean    map[ulid.ULID]bool
}

// requests makes the pending delete requests ready. One that can't be read stays
// pending; who writes requests refuses such.
func (p *planner) requests() {
	for _, r := range p.in.Deletes {
		if r.State != block.DeletePending {
			continue
		}
		d := deletion{request: r, clean: map[ulid.ULID]bool{}}
		for _, s := range r.Selectors {
			ms, err := policy.ParseSelector(s)
			if err != nil {
				continue
			}
			d.matchers = append(d.matchers, ms)
			d.replica = d.replica || p.cfg.Dedup && slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return slices.Contains(p.cfg.ReplicaLabels, m.Name) })
		}
		if len(d.matchers) < len(r.Selectors) || len(r.Selectors) == 0 {
			continue
		}
		for _, id := range slices.Concat(r.Clean, p.in.Clean[r.ID]) {
			d.clean[id] = true
		}
		p.deletes = append(p.deletes, d)
	}
	slices.SortFunc(p.deletes, func(a, b deletion) int { return a.request.ID.Compare(b.request.ID) })
}

// concerns tells whether data of these labels and times may have what is to be
// deleted. A window of downsampled data goes if any part of it does.
func (d *deletion) concerns(external labels.Labels, w window, resolution int64) bool {
	if d.request.MaxTime < w.from-resolution || w.to+resolution <= d.request.MinTime {
		return false
	}
	return slices.ContainsFunc(d.matchers, func(ms []*labels.Matcher) bool { return policy.MayMatch(ms, external) })
}

// todo tells whether a block may still have what is to be deleted.
func (d *deletion) todo(e *entry) bool {
	return !d.clean[e.id()] && !slices.Contains(e.ext.Deletes, d.request.ID) &&
		d.concerns(e.external, window{e.meta.MinTime, e.meta.MaxTime}, e.meta.Resolution())
}

// pendingFor are the requests that one of the blocks still needs, and the IDs of
// all that are carried out in what is made of the blocks with these.
func (p *planner) pendingFor(in []*entry, result labels.Labels) (todo []*block.DeleteRequest, done []ulid.ULID) {
	w := hull(in)
	for i := range p.deletes {
		d := &p.deletes[i]
		needed := slices.ContainsFunc(in, d.todo)
		if needed {
			todo = append(todo, d.request)
		}
		if needed || d.concerns(result, w, in[0].meta.Resolution()) {
			done = append(done, d.request.ID)
		}
	}
	return todo, done
}

// cutReplicas rewrites blocks of single replicas that a request means by their
// replica label: once merged, it could not be told any more what was whose.
func (p *planner) cutReplicas(t *tier) {
	for _, e := range t.live {
		if !p.free(e) || labels.Equal(e.external, t.family.labels) {
			continue
		}
		if slices.ContainsFunc(p.deletes, func(d deletion) bool { return d.replica && d.todo(e) }) {
			p.rewriteOne(e)
			e.taken = true // even if that failed a short while ago
		}
	}
}

// rewrite plans for blocks that no other job touches, and that hold what was
// deleted or series that have expired.
func (p *planner) rewrite(t *tier) {
	for _, e := range t.live {
		if !p.free(e) {
			continue
		}
		if len(e.cut) > 0 || slices.ContainsFunc(p.deletes, func(d deletion) bool { return d.todo(e) }) {
			p.rewriteOne(e)
		}
	}
}

func (p *planner) rewriteOne(e *entry) {
	d := p.draft(Rewrite, e.lane, []*entry{e})
	d.labels = e.external
	d.key = window{e.meta.MinTime, e.meta.MaxTime}.key() + "/" + e.id().String()
	d.resolutions = []int64{e.meta.Resolution()}
	d.replaces = true
	p.emit(d)
}

// deletesDone finds the requests that no block needs any more, whether it is
// marked or not, or ours or not: all of them can still be read.
func (p *planner) deletesDone() {
	for i := range p.deletes {
		d := &p.deletes[i]
		if p.now < d.request.Created.Add(deleteGrace).UnixMilli() {
			continue
		}
		if !d.openIn(p.in.Metas) && !d.openIn(p.in.LeftOut) {
			p.plan.DeletesDone = append(p.plan.DeletesDone, d.request.ID)
		}
	}
}

// openIn tells whether one of the blocks may still have what is to be deleted.
func (d *deletion) openIn(metas map[ulid.ULID]*block.Meta) bool {
	for _, m := range metas {
		ext, _, err := m.Extension()
		e := &entry{meta: m, ext: ext, external: m.Labels()}
		if d.todo(e) || err != nil && d.concerns(e.external, window{m.MinTime, m.MaxTime}, m.Resolution()) {
			return true
		}
	}
	return false
}
