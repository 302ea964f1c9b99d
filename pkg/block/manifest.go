package block

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// Manifest lists the blocks of a bucket in one object, firnline/manifest, so
// that who reads or compacts blocks needs neither a listing nor an object per
// block to start and to stay up to date. Writers announce what they change
// (Announce); a compactor folds that into the list, and now and then compares
// it with a listing. Nobody trusts it over the blocks, and everything works,
// only slower, where it is missing, stale or wrong.
type Manifest struct {
	Generation int64     // one more with each write
	ListedAt   time.Time // when it was last compared with a listing, by the bucket's clock
	Metas      map[ulid.ULID]*Meta
	Marks      map[ulid.ULID]Marks
}

// Change is one thing that happened to a block. Exactly one of Meta, Marks and
// Removed is set.
type Change struct {
	Block   ulid.ULID
	Meta    *Meta  // it has become visible
	Marks   *Marks // these are its marks from now on
	Removed bool   // it is gone
}
