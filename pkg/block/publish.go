package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	listLeaseName = "manifest-list"
	listLeaseTTL  = 5 * time.Minute

	publishTries = 5
	// maxRemovals is how many announcements one Publish removes.
	maxRemovals = 1000
)

// Publish brings the bucket's manifest up to date with what this Fetcher knows
// after its last pass: what was announced, and what its listing found. Any
// number of processes may do so; each write is conditional on the manifest that
// it was made from, and who comes too late reads that and merges again. It
// costs nothing where there is nothing new.
//
// The steps, each harmless when done twice or never:
//
//	write the manifest, which names the announcements that are in it
//	remove these, oldest first, so that those left are never older than what is gone
//	give the lease on listing up
//
// Where a manifest can't be written (no conditional writes, no right to write,
// or a newer program's manifest is there) it does nothing, and says so once, in
// the log and in firnline_block_manifest_unwritable.
func (f *Fetcher) Publish(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.publishes(ctx) {
		return nil
	}
	s := &f.mu.fetchState
	if err := f.publish(ctx, s); err != nil {
		f.metrics.publishFailures.Inc()
		return fmt.Errorf("publish bucket manifest: %w", err)
	}
	return nil
}

func (f *Fetcher) publish(ctx context.Context, s *fetchState) error {
	for range publishTries {
		if f.cannotWrite(s.manifest.newer, "the bucket's manifest was written by a newer program; this one leaves it alone") {
			return nil
		}
		next := s.draft()
		if next == nil {
			return f.cleanUp(ctx, s)
		}
		err := f.write(ctx, s, next)
		switch {
		case err == nil:
			return f.cleanUp(ctx, s)
		case f.bkt.IsAccessDeniedErr(err):
			f.pub.state = pubNever
			f.cannotWrite(true, "the bucket's manifest can't be written: "+err.Error())
			return nil
		case !f.bkt.IsConditionFailedErr(err):
			return err
		}
		// Another was faster, or this is a retry of ours whose answer was lost.
		if err := f.refresh(ctx, s); err != nil {
			return err
		}
	}
	return fmt.Errorf("others were faster %d times; it is tried again", publishTries)
}

// draft is the manifest that should be in the bucket; nil: what is there will do.
func (s *fetchState) draft() *Manifest {
	m := &s.manifest
	// Else another's listing is newer than ours, or we have made none.
	listed := !m.found.at.IsZero() && !m.found.at.Before(m.listedAt())
	s.lost.prune(s)
	if !listed && (m.base == nil || len(m.told)+len(s.lost.blocks) == 0) {
		return nil
	}
	next := newManifest()
	if m.now != nil {
		next = m.now.clone()
	}
	next.Generation++
	for id := range s.lost.blocks {
		next.apply(Change{Block: id, Removed: true})
	}
	folded := slices.Collect(maps.Keys(m.told))
	if listed {
		m.found.apply(next)
		if m.base == nil {
			next.ListedAt = onlyOnce
		}
		folded = append(folded, m.found.subsumed...)
	}
	if m.base != nil {
		folded = append(folded, m.base.Folded...)
	}
	slices.SortFunc(folded, ulid.ULID.Compare)
	// Those that have been removed by now need not be remembered any more.
	next.Folded = slices.DeleteFunc(slices.Compact(folded), func(id ulid.ULID) bool { return !has(m.there, id) })
	return next
}

// onlyOnce stands for ListedAt in a manifest that was made where there was none.
// What became visible while that listing was made nobody has announced, for want
// of a manifest, and what the listing has hidden was announced long ago. So such
// a manifest is stale from the beginning, and is so until it has been compared
// with a second listing, which begins when shippers announce already.
var onlyOnce = time.Unix(0, 0).UTC()

// apply adds what a listing found to a manifest.
func (l *found) apply(m *Manifest) {
	for id, found := range l.blocks {
		if m.record(id).same(found.before) {
			m.set(id, found.after)
		}
	}
	m.ListedAt = l.at
	m.Partial = maps.Clone(l.partial)
	for id := range m.Metas {
		delete(m.Partial, id)
	}
	maps.DeleteFunc(m.Marks, func(id ulid.ULID, _ Marks) bool {
		_, partial := m.Partial[id]
		return m.Metas[id] == nil && m.Problems[id] == nil && !partial
	})
}

