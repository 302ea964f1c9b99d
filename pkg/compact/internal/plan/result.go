package plan

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// draft is a job in the making: what was decided about it.
type draft struct {
	kind        Kind
	lane        *lane
	in          []*entry
	labels      labels.Labels // of the results
	resolutions []int64       // of the results, coarse to fine
	shard       *block.Shard  // of the results; nil: the whole group
	key, why    string
	replaces    bool
	findBounds  bool
	last        bool // merged by the longest range there is: the result is to stay
	closes      bool
	void        []int                 // shards without series, of the one that closes a split
	others      map[int64][]ulid.ULID // by resolution

	deletes []*block.DeleteRequest
	done    []ulid.ULID // requests carried out in the results
	expired []policy.Class
}

func (p *planner) draft(kind Kind, l *lane, in []*entry) *draft {
	return &draft{kind: kind, lane: l, in: in, labels: l.tier.family.labels, shard: l.shard}
}

// emit puts a job into the plan, unless it has failed a short while ago; nil then.
func (p *planner) emit(d *draft) *Job {
	l := d.lane
	j := Job{
		Kind: d.kind, Key: fmt.Sprintf("%s/%s/%s", d.kind, l.key(), d.key), Group: l.tier.key(), Labels: d.labels,
		Resolution: l.tier.resolution, Replaces: d.replaces,
	}
	if until, ok := p.in.Failed[j.Key]; ok && p.now < until.UnixMilli() {
		return nil
	}
	p.leaveOut(d)
	w := hull(d.in)
	j.MinTime, j.MaxTime, j.Deletes, j.Expired, j.Why = w.from, w.to, d.deletes, d.expired, d.because()
	j.Area = p.area(l, w)
	for _, e := range d.in {
		e.taken = true
		j.Inputs = append(j.Inputs, e.meta)
		j.InputBytes = add(j.InputBytes, e.meta.SizeBytes())
	}
	j.DiskBytes = d.diskBytes(j.InputBytes)
	for _, r := range d.resolutions {
		j.Outputs = append(j.Outputs, p.output(d, r))
	}
	if p.copies(d) {
		j.Around = p.aroundID(j.Outputs[0].Meta.ULID)
	}
	if d.closes {
		j.order = 1
	}
	p.plan.Jobs = append(p.plan.Jobs, j)
	return &p.plan.Jobs[len(p.plan.Jobs)-1]
}

// leaveOut decides what of the inputs must not be in the results.
func (p *planner) leaveOut(d *draft) {
	d.deletes, d.done = p.pendingFor(d.in, d.labels)
	d.expired = p.expiredIn(d.in, d.kind != Downsample, slices.Min(d.resolutions))
	d.expired = slices.DeleteFunc(d.expired, func(c policy.Class) bool { return p.outlives(d, c) })
}

// outlives tells whether a coarser tier that a job fills in passing is to keep a
// class that may leave its inputs: from there it is gone with them. A job of its
// own takes it out of the raw data then.
func (p *planner) outlives(d *draft, c policy.Class) bool {
	return slices.ContainsFunc(d.resolutions, func(r int64) bool {
		return r > d.lane.tier.resolution && slices.ContainsFunc(d.in, func(e *entry) bool { return !p.leaves(e, c, false, r) })
	})
}

// because adds to the reason what is left out in passing.
func (d *draft) because() string {
	var out []string
	if d.why != "" {
		out = append(out, d.why)
	}
	if n := len(d.deletes); n > 0 {
		out = append(out, count(n, "delete request")+" to carry out")
	}
	if len(d.expired) > 0 {
		out = append(out, "expired: "+names(d.expired))
	}
	return strings.Join(out, "; ")
}

// diskBytes bounds what the results take: none is larger than its inputs, since
// aggregates of few samples may take as much as these. A shard may be twice as
// large as the mean.
func (d *draft) diskBytes(in int64) int64 {
	if d.kind == Split {
		in = in / int64(d.shard.Count) * 2
	}
	var out int64
	for range d.resolutions {
		out = add(out, in)
	}
	return out
}

func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// output makes the meta.json of one result, but for what the writing finds out.
func (p *planner) output(d *draft, resolution int64) Output {
	m := &block.Meta{ULID: p.resultID(d, resolution), Version: 1}
	w := hull(d.in)
	m.MinTime, m.MaxTime = w.from, w.to
	m.Compaction = p.compaction(d)
	m.Thanos = block.Thanos{
		Version: 1, Labels: d.labels.Map(), Source: block.SourceCompactor,
		Downsample: block.Downsample{Resolution: resolution},
	}
	ext := block.Extension{Deletes: d.done, Expired: p.carried(d), ReplicaLabels: p.replicas(d)}
	ext.Thinned = len(d.expired) > 0 || slices.ContainsFunc(d.in, thinned)
	if resolution == d.lane.tier.resolution {
		ext.Done = p.doneIn(d)
	}
	if d.shard != nil {
		s := *d.shard
		s.Sources, s.Void = sourcesOf(d.in), d.voidShards()
		ext.Shard = &s
	}
	if err := m.SetExtension(ext); err != nil {
		panic(err) // strings and numbers alone: it can always be encoded
	}
	o := Output{Meta: m, NoCompact: d.shard != nil, FindBounds: d.findBounds}
	if d.closes {
		o.Closes, o.Others = true, d.others[resolution]
	}
	return o
}

