package compact

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/compact/internal/plan"
)

// snapshot is what the bucket is known to hold: what a look at it showed, and
// what we have done since. It never changes.
type snapshot struct {
	block.View
	deletes []*block.DeleteRequest
	clean   map[ulid.ULID][]ulid.ULID // by request, blocks found here to hold nothing of it, which it doesn't say yet
	// fault is why nothing may be removed by this snapshot: the look failed, or
	// the listing lacked blocks.
	fault error
	taken time.Time // by our clock, when the look began
	ended int64     // how many jobs had ended here then
}

// sound tells whether blocks may be marked and removed by the snapshot.
func (s *snapshot) sound() bool { return s.fault == nil }

// marks is how many of the blocks are marked for deletion. Blocks that are left
// out, or not visible, have marks too.
func (s *snapshot) marks() (n int) {
	for id, m := range s.Marks {
		if m.Deletion != nil && s.Metas[id] != nil {
			n++
		}
	}
	return n
}

// view holds the newest snapshot.
type view struct {
	mu struct {
		sync.Mutex
		snap    *snapshot // nil until the first look has succeeded
		ours    []ourChange
		err     error         // of the last look
		changed chan struct{} // closed, and made anew, at each change
	}
}

// ourChange is one that we made and the bucket's manifest or listing may not show yet.
type ourChange struct {
	block.Change
	at time.Time
}

// changeShows is how long a change of ours may take to show in a look; after
// that the bucket is believed.
const changeShows = time.Hour

func newView() *view {
	v := &view{}
	v.mu.changed = make(chan struct{})
	return v
}

// get returns the newest snapshot, nil before the first.
func (v *view) get() *snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.snap
}

// waiting tells why there is no snapshot yet; nil when there is one.
func (v *view) waiting() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.mu.snap != nil:
		return nil
	case v.mu.err != nil:
		return v.mu.err
	}
	return errors.New("looking for blocks in the bucket")
}

// next returns a channel that is closed at the next change.
func (v *view) next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mu.changed
}

// tell makes everybody plan again, though the blocks are the same.
func (v *view) tell() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tellLocked()
}

func (v *view) tellLocked() {
	close(v.mu.changed)
	v.mu.changed = make(chan struct{})
}

// take makes what a look has shown the newest snapshot, with our own changes
// that it doesn't show yet. A first look that failed is no snapshot: what it
// lacks would look removed.
func (v *view) take(s *snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.err = s.fault
	if s.fault != nil && v.mu.snap == nil {
		return
	}
	v.mu.ours = slices.DeleteFunc(v.mu.ours, func(c ourChange) bool {
		return s.taken.Sub(c.at) > changeShows || shows(s.View, c.Change)
	})
	for _, c := range v.mu.ours {
		apply(&s.View, c.Change)
	}
	s.keepClean(v.mu.snap)
	v.mu.snap = s
	v.tellLocked()
}

// add notes what we did ourselves.
func (v *view) add(at time.Time, changes ...block.Change) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range changes {
		if c.Removed { // what was done to it before no longer matters
			v.mu.ours = slices.DeleteFunc(v.mu.ours, func(o ourChange) bool { return o.Block == c.Block })
		}
		v.mu.ours = append(v.mu.ours, ourChange{c, at})
	}
	if v.mu.snap == nil {
		return
	}
	s := *v.mu.snap
	s.Metas, s.Marks, s.Partial = maps.Clone(s.Metas), maps.Clone(s.Marks), maps.Clone(s.Partial)
	for _, c := range changes {
		apply(&s.View, c)
	}
	v.mu.snap = &s
	v.tellLocked()
}

// shows tells whether a view has a change in it.
func shows(v block.View, c block.Change) bool {
	_, visible := v.Metas[c.Block]
	switch {
	case c.Meta != nil:
		return visible
	case c.Marks != nil:
		return !visible || covers(v.Marks[c.Block], *c.Marks)
	}
	_, partial := v.Partial[c.Block]
	return !visible && !partial
}

// covers tells whether have has every mark that want has. A no-compact mark may
// be in the place of another.
func covers(have, want block.Marks) bool {
	return (want.Deletion == nil || have.Deletion != nil) &&
		(want.NoCompact == nil || have.NoCompact != nil && (have.NoCompact.Details == want.NoCompact.Details || !plan.IsBad(want.NoCompact))) &&
		(want.NoDownsample == nil || have.NoDownsample != nil)
}

// apply makes a change to a view whose maps are the caller's.
func apply(v *block.View, c block.Change) {
	switch {
	case c.Meta != nil:
		v.Metas[c.Block] = c.Meta
		delete(v.Partial, c.Block)
	case c.Marks != nil:
		v.Marks[c.Block] = *c.Marks
	case c.Removed:
		delete(v.Metas, c.Block)
		delete(v.Marks, c.Block)
		delete(v.Partial, c.Block)
	}
}

// marked returns the change that adds a deletion mark to what a block has.
func (s *snapshot) marked(id ulid.ULID, mark *block.DeletionMark) block.Change {
	marks := s.Marks[id]
	marks.Deletion = mark
	return block.Change{Block: id, Marks: &marks}
}
