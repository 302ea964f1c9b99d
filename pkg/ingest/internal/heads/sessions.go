package heads

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/storage"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
)

// sessions are the tables of one head: what each router's numbers stand for.
// They end with the head, whose references mean nothing to another one. To
// forget one is always right: its router is asked for labels again.
type sessions struct {
	most int // tables at once
	now  func() time.Time

	mu struct {
		sync.RWMutex
		tables map[batch.Session]*table
	}
}

func newSessions(most int, now func() time.Time) *sessions {
	s := &sessions{most: most, now: now}
	s.mu.tables = map[batch.Session]*table{}
	return s
}

// table returns a session's table. The one used longest ago makes room for a new one.
func (s *sessions) table(id batch.Session) *table {
	now := s.now().UnixNano()
	s.mu.RLock()
	t := s.mu.tables[id]
	s.mu.RUnlock()
	if t == nil {
		t = s.add(id, now)
	}
	t.used.Store(now)
	return t
}

func (s *sessions) add(id batch.Session, now int64) *table {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.mu.tables[id]; t != nil {
		return t
	}
	if len(s.mu.tables) >= s.most {
		var oldest batch.Session
		var used int64
		for id, t := range s.mu.tables {
			if u := t.used.Load(); used == 0 || u < used {
				oldest, used = id, u
			}
		}
		delete(s.mu.tables, oldest)
	}
	t := &table{}
	t.used.Store(now)
	s.mu.tables[id] = t
	return t
}

// sessionIdle is how long a session that is not used is remembered. Routers
// begin a new one at each start; an hour outlasts what breaks a connection.
const sessionIdle = time.Hour

// expire forgets tables that nobody uses.
func (s *sessions) expire() {
	before := s.now().Add(-sessionIdle).UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, t := range s.mu.tables {
		if t.used.Load() < before {
			delete(s.mu.tables, id)
		}
	}
}

// table maps a session's numbers to a head's references, 0 where it has none.
// They are dense, so it is an array, in pages that come as they are needed. Reading and
// writing take no lock.
type table struct {
	used  atomic.Int64 // ns
	pages atomic.Pointer[[]*page]
	grow  sync.Mutex
}

const (
	pageRefs = 4096
	// mostRefs bounds a number, and so what a wrong one costs: the list of pages, 2 MiB.
	mostRefs = 1 << 30
)

type page [pageRefs]atomic.Uint64

func (t *table) get(id uint64) storage.SeriesRef {
	p := t.page(id)
	if p == nil {
		return 0
	}
	return storage.SeriesRef(p[id%pageRefs].Load())
}

func (t *table) page(id uint64) *page {
	pages := t.pages.Load()
	if pages == nil || id/pageRefs >= uint64(len(*pages)) {
		return nil
	}
	return (*pages)[id/pageRefs]
}

func (t *table) set(id uint64, ref storage.SeriesRef) error {
	p := t.page(id)
	if p == nil {
		if id >= mostRefs {
			return fmt.Errorf("series number %d: at most %d are possible", id, mostRefs-1)
		}
		p = t.add(id)
	}
	p[id%pageRefs].Store(uint64(ref))
	return nil
}

// add makes the page of id. The list is copied, since others read the old one.
func (t *table) add(id uint64) *page {
	t.grow.Lock()
	defer t.grow.Unlock()
	if p := t.page(id); p != nil {
		return p
	}
	var old []*page
	if pages := t.pages.Load(); pages != nil {
		old = *pages
	}
	pages := make([]*page, max(uint64(len(old)), id/pageRefs+1))
	copy(pages, old)
	p := new(page)
	pages[id/pageRefs] = p
	t.pages.Store(&pages)
	return p
}
