package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// manifestState is what a Fetcher knows of the bucket's manifest, of what was
// announced since, and of what its own listing has found beyond both.
type manifestState struct {
	base  *Manifest // as it lies in the bucket; nil: none that can be used
	etag  string    // of the object, whether it can be used or not
	newer bool      // it was written by a newer program
	shown string    // the last error about it that was logged

	rewritten bool                   // base is newer than there
	there     []ulid.ULID            // announcements that lie in the bucket, oldest first
	told      map[ulid.ULID][]Change // those that aren't in base, as far as they were read
	unread    []ulid.ULID            // and those that weren't
	blind     bool                   // some of these can't be read at all by this program, or are too many
	now       *Manifest              // base and what was told since; nil where base is
	gone      map[ulid.ULID]struct{} // blocks whose removal was told; now may have them again
	seen      *Manifest              // the last now that adopt has looked at
	found     found

	// When base was last compared with a listing is in it, by the bucket's clock.
	// These tell by ours when that was last seen to change, if it was.
	last    time.Time // its ListedAt
	lastAt  time.Time
	changed bool
}

// found is what a listing has found that the manifest doesn't say.
type found struct {
	at       time.Time // when the listing began, by the bucket's clock; zero: it isn't to be published
	blocks   map[ulid.ULID]finding
	partial  map[ulid.ULID]time.Time
	subsumed []ulid.ULID // announcements from before, which it makes superfluous
}

// finding is what is known of a block after a listing, and what the manifest
// said then: if it says something else by now, that is newer.
type finding struct{ before, after record }

// maxAnnouncements is how many announcements a pass reads. Where there are more
// nobody folds them, and a listing is cheaper.
const maxAnnouncements = 10_000

// refresh reads the manifest, if it was written anew, and what was announced
// since. After an error the manifest is as it was before.
func (f *Fetcher) refresh(ctx context.Context, s *fetchState) error {
	m := &s.manifest
	if err := f.readBase(ctx, m); err != nil {
		return err
	}
	if m.base == nil && f.cfg.Owner == "" {
		return nil // a listing shows what was announced
	}
	// After the manifest: what was folded into a later one than ours and removed
	// since is missing for one pass, and nothing is taken for new that isn't.
	there, err := announcements(ctx, f.bkt)
	if err == nil {
		m.sift(there)
	}
	if m.base == nil {
		return err
	}
	if err == nil {
		err = f.readAnnouncements(ctx, m)
	}
	m.rebuild()
	return err
}

// readBase reads the manifest itself. One that can't be used is no error.
func (f *Fetcher) readBase(ctx context.Context, m *manifestState) error {
	etag := m.etag
	if m.base == nil {
		etag = "" // it may have been broken on its way
	}
	base, etag, err := readManifest(ctx, f.bkt, etag)
	switch {
	case err == nil && base == nil:
		return nil
	case err == nil:
		m.replace(base, etag, f.now())
		return nil
	case errors.Is(err, ErrNoManifest), errors.Is(err, ErrCorrupt), errors.Is(err, ErrUnknownVersion), f.bkt.IsAccessDeniedErr(err):
		m.lose(etag)
		m.newer = errors.Is(err, ErrUnknownVersion)
		if !errors.Is(err, ErrNoManifest) && m.shown != err.Error() {
			m.shown = err.Error()
			f.log.Warn("bucket manifest can't be used; the bucket is listed", "err", err)
		}
		return nil
	}
	return err
}

// replace takes another base.
func (m *manifestState) replace(base *Manifest, etag string, now time.Time) {
	if !base.ListedAt.Equal(m.last) || m.lastAt.IsZero() {
		m.changed = !m.lastAt.IsZero()
		m.last, m.lastAt = base.ListedAt, now
	}
	m.base, m.etag, m.newer, m.shown = base, etag, false, ""
	m.now, m.rewritten = nil, true // until rebuild and sift
	for _, id := range base.Folded {
		delete(m.told, id)
	}
}

// lose is replace by none.
func (m *manifestState) lose(etag string) {
	m.base, m.etag, m.newer = nil, etag, false
	m.told, m.now, m.gone = nil, nil, nil
}

