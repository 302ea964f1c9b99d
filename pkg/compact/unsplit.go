package compact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// Unsplit says which shards MergeShards merges.
type Unsplit struct {
	Group     string // as the plan names it; "": all
	MarksOnly bool   // only take our no-compact marks off, for others to merge them
	DryRun    bool   // only say what would be done
	// AllowMissing takes it that shards which are not there had no series. Nobody
	// tells so of the last one of a split.
	AllowMissing bool
}

// MergeShards makes one block again of the shards of each time of a group, or
// lets others do so, and returns what it did, a line each. No compactor may work
// on these groups meanwhile: ours would split them again.
func (c *Compactor) MergeShards(ctx context.Context, u Unsplit) ([]string, error) {
	if err := c.look(ctx); err != nil {
		return nil, err
	}
	snap := c.view.get()
	var lines []string
	sets := shardSets(snap, u.Group)
	for _, set := range sets {
		j, err := unsplitJob(set, u.AllowMissing)
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%s: %s", j.Group, describe(j)))
		switch {
		case u.DryRun:
		case u.MarksOnly:
			err = c.takeMarksOff(ctx, snap, set)
		default:
			err = c.unsplit(ctx, snap, j)
		}
		if err != nil {
			return lines, err
		}
	}
	if len(sets) == 0 && u.Group != "" {
		return nil, fmt.Errorf("group %s has no shards", u.Group)
	}
	return lines, nil
}

// unsplit runs a job that no plan has made.
func (c *Compactor) unsplit(ctx context.Context, snap *snapshot, j *plan.Job) error {
	limit, err := c.roomFor(j)
	if err != nil {
		return err
	}
	a := c.newAttempt(&planned{snap: snap}, j)
	if !c.jobs.start(j, a.progress, limit) {
		return fmt.Errorf("job %s: %w", j.Key, errRoom)
	}
	if a.claim, err = c.claims.acquire(ctx, j.Key, describe(j)); err != nil {
		c.jobs.stop(j)
		return err
	}
	return c.do(ctx, a)
}

// takeMarksOff removes the marks by which other compactors leave shards alone.
func (c *Compactor) takeMarksOff(ctx context.Context, snap *snapshot, set []*block.Meta) error {
	for _, m := range set {
		mark := snap.Marks[m.ULID].NoCompact
		if mark == nil || mark.Details != plan.DetailsShard {
			continue
		}
		if err := block.Unmark(ctx, c.bkt, m.ULID, block.NoCompactMarkFilename); err != nil {
			return err
		}
		marks := snap.Marks[m.ULID]
		marks.NoCompact = nil
		c.announce(ctx, block.Change{Block: m.ULID, Marks: &marks})
	}
	return nil
}

// shardSets returns the shards of a group, or of all, that belong together: those
// whose times overlap. Marked ones are left out.
func shardSets(snap *snapshot, group string) [][]*block.Meta {
	groups := map[string][]*block.Meta{}
	for id, m := range snap.Metas {
		shard, err := shardOf(m)
		if err != nil || shard == nil || snap.Marks[id].Deletion != nil || group != "" && m.GroupKey() != group {
			continue
		}
		groups[m.GroupKey()] = append(groups[m.GroupKey()], m)
	}
	var out [][]*block.Meta
	for _, all := range groups {
		slices.SortFunc(all, func(a, b *block.Meta) int {
			return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
		})
		var set []*block.Meta
		end := int64(0)
		for _, m := range all {
			if len(set) > 0 && m.MinTime >= end {
				out, set = append(out, set), nil
			}
			set, end = append(set, m), max(end, m.MaxTime)
			if len(set) == 1 {
				end = m.MaxTime
			}
		}
		out = append(out, set)
	}
	slices.SortFunc(out, func(a, b []*block.Meta) int {
		return cmp.Or(strings.Compare(a[0].GroupKey(), b[0].GroupKey()), cmp.Compare(a[0].MinTime, b[0].MinTime))
	})
	return out
}

// errShardMissing refuses to take shards for a whole that they are not: what is
// made of them, or closes their split, would hide what the missing one held.
var errShardMissing = errors.New("shards are missing")

