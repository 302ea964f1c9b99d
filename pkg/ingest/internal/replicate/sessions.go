package replicate

import (
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/tenant"
)

// Bounds of what is remembered of one node.
const (
	maxSessions      = 20_000           // tenants times generations of their catalogs
	announceAgain    = 10 * time.Minute // metric families are told again: the node may have lost them
	maxAnnounced     = 64 << 10
	idsPerPage       = 4096
	maxPagesOfOneRun = 1 << 20 // IDs are dense, so more than 4 billion are none
)

// sessions remember, for one node, which series it knows by their number. It is
// a guess: a node that has forgotten says so, and is told again.
type sessions struct {
	mu   sync.Mutex
	open map[batch.Session]*session
}

// session is one of them. It is safe for use by many.
type session struct {
	mu        sync.RWMutex
	pages     []*[idsPerPage / 64]uint64 // bitmap of numbers; nil: none of these
	announced map[uint64]struct{}        // metric families, by hash
	since     time.Time                  // of the oldest among them
}

// get returns what is remembered of a session. When there are too many, all is
// forgotten: it is cheap to tell, and tenants that are gone go with it.
func (s *sessions) get(id batch.Session) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.open[id]
	if x == nil {
		if s.open == nil || len(s.open) >= maxSessions {
			s.open = map[batch.Session]*session{}
		}
		x = &session{}
		s.open[id] = x
	}
	return x
}

// knows tells whether the node knows a number. s.mu is held for reading.
func (s *session) knows(id uint64) bool {
	page := id / idsPerPage
	if page >= uint64(len(s.pages)) || s.pages[page] == nil {
		return false
	}
	return s.pages[page][id%idsPerPage/64]&(1<<(id%64)) != 0
}

// set takes note of a number that the node knows, or knows no more. s.mu is held.
func (s *session) set(id uint64, known bool) {
	page := id / idsPerPage
	if page >= maxPagesOfOneRun {
		return
	}
	for page >= uint64(len(s.pages)) {
		s.pages = append(s.pages, nil)
	}
	if s.pages[page] == nil {
		s.pages[page] = new([idsPerPage / 64]uint64)
	}
	word := &s.pages[page][id%idsPerPage/64]
	if known {
		*word |= 1 << (id % 64)
	} else {
		*word &^= 1 << (id % 64)
	}
}

// learn takes note of all series of w but those in except.
func (s *session) learn(w *batch.Write, except map[uint32]struct{}, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range w.Only {
		if _, no := except[n]; !no {
			s.set(w.Batch.Series[n].ID, known)
		}
	}
}

// familyHash stands for all that a tenant says of a metric.
func familyHash(id tenant.ID, f *batch.Family) uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, s := range []string{string(id), f.Name, string(f.Type), f.Unit, f.Help} {
		_, _ = d.WriteString(s)
		_, _ = d.Write([]byte{0xff})
	}
	return d.Sum64()
}

// told tells whether the node was told of a family of late.
func (s *session) told(id tenant.ID, f *batch.Family, now time.Time) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.announced[familyHash(id, f)]
	return ok && now.Sub(s.since) < announceAgain
}

// tell takes note of the families that the node has taken.
func (s *session) tell(id tenant.ID, families []batch.Family, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.announced == nil || now.Sub(s.since) >= announceAgain || len(s.announced) > maxAnnounced {
		s.announced, s.since = map[uint64]struct{}{}, now
	}
	for i := range families {
		s.announced[familyHash(id, &families[i])] = struct{}{}
	}
}
