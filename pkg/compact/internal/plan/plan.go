// Package plan decides what a compactor does: a pure function over the blocks of
// a bucket, the policy and the time. It does no I/O, has no clock and no lock.
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/policy"
)

// Config is what the plan depends on beside the blocks.
type Config struct {
	Ranges        []int64 // ms, ascending: 2h, 8h, 2d, 14d
	ReplicaLabels []string
	Dedup         bool // merge replicas; ReplicaLabels are taken off then

	Downsample   bool
	Window5m     int64 // ms: raw data is downsampled by windows of this length, aligned to it: 2d
	Window1h     int64 // the same from 5m to 1h: 14d
	SettleDelay  int64 // ms after a window's end when it counts as complete though its group has no newer block
	DeleteDelay  time.Duration
	PartialDelay time.Duration // 48h: partial blocks left alone for longer are removed

	MaxIndexBytes int64 // of one block; what would get larger is split into shards
	MaxInputs     int   // of one job
	// CopyBytes is how long the runs of chunks in a result of the longest range
	// must be on average for its segments to be copied. 0: none are at any range.
	CopyBytes int64

	ForeignWindow time.Duration // how long a group rests after somebody else's compactor was seen at work in it; 0: never
	Policy        *policy.Policy
}

// Input is what a bucket was seen to hold.
type Input struct {
	Metas    map[ulid.ULID]*block.Meta
	LeftOut  map[ulid.ULID]*block.Meta // visible too, but none of ours, or too fresh
	Marks    map[ulid.ULID]block.Marks // of all of them
	Partial  map[ulid.ULID]time.Time
	Problems map[ulid.ULID]error
	Deletes  []*block.DeleteRequest
	Clean    map[ulid.ULID][]ulid.ULID // by request, blocks that hold nothing of it beside those that it names itself
	// Unmatched are the blocks that a compactor has looked into in vain, and
	// remembers: by ClassKey those without a series of a retention class, by
	// EmptyKey those of which nothing is left at a coarser resolution, by VoidKey
	// results that would have had no series and were not written.
	Unmatched map[string]bool
	// Failed are jobs not to be tried before a time, by key.
	Failed map[string]time.Time
}

// Kind is what a job is for.
type Kind string

// The kinds of jobs.
const (
	Compact    Kind = "compact"    // fewer, larger blocks; overlaps merged
	Downsample Kind = "downsample" // coarser ones from what is merged already
	Split      Kind = "split"      // one shard of a group too large for one block
	Rewrite    Kind = "rewrite"    // without what was deleted or has expired
)

// Job reads blocks and writes others in their place. Two workers that plan from
// the same blocks come to the same jobs, down to the ULIDs of the results.
type Job struct {
	Kind       Kind
	Key        string        // names the group, resolution, shard and window; the lease is on it
	Area       string        // names the group, shard and largest window around it: see Plan.Apart
	Group      string        // GroupKey of the inputs, replica labels taken off
	Labels     labels.Labels // of the results
	Resolution int64         // of the inputs, ms
	MinTime    int64         // ms, inclusive
	MaxTime    int64         // ms, exclusive
	Inputs     []*block.Meta
	Outputs    []Output
	// Around is the ULID of the only result where its segments are copied within
	// the bucket and just its index is written; zero: they have to be merged. Where
	// copying turns out not to be possible the result is that of Outputs.
	Around ulid.ULID
	// Replaces tells that the inputs are to be marked for deletion once all
	// outputs are there and verified. A downsampling job leaves them.
	Replaces bool
	// Deletes and Expired are what must not be in the results.
	Deletes []*block.DeleteRequest
	Expired []policy.Class

	InputBytes int64 // sizes of the inputs
	DiskBytes  int64 // estimate of what the outputs take, at most
	Why        string

	order int // among jobs of one time range: the shard that closes a split comes last
}

// Output is one block that a job writes.
type Output struct {
	// Meta lacks only what the writing finds out: stats, files, upload_time.
	Meta *block.Meta
	// Closes: this shard's meta.json goes last, since it hides the inputs from
	// other readers: after all of Others are visible and verified.
	Closes bool
	Others []ulid.ULID
	// NoCompact: mark it no-compact before its meta.json, so that other
	// compactors leave the shard alone.
	NoCompact bool
	// FindBounds: no shard of this split is there yet to take the bounds from. The
	// extension's From and To are those of all that is split; the worker cuts it
	// into Count parts of about equal size, by the all-postings list of the
	// largest input (of those of equal size that with the lowest ULID), and
	// records the Index-th. Whoever does so from the same inputs finds the same.
	FindBounds bool
}

