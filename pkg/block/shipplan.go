package block

import (
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// localBlock is a block in the TSDB's folder.
type localBlock struct {
	meta   *Meta
	labels labels.Labels // the external labels it is to have
}

// shipInput is all that planShip looks at.
type shipInput struct {
	local           []localBlock
	shipped         map[ulid.ULID]struct{}
	rebuild         bool // shipped may lack blocks
	uploadCompacted bool
	remote          []*Meta // what the bucket has that may cover local blocks
	remoteKnown     bool    // remote has been read
}

// shipPlan is what to do about the blocks that aren't listed as shipped.
type shipPlan struct {
	ship       []localBlock // the oldest data first
	covered    []ulid.ULID  // all of their samples are in the bucket, in other blocks
	needRemote bool         // some block can't be decided before remote is read; nothing else is set
}

// planShip decides which local blocks to ship.
//
// A block of level 1 is shipped, out-of-order ones like any other. So is a
// compacted one when a sample in it may be missing from the bucket, that is, when
// one of the blocks it was made from is neither listed as shipped nor a source
// of a block in the bucket with the same labels (Prometheus compacts before the
// upload when nobody delays it). With uploadCompacted it is shipped unless a
// single block of the bucket covers it. After the list was lost, level 1 is
// compared with the bucket too, which may have compacted it away long since.
//
// A block whose own ULID is in the bucket comes out to be shipped: the upload
// finds out whether anything is missing.
func planShip(in shipInput) shipPlan {
	var p shipPlan
	cover := newCoverage(in.remote)
	for _, b := range in.local {
		if _, done := in.shipped[b.meta.ULID]; done || b.meta.Stats.NumSamples == 0 {
			continue
		}
		switch {
		case !in.mustCompare(b):
			p.ship = append(p.ship, b)
		case in.sourcesShipped(b):
			p.covered = append(p.covered, b.meta.ULID)
		case !in.remoteKnown:
			return shipPlan{needRemote: true}
		case cover.covers(b, in.uploadCompacted):
			p.covered = append(p.covered, b.meta.ULID)
		default:
			p.ship = append(p.ship, b)
		}
	}
	slices.SortFunc(p.ship, func(a, b localBlock) int { return compareAge(a.meta, b.meta) })
	return p
}

// mustCompare tells whether a block may hold what is in the bucket already.
func (in *shipInput) mustCompare(b localBlock) bool { return in.rebuild || b.derived() }

// sourcesShipped tells, from the list alone, that a block made from others holds nothing new.
func (in *shipInput) sourcesShipped(b localBlock) bool {
	return b.derived() && !in.uploadCompacted && containsAll(in.shipped, b.meta.Sources())
}

// derived tells a block that was made from others: compacted, or rewritten after
// series were deleted from it, which keeps its level.
func (b *localBlock) derived() bool {
	return b.meta.Compaction.Level > 1 || !slices.Contains(b.meta.Sources(), b.meta.ULID)
}

// coverage knows the sources of the blocks in a bucket.
type coverage struct {
	ids map[ulid.ULID]struct{}
	by  map[string]*groupCoverage // by external labels
}

type groupCoverage struct {
	blocks []map[ulid.ULID]struct{} // sources of each block
	all    map[ulid.ULID]struct{}   // sources of all of them
}

// newCoverage takes raw blocks only: a downsampled one does not hold the samples.
func newCoverage(remote []*Meta) coverage {
	c := coverage{ids: map[ulid.ULID]struct{}{}, by: map[string]*groupCoverage{}}
	for _, m := range remote {
		c.ids[m.ULID] = struct{}{}
		if m.Resolution() != ResolutionRaw {
			continue
		}
		key := m.Labels().String()
		g := c.by[key]
		if g == nil {
			g = &groupCoverage{all: map[ulid.ULID]struct{}{}}
			c.by[key] = g
		}
		set := map[ulid.ULID]struct{}{}
		for _, s := range m.Sources() {
			set[s] = struct{}{}
			g.all[s] = struct{}{}
		}
		g.blocks = append(g.blocks, set)
	}
	return c
}

// covers tells whether the bucket has every source of a block: in one block
// where single is set, else in any number.
func (c *coverage) covers(b localBlock, single bool) bool {
	if _, there := c.ids[b.meta.ULID]; there {
		return false
	}
	g := c.by[b.labels.String()]
	if g == nil {
		return false
	}
	if !single {
		return containsAll(g.all, b.meta.Sources())
	}
	return slices.ContainsFunc(g.blocks, func(set map[ulid.ULID]struct{}) bool { return containsAll(set, b.meta.Sources()) })
}

func containsAll(set map[ulid.ULID]struct{}, ids []ulid.ULID) bool {
	for _, id := range ids {
		if _, ok := set[id]; !ok {
			return false
		}
	}
	return true
}