// findings compares what is known after a listing with the manifest.
func (s *fetchState) findings(l listing, at time.Time) found {
	if at.IsZero() {
		return found{}
	}
	out := found{at: at, blocks: map[ulid.ULID]finding{}, partial: maps.Clone(s.known.Partial), subsumed: s.manifest.unread}
	for id := range union(s.known, s.manifest.now) {
		f := finding{s.manifest.now.record(id), s.known.record(id)}
		doubted := f.after.meta != nil && !l.shows(id) // the manifest may be right about it
		if !doubted && !f.before.same(f.after) {
			out.blocks[id] = f
		}
	}
	return out
}

// write puts next into the bucket in place of what it was made from.
func (f *Fetcher) write(ctx context.Context, s *fetchState, next *Manifest) error {
	data, err := encodeManifest(next)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	// What can't be read must not be written; and what was read takes less memory.
	if next, err = decodeManifest(data); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if err := f.step("manifest/before-write"); err != nil {
		return err
	}
	m := &s.manifest
	etag, err := f.bkt.PutIf(ctx, manifestName, data, m.etag)
	if err != nil {
		return fmt.Errorf("write %s: %w", manifestName, err)
	}
	f.metrics.publishes.Inc()
	f.metrics.folded.Add(float64(len(m.told)))
	m.replace(next, etag, f.now())
	m.sift(m.there)
	m.found = found{}
	m.rebuild()
	s.adopt(false)
	return f.step("manifest/after-write")
}

// cleanUp removes announcements that are in the manifest and lets others list.
func (f *Fetcher) cleanUp(ctx context.Context, s *fetchState) error {
	m := &s.manifest
	if m.base == nil {
		return nil
	}
	folded := slices.DeleteFunc(slices.Clone(m.there), func(id ulid.ULID) bool { return !has(m.base.Folded, id) })
	if err := f.removeAnnouncements(ctx, folded[:min(len(folded), maxRemovals)]); err != nil {
		return err
	}
	if f.pub.lease != nil {
		return f.pub.lease.Release(ctx)
	}
	return nil
}

func (f *Fetcher) removeAnnouncements(ctx context.Context, ids []ulid.ULID) error {
	for _, id := range ids {
		name := announcePrefix + id.String()
		if err := f.bkt.Delete(ctx, name); err != nil && !f.bkt.IsObjNotFoundErr(err) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		if err := f.step("manifest/after-remove"); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fetcher) step(name string) error {
	if f.fault == nil {
		return nil
	}
	return f.fault(name)
}

// publishing is what a Fetcher needs to write manifests.
type publishing struct {
	state pubState
	why   string // the last reason against it that was logged
	lease *Lease // on listing; nil before the first
}

type pubState int

const (
	pubUnknown pubState = iota // not tried yet
	pubAlways
	pubNever
)

// publishes tells whether this Fetcher writes manifests.
func (f *Fetcher) publishes(ctx context.Context) bool {
	if f.cfg.Owner == "" || f.pub.state != pubUnknown {
		return f.pub.state == pubAlways
	}
	ok, err := HonoursConditions(ctx, f.bkt, f.cfg.Owner)
	switch {
	case err != nil && f.bkt.IsAccessDeniedErr(err):
		f.pub.state = pubNever
		f.cannotWrite(true, "the bucket is read-only: "+err.Error())
	case err != nil:
		f.log.Warn("bucket manifest is not written for now", "err", err)
	case !ok:
		f.pub.state = pubNever
		f.cannotWrite(true, "the bucket does not honour conditional writes")
	default:
		f.pub.state = pubAlways
	}
	return f.pub.state == pubAlways
}

// cannotWrite says once why no manifest is written.
func (f *Fetcher) cannotWrite(is bool, why string) bool {
	f.metrics.unwritable.Set(oneIf(is))
	if is && f.pub.why != why {
		f.log.Warn("no bucket manifest is written; blocks are found by listing the bucket, which is slower", "reason", why)
		f.pub.why = why
	}
	return is
}

func (f *Fetcher) listLease() *Lease {
	if f.pub.lease == nil {
		f.pub.lease = NewLease(f.bkt, LeaseConfig{Name: listLeaseName, Owner: f.cfg.Owner, For: "listing the bucket for its manifest", TTL: min(listLeaseTTL, time.Duration(f.cfg.ListInterval)), Now: f.now})
	}
	return f.pub.lease
}

// listingTime is when a listing begins, by the bucket's clock; zero where nothing
// will come of knowing it.
func (f *Fetcher) listingTime(ctx context.Context) time.Time {
	if !f.publishes(ctx) {
		return time.Time{}
	}
	at, err := BucketTime(ctx, f.bkt, f.cfg.Owner)
	if err != nil && !errors.Is(err, context.Canceled) {
		f.log.Warn("listing is not put into the bucket's manifest", "err", err)
		return time.Time{}
	}
	return at
}