// DetailsShard are the details of the no-compact mark that a shard gets: it
// keeps others away, not this planner.
const DetailsShard = "a shard of a split group, compacted by firnline only"

// DetailsBad begins the details of a no-compact mark on a block whose content
// can't be used: it isn't downsampled either.
const DetailsBad = "set aside by firnline compact: "

// IsBad tells whether a mark says that the content of its block can't be used.
func IsBad(m *block.NoCompactMark) bool {
	return m != nil && strings.HasPrefix(m.Details, DetailsBad)
}

// VoidKey is the key in Input.Unmatched of a result without series: there is no
// such block, and no need to try again.
func VoidKey(result ulid.ULID) string { return result.String() + "/void" }

// ClassKey is the key in Input.Unmatched of a block without series of a class.
func ClassKey(id ulid.ULID, class string) string { return id.String() + "/" + class }

// EmptyKey is the key in Input.Unmatched of a block of which a job wrote nothing
// at a resolution, since it holds nothing to aggregate.
func EmptyKey(id ulid.ULID, resolution int64) string {
	return fmt.Sprintf("%s@%d", id, resolution)
}

// Mark is a deletion mark to be set, and why.
type Mark struct {
	Block ulid.ULID
	// CoveredBy is the block that holds all of it, to be verified before; zero
	// where retention removes it. Where it takes all shards of a split to hold it,
	// it is the closing one, and Shards are the others.
	CoveredBy ulid.ULID
	Shards    []ulid.ULID
	Why       string
}

// Held is a block that retention would remove, and what is missing for that.
type Held struct {
	Block      ulid.ULID
	Group      string
	Resolution int64
	Since      time.Time // when it expired
	Why        string
}

// SetAside is a block that is left out of compaction, and why.
type SetAside struct {
	Block    ulid.ULID
	Group    string
	Why      string
	ByOthers bool // by a mark that isn't ours: nothing is known to be wrong with it
}

// Resting is a group in which somebody else's compactor is at work.
type Resting struct {
	Group string
	Until time.Time
	Why   string
}

// Coverage is the time range that a tier of a group has data for.
type Coverage struct {
	Group            string
	Labels           labels.Labels
	Resolution       int64
	MinTime, MaxTime int64 // ms
	Blocks           int
	Bytes            int64
	// Behind is how long before the end of the tier the data begins that is still
	// to come to the next coarser one, ms; 0: there is none.
	Behind int64
}

// Plan is what to do now, each list in the order to do it in.
type Plan struct {
	Jobs     []Job
	Garbage  []Mark      // covered by other blocks
	Expired  []Mark      // by retention
	Remove   []ulid.ULID // marked for longer than the delete delay
	Partial  []ulid.ULID // without meta.json, left alone for long
	Held     []Held
	SetAside []SetAside
	Resting  []Resting
	Coverage []Coverage
	// DeletesDone are requests that no block needs any more.
	DeletesDone []ulid.ULID
}

// Make plans. It is pure: the same blocks, whatever the order of the maps, give
// the same plan. What it returns shares the metas of in and changes none.
func Make(cfg Config, in Input, now time.Time) Plan {
	if cfg.Policy == nil {
		cfg.Policy = policy.New(policy.Tiers{})
	}
	p := &planner{cfg: cfg, in: in, now: now.UnixMilli(), classes: map[string][]policy.Class{}}
	p.requests()
	p.problems()
	p.families(p.family)
	p.removals()
	p.deletesDone()
	p.sort()
	return p.plan
}

// planner holds what one call of Make goes by, and what it has found so far.
type planner struct {
	cfg     Config
	in      Input
	now     int64 // ms
	deletes []deletion
	classes map[string][]policy.Class // by external labels
	plan    Plan
}

