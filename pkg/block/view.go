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
	return View{
		Metas:    maps.Clone(v.Metas),
		Marks:    maps.Clone(v.Marks),
		Partial:  maps.Clone(v.Partial),
		Problems: maps.Clone(v.Problems),
		Dropped:  maps.Clone(v.Dropped),
	}
}