// compaction tells what a result is made of. A shard fresh from a split names only
// itself, so that no other reader takes it for all of its inputs; the one that
// closes the split names them too and so hides them.
func (p *planner) compaction(d *draft) block.Compaction {
	c := block.Compaction{}
	for _, e := range d.in {
		c.Level = max(c.Level, e.meta.Compaction.Level)
		c.Parents = append(c.Parents, block.Desc{ULID: e.id(), MinTime: e.meta.MinTime, MaxTime: e.meta.MaxTime})
		if len(e.meta.Compaction.Sources) == 0 {
			c.Sources = append(c.Sources, e.id())
		}
		c.Sources = append(c.Sources, e.meta.Compaction.Sources...)
	}
	if len(d.in) > 1 || d.kind == Split {
		c.Level++
	}
	if d.kind == Split {
		own := p.resultID(d, d.lane.tier.resolution)
		if !d.closes {
			c.Sources = nil
		}
		c.Sources = append(c.Sources, own)
	}
	c.Sources = sortedIDs(c.Sources)
	return c
}

// voidShards are those that had no series in any of the inputs.
func (d *draft) voidShards() []int {
	if d.kind == Split {
		return d.void
	}
	return slices.DeleteFunc(slices.Clone(d.in[0].ext.Shard.Void), func(i int) bool {
		return slices.ContainsFunc(d.in, func(e *entry) bool { return !slices.Contains(e.ext.Shard.Void, i) })
	})
}

func sourcesOf(in []*entry) []ulid.ULID {
	var out []ulid.ULID
	for _, e := range in {
		out = append(out, level1(e.meta, e.ext)...)
	}
	return sortedIDs(out)
}

func sortedIDs(in []ulid.ULID) []ulid.ULID {
	slices.SortFunc(in, ulid.ULID.Compare)
	return slices.Compact(in)
}

func ids(in []*entry) []ulid.ULID {
	var out []ulid.ULID
	for _, e := range in {
		out = append(out, e.id())
	}
	return sortedIDs(out)
}

// carried are the names of the classes that are in none of the inputs any more,
// or leave them now.
func (p *planner) carried(d *draft) []string {
	var out []string
	for _, c := range d.expired {
		out = append(out, c.Name)
	}
	for _, e := range d.in {
		for _, c := range p.classes[string(e.external.Bytes(nil))] {
			missing := func(o *entry) bool {
				return slices.Contains(o.ext.Expired, c.Name) || !slices.ContainsFunc(p.classes[string(o.external.Bytes(nil))], func(x policy.Class) bool { return x.Name == c.Name })
			}
			if !slices.ContainsFunc(d.in, func(o *entry) bool { return !missing(o) }) {
				out = append(out, c.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// replicas are the labels that were taken off the inputs, now or before.
func (p *planner) replicas(d *draft) []string {
	var out []string
	for _, e := range d.in {
		out = append(out, e.ext.ReplicaLabels...)
		for _, name := range p.cfg.ReplicaLabels {
			if p.cfg.Dedup && e.external.Has(name) && e.external.Get(name) != d.labels.Get(name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// resultID makes the ULID of a result from what goes into it, so that all who do
// the same job write the same block. Its time is that of the newest input. That
// of a rewritten block is just before its only input: of two blocks with the same
// sources the one with the lowest ULID stays, for every reader.
func (p *planner) resultID(d *draft, resolution int64) ulid.ULID {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %d %s\n", d.kind, resolution, d.shard.Key())
	var ms uint64
	for _, id := range ids(d.in) {
		sum.Write(id[:])
		ms = max(ms, id.Time())
	}
	for _, r := range d.deletes {
		fmt.Fprintf(sum, " %s", r.ID)
	}
	for _, c := range d.expired {
		fmt.Fprintf(sum, " %s", c.Name)
	}
	if d.kind == Rewrite && ms > 0 {
		ms--
	}
	for attempt := 0; ; attempt++ {
		id := ulid.ULID{}
		if err := id.SetTime(ms); err != nil {
			panic(err) // it is the time of another ULID
		}
		copy(id[6:], sum.Sum(nil))
		if marks := p.in.Marks[id]; marks.Deletion == nil && !IsBad(marks.NoCompact) {
			return id
		}
		// There was such a block and it is to go, or no good: this one has to be another.
		fmt.Fprintf(sum, "again %d", attempt)
	}
}