// family plans for blocks with equal labels. The order matters: who is covered
// or about to expire is no input of a job, and what one job takes no other gets.
func (p *planner) family(f *family) {
	p.rest(f)
	for _, t := range f.tiers {
		if !f.resting {
			p.collect(t)
		}
	}
	for _, t := range f.tiers {
		p.retain(t)
	}
	p.findPending(f)
	p.coverage(f)
	if f.resting {
		return
	}
	for _, t := range f.tiers {
		p.cutReplicas(t)
		p.continueSplits(t)
		for _, l := range t.lanes {
			p.compact(l)
		}
	}
	for _, t := range f.tiers {
		if to := t.coarser(); to != nil && p.cfg.Downsample {
			for _, l := range t.lanes {
				p.downsample(l, to)
			}
		}
	}
	for _, t := range f.tiers {
		p.rewrite(t)
	}
}

// problems lists the blocks that can't be read at all.
func (p *planner) problems() {
	for id, err := range p.in.Problems {
		p.setAside(id, "", err.Error())
	}
}

// rest looks for somebody else's compactor at work: results that we did not
// write and that came after our own first one.
func (p *planner) rest(f *family) {
	if p.cfg.ForeignWindow <= 0 {
		return
	}
	var first, foreign *entry
	for _, e := range f.all {
		switch {
		case e.meta.Thanos.Source != block.SourceCompactor:
		case e.ours:
			if first == nil || e.meta.Uploaded().Before(first.meta.Uploaded()) {
				first = e
			}
		case e.meta.Compaction.Level > 1 || e.meta.Resolution() > 0:
			if foreign == nil || e.meta.Uploaded().After(foreign.meta.Uploaded()) {
				foreign = e
			}
		}
	}
	if first == nil || foreign == nil || !foreign.meta.Uploaded().After(first.meta.Uploaded()) {
		return
	}
	until := foreign.meta.Uploaded().Add(p.cfg.ForeignWindow)
	if until.UnixMilli() <= p.now {
		return
	}
	f.resting = true
	for _, t := range f.tiers {
		if len(t.live) == 0 {
			continue
		}
		p.plan.Resting = append(p.plan.Resting, Resting{Group: t.key(), Until: until, Why: fmt.Sprintf(
			"somebody else's compactor wrote block %s at %s, after our first result: stop it, only one kind may work on a group",
			foreign.id(), clock(foreign.meta.Uploaded().UnixMilli()))})
	}
}

func (p *planner) coverage(f *family) {
	for _, t := range f.tiers {
		if len(t.live) == 0 {
			continue
		}
		w := hull(t.live)
		c := Coverage{Group: t.key(), Labels: f.labels, Resolution: t.resolution, MinTime: w.from, MaxTime: w.to, Blocks: len(t.live)}
		for _, e := range t.live {
			c.Bytes += e.meta.SizeBytes()
		}
		if to := t.coarser(); to != nil && len(to.pending) > 0 {
			c.Behind = w.to - to.pending[0].meta.MinTime // they are in order of time
		}
		p.plan.Coverage = append(p.plan.Coverage, c)
	}
}

// setAside notes a block that is wrong in itself or clashes with others.
func (p *planner) setAside(id ulid.ULID, group, why string) {
	p.plan.SetAside = append(p.plan.SetAside, SetAside{Block: id, Group: group, Why: why})
}

// sort puts the lists in the order to do them in: the newest data first, since
// it is asked for most. Of the jobs of one time the longest come first, so that
// workers who share them end together: it takes longer to decode chunks for a
// coarser tier than to copy them.
func (p *planner) sort() {
	slices.SortFunc(p.plan.Jobs, func(a, b Job) int {
		return cmp.Or(cmp.Compare(b.MaxTime, a.MaxTime), cmp.Compare(b.MinTime, a.MinTime), cmp.Compare(a.order, b.order),
			cmp.Compare(len(b.Outputs), len(a.Outputs)), strings.Compare(a.Key, b.Key))
	})
	slices.SortFunc(p.plan.Garbage, func(a, b Mark) int { return a.Block.Compare(b.Block) })
	slices.SortFunc(p.plan.Expired, func(a, b Mark) int { return a.Block.Compare(b.Block) })
	slices.SortStableFunc(p.plan.Held, func(a, b Held) int { return cmp.Or(a.Since.Compare(b.Since), a.Block.Compare(b.Block)) })
	slices.SortStableFunc(p.plan.SetAside, func(a, b SetAside) int { return a.Block.Compare(b.Block) })
}