// unsplitJob makes the job that merges shards of one group whose times overlap.
func unsplitJob(set []*block.Meta, allowMissing bool) (*plan.Job, error) {
	if err := whole(set, nil); err != nil && !(allowMissing && errors.Is(err, errShardMissing)) {
		return nil, err
	}
	first := set[0]
	m := &block.Meta{Version: 1, MinTime: first.MinTime, MaxTime: first.MaxTime}
	m.Thanos = block.Thanos{Version: 1, Labels: first.Thanos.Labels, Source: block.SourceCompactor, Downsample: first.Thanos.Downsample}
	ext, _, err := first.Extension()
	if err != nil {
		return nil, err
	}
	ext.Shard, ext.Runs = nil, 0 // written anew, in one run
	j := &plan.Job{
		Kind: plan.Compact, Group: first.GroupKey(), Labels: first.Labels(), Resolution: first.Resolution(),
		Inputs: set, Replaces: true, Why: "shards become one block again",
	}
	sum := sha256.New()
	for _, in := range set {
		more, _, err := in.Extension()
		if err != nil {
			return nil, err
		}
		both(&ext, more)
		m.MinTime, m.MaxTime = min(m.MinTime, in.MinTime), max(m.MaxTime, in.MaxTime)
		m.Compaction.Level = max(m.Compaction.Level, in.Compaction.Level+1)
		m.Compaction.Sources = append(m.Compaction.Sources, in.Sources()...)
		m.Compaction.Parents = append(m.Compaction.Parents, block.Desc{ULID: in.ULID, MinTime: in.MinTime, MaxTime: in.MaxTime})
		j.InputBytes += in.SizeBytes()
		sum.Write(in.ULID[:])
	}
	slices.SortFunc(m.Compaction.Sources, ulid.ULID.Compare)
	m.Compaction.Sources = slices.Compact(m.Compaction.Sources)
	newest := slices.MaxFunc(set, func(a, b *block.Meta) int { return a.ULID.Compare(b.ULID) })
	copy(m.ULID[:], newest.ULID[:6]) // its time
	copy(m.ULID[6:], sum.Sum(nil))
	j.Key = fmt.Sprintf("unsplit/%s/%d-%d", j.Group, m.MinTime, m.MaxTime)
	j.MinTime, j.MaxTime, j.DiskBytes = m.MinTime, m.MaxTime, j.InputBytes
	j.Outputs = []plan.Output{{Meta: m}}
	return j, m.SetExtension(ext)
}

// both keeps of what is recorded in ext what holds for another block, too.
func both(ext *block.Extension, other block.Extension) {
	ext.Deletes = slices.DeleteFunc(slices.Clone(ext.Deletes), func(id ulid.ULID) bool { return !slices.Contains(other.Deletes, id) })
	ext.Expired = slices.DeleteFunc(slices.Clone(ext.Expired), func(class string) bool { return !slices.Contains(other.Expired, class) })
	ext.Done = slices.DeleteFunc(slices.Clone(ext.Done), func(resolution int64) bool { return !slices.Contains(other.Done, resolution) })
	ext.Thinned = ext.Thinned || other.Thinned
	for _, name := range other.ReplicaLabels {
		if !slices.Contains(ext.ReplicaLabels, name) {
			ext.ReplicaLabels = append(slices.Clone(ext.ReplicaLabels), name)
		}
	}
}

// whole tells whether the ranges of shards leave out some of what within holds, a
// shard that was split itself; nil: all series. Shards without series have no block;
// the one that closes their split tells of them.
func whole(set []*block.Meta, within *block.Shard) error {
	parts, err := partsOf(set)
	if err != nil {
		return err
	}
	var all part
	if within != nil {
		all = part{within.From, within.To}
	}
	slices.SortFunc(parts, func(a, b part) int { return labels.Compare(a.from, b.from) })
	reach := all.from
	for _, p := range parts {
		if labels.Compare(p.from, reach) > 0 {
			break
		}
		if p.to.IsEmpty() {
			return nil
		}
		if labels.Compare(p.to, reach) > 0 {
			reach = p.to
		}
	}
	if !all.to.IsEmpty() && labels.Compare(reach, all.to) >= 0 {
		return nil
	}
	return fmt.Errorf("%w: of group %s, %s to %s, nothing holds the series from %s on", errShardMissing, set[0].GroupKey(), day(set[0].MinTime), day(set[0].MaxTime), reach)
}

// part is a range of series: from is inclusive, to exclusive, an empty one open.
type part struct{ from, to labels.Labels }

// partsOf are the ranges of shards, and of those that had no series.
func partsOf(set []*block.Meta) ([]part, error) {
	var parts []part
	splits := map[string][]*block.Shard{}
	for _, m := range set {
		s, err := shardOf(m)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{s.From, s.To})
		splits[s.Split] = append(splits[s.Split], s)
	}
	for _, shards := range splits {
		parts = append(parts, voidParts(shards)...)
	}
	return parts, nil
}

// voidParts are the ranges between shards of one split, and before the first, in
// which all that close it say there were no series.
func voidParts(shards []*block.Shard) (out []part) {
	edges := map[int]labels.Labels{} // edge i is where shard i begins and shard i−1 ends
	closing, void := 0, map[int]int{}
	for _, s := range shards {
		edges[s.Index], edges[s.Index+1] = s.From, s.To
		if s.Index == s.Count-1 {
			closing++
			for _, i := range s.Void {
				void[i]++
			}
		}
	}
	if _, ok := edges[0]; !ok {
		edges[0] = labels.EmptyLabels()
		if within := shards[0].Within; within != nil {
			edges[0] = within.From
		}
	}
	for first := 0; first < shards[0].Count; first++ {
		from, ok := edges[first]
		if !ok || closing == 0 || void[first] < closing {
			continue
		}
		next := first + 1
		for ; void[next] == closing; next++ { // side by side: nobody tells where one ends
		}
		if to, ok := edges[next]; ok {
			out = append(out, part{from, to})
		}
	}
	return out
}