func (m *manifestState) listedAt() time.Time {
	if m.base == nil {
		return time.Time{}
	}
	return m.base.ListedAt
}

// age is how long ago base was compared with a listing, so that a clock that is
// wrong makes it at most too old: once another compactor is seen at work, only
// our own clock counts.
func (m *manifestState) age(now time.Time) time.Duration {
	seen := now.Sub(m.lastAt)
	if m.changed && !m.last.Equal(onlyOnce) {
		return seen
	}
	return max(seen, now.Sub(m.last))
}

// staleFactor times the interval after its last listing a manifest is stale:
// nobody keeps it, or whoever does is behind.
const staleFactor = 2

// stale tells whether the manifest says too little about the bucket as it is.
func (f *Fetcher) stale(s *fetchState) bool {
	return s.manifest.base == nil || s.manifest.age(f.now()) > staleFactor*time.Duration(f.cfg.ListInterval)
}

// announcements lists what lies under firnline/manifest.d/, the oldest first.
func announcements(ctx context.Context, bkt Bucket) ([]ulid.ULID, error) {
	var out []ulid.ULID
	err := bkt.ListSizes(ctx, announcePrefix, func(o Object) error {
		if id, ok := ParseID(strings.TrimPrefix(o.Name, announcePrefix)); ok {
			out = append(out, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list announcements: %w", err)
	}
	slices.SortFunc(out, ulid.ULID.Compare)
	return out, nil
}

// sift tells what of the announcements in the bucket is new. One that has gone
// is forgotten only when the manifest was written anew: it is in there now.
func (m *manifestState) sift(there []ulid.ULID) {
	if m.rewritten {
		maps.DeleteFunc(m.told, func(id ulid.ULID, _ []Change) bool { return !has(there, id) })
		m.rewritten = false
	}
	m.there, m.unread = there, nil
	for _, id := range there {
		if _, told := m.told[id]; !told && (m.base == nil || !has(m.base.Folded, id)) {
			m.unread = append(m.unread, id)
		}
	}
}

func has(sorted []ulid.ULID, id ulid.ULID) bool {
	_, ok := slices.BinarySearchFunc(sorted, id, ulid.ULID.Compare)
	return ok
}

// readAnnouncements reads the oldest that are new. What can't be read stays in
// unread; what is corrupt counts as read and says nothing.
func (f *Fetcher) readAnnouncements(ctx context.Context, m *manifestState) error {
	ids := m.unread[:min(len(m.unread), max(0, maxAnnouncements-len(m.told)))]
	m.unread = m.unread[len(ids):]
	m.blind = len(m.unread) > 0
	results := make([][]Change, len(ids))
	errs := make([]error, len(ids))
	var g errgroup.Group
	g.SetLimit(max(f.cfg.Concurrency, 1))
	for i, id := range ids {
		g.Go(func() error {
			results[i], errs[i] = f.readAnnouncement(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	if m.told == nil {
		m.told = map[ulid.ULID][]Change{}
	}
	for i, id := range ids {
		switch {
		case errs[i] == nil:
			m.told[id] = results[i]
			m.now = nil
		case f.bkt.IsObjNotFoundErr(errs[i]):
			errs[i] = nil // folded and removed since: the next pass sees the manifest it is in
		case errors.Is(errs[i], ErrUnknownVersion):
			f.log.Debug("announcement can't be read; the bucket is listed", "err", errs[i])
			errs[i] = nil
			m.unread = append(m.unread, id)
			m.blind = true
		default:
			m.unread = append(m.unread, id)
		}
	}
	return FirstError(errs)
}

// readAnnouncement reads one. What is corrupt is read again, since it may have
// been the way: who folds it removes it for all.
func (f *Fetcher) readAnnouncement(ctx context.Context, id ulid.ULID) (changes []Change, err error) {
	name := announcePrefix + id.String()
	for range 2 {
		data, readErr := GetAll(ctx, f.bkt, name, maxMetaBytes)
		if readErr != nil {
			return nil, fmt.Errorf("read %s: %w", name, readErr)
		}
		f.metrics.announcements.Inc()
		if changes, err = decodeChanges(data); err == nil {
			return changes, nil
		}
		if err = fmt.Errorf("%s of %d bytes: %w", name, len(data), err); !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
	}
	f.log.Warn("announcement can't be used; the next listing tells what it was about", "err", err)
	return nil, nil
}

// rebuild makes now of base and what was told since, oldest first.
func (m *manifestState) rebuild() {
	if m.now != nil {
		return
	}
	m.now, m.gone = m.base, map[ulid.ULID]struct{}{}
	if len(m.told) > 0 {
		m.now = m.base.clone()
	}
	for _, id := range sortedIDs(m.told) {
		for _, c := range m.told[id] {
			m.now.apply(c)
			if c.Removed {
				m.gone[c.Block] = struct{}{}
			}
		}
	}
}

// mustList tells whether to make a pass by a listing.
//
// Who only reads does so while the manifest is of no use. Of those who publish,
// one does so whenever it is due, by a lease, and the others rely on its result.
func (f *Fetcher) mustList(ctx context.Context, s *fetchState) bool {
	m := &s.manifest
	switch {
	case m.base == nil:
		return true
	case f.cfg.Owner == "":
		return f.stale(s) || m.blind
	case len(m.unread) == 0 && m.age(f.now()) < time.Duration(f.cfg.ListInterval):
		return false
	case !f.publishes(ctx):
		return true
	}
	err := f.listLease().Acquire(ctx)
	if held := (*HeldError)(nil); errors.As(err, &held) {
		return false
	}
	if err != nil {
		f.log.Warn("lease on listing the bucket can't be had; it is listed all the same", "err", err)
	}
	return true
}

// adopt takes over what the manifest says now and didn't say before. A block
// that it has lost stays, for judge. Before a listing, blocks that the manifest
// alone knows count as missing once before: if the listing lacks them too, they
// are looked for at once.
func (s *fetchState) adopt(listing bool) {
	now, old := s.manifest.now, s.manifest.seen
	if now == nil || now == old {
		return
	}
	for id := range union(now, old) {
		before, after, known := old.record(id), now.record(id), s.known.record(id)
		switch {
		case after.meta == nil && after.problem == nil && known.meta != nil:
			if !after.marks.same(before.marks) && after.marks != (Marks{}) {
				known.marks = after.marks
				s.known.set(id, known)
			}
		case !after.same(before):
			s.known.set(id, after)
			if listing && known.meta == nil {
				s.missing[id] = sighting{}
			}
		case known.meta != nil && known.versions.meta == after.versions.meta:
			s.known.Metas[id] = after.meta // the same, and shares its strings with others
		}
	}
	if old == nil || !old.ListedAt.Equal(now.ListedAt) {
		s.known.Partial = maps.Clone(now.Partial)
	}
	s.manifest.seen = now
}

// union ranges over the blocks of two manifests, some of them twice.
func union(a, b *Manifest) func(func(ulid.ULID) bool) {
	return func(yield func(ulid.ULID) bool) {
		for _, m := range []*Manifest{a, b} {
			if m != nil && !(each(m.Metas, yield) && each(m.Problems, yield) && each(m.Marks, yield)) {
				return
			}
		}
	}
}

func each[V any](m map[ulid.ULID]V, yield func(ulid.ULID) bool) bool {
	for id := range m {
		if !yield(id) {
			return false
		}
	}
	return true
}

// follow gives up blocks that the manifest has lost, as settle does for a
// listing. It isn't sound where too many are lost at once.
func (f *Fetcher) follow(ctx context.Context, s *fetchState) (sound bool, err error) {
	m := &s.manifest
	var gone []ulid.ULID
	for id := range m.gone {
		if _, partial := s.known.Partial[id]; !m.now.shows(id) && (partial || s.known.Metas[id] != nil) {
			gone = append(gone, id)
		}
	}
	f.drop(s, gone)
	err = f.settle(ctx, s, m.now)
	return !errors.Is(err, ErrListing), err
}
