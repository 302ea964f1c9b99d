package block

import (
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

// View is what a bucket was seen to hold. The Metas and Marks in it are shared
// between views and must not be changed; the maps are the caller's own.
type View struct {
	Metas    map[ulid.ULID]*Meta
	Marks    map[ulid.ULID]Marks
	Partial  map[ulid.ULID]time.Time // blocks without meta.json: when their newest object was written, by the bucket's clock
	Problems map[ulid.ULID]error     // blocks that are there and can't be used, and why
	Dropped  map[Reason]int          // how many blocks Select has left out
	LeftOut  map[ulid.ULID]*Meta     // these blocks

	FromManifest bool      // the bucket's manifest said so, and no listing was made
	ListedAt     time.Time // when the bucket was last listed: by its own clock if by a manifest, else by ours
	Complete     bool      // nothing failed and the listing is recent: who removes anything must see this
}

// Reason is why Select leaves a block out.
type Reason string

// The reasons, in the order in which they are looked at.
const (
	DroppedTime      Reason = "time"
	DroppedSelector  Reason = "selector"
	DroppedFresh     Reason = "fresh"
	DroppedMarked    Reason = "marked"
	DroppedDuplicate Reason = "duplicate"
)

// Sorted returns the metas from the oldest data to the newest.
func (v View) Sorted() []*Meta {
	return slices.SortedFunc(maps.Values(v.Metas), compareAge)
}

// clone copies the maps of v.
func (v View) clone() View {
	v.Metas, v.Marks = maps.Clone(v.Metas), maps.Clone(v.Marks)
	v.Partial, v.Problems = maps.Clone(v.Partial), maps.Clone(v.Problems)
	v.Dropped = maps.Clone(v.Dropped)
	return v
}
