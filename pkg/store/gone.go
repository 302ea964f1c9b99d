package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
)

// A block of which an object is not in the bucket when it is read is set aside at
// once: queries name it, and ask the bucket for nothing of it. The next look,
// which comes soon, asks for its meta.json. Without that the block is gone and
// forgotten; with it the block is incomplete and stays set aside until the object
// is back, for two small requests a look.

// noteGone sets a block aside if err says that an object of it was not there, and
// has Run look into the bucket soon.
func (s *Store) noteGone(l *loaded, err error) {
	missing, _ := l.lacks()
	if missing || !errors.As(err, new(*fetch.GoneError)) {
		return
	}
	l.note(err, s.now())
	s.fetcher.Suspect(l.meta.ULID)
	select {
	case s.lookAgain <- struct{}{}:
	default: // asked for already
	}
}

// lacking are the blocks that are set aside because an object was not there.
func (s *Store) lacking() map[ulid.ULID]bool {
	ids := map[ulid.ULID]bool{}
	for id, l := range s.blocks {
		if missing, _ := l.lacks(); missing {
			ids[id] = true
		}
	}
	for id := range s.incomplete {
		ids[id] = true
	}
	return ids
}

// keepIncomplete remembers of a block that is dropped because others have all of
// it that it lacks an object: it must not take their place before that is back.
func (s *Store) keepIncomplete(metas map[ulid.ULID]*block.Meta, dropped []*loaded) {
	maps.DeleteFunc(s.incomplete, func(id ulid.ULID, _ error) bool { return metas[id] == nil || s.blocks[id] != nil })
	for _, l := range dropped {
		if missing, _ := l.lacks(); missing && metas[l.meta.ULID] != nil {
			s.incomplete[l.meta.ULID] = l.broken()
		}
	}
}

// suspectMore has the Fetcher look for the blocks that lack an object and are not
// in asked, and adds them there.
func (s *Store) suspectMore(asked map[ulid.ULID]bool) (more bool) {
	for id := range s.lacking() {
		if !asked[id] {
			s.fetcher.Suspect(id)
			asked[id], more = true, true
		}
	}
	return more
}

// missedAny tells whether an object of a block was not there and what that means
// is not known yet.
func missedAny(picks []pick) bool {
	return slices.ContainsFunc(picks, func(p pick) bool {
		missing, asked := p.block.lacks()
		return missing && !asked
	})
}

// lookWait is how long a query that has missed a block waits for a look: what
// replaces the block may be there already.
const lookWait = 2 * soon

// awaitLook waits for a look that has not begun yet. It is false where none ends
// in time, or nobody looks.
func (s *Store) awaitLook(ctx context.Context) bool {
	ended := s.looks.next()
	if ended == nil {
		return false
	}
	timer := time.NewTimer(lookWait)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// looks lets queries wait for looks into the bucket.
type looks struct {
	mu struct {
		sync.Mutex
		now   chan struct{} // closed when the look at hand ends
		later chan struct{} // when the one after it does; nil: Run isn't there
	}
}

// open is called when Run begins.
func (l *looks) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.later = make(chan struct{})
}

func (l *looks) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.now, l.mu.later = l.mu.later, make(chan struct{})
}

func (l *looks) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.mu.now)
}

// close is called when Run ends: there is nothing to wait for any more.
func (l *looks) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.mu.later)
	l.mu.later = nil
}

// next returns what is closed when the next look ends; nil: there is none.
func (l *looks) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.later
}
