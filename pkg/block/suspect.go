package block

import (
	"context"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

// Suspect tells that the bucket lacked an object of these blocks when it was
// asked for by name. The next pass asks for their meta.json, once each: a block
// without one is gone for certain and given up at once, whatever the manifest or
// a listing say. It may be called at any time, and asks the bucket nothing.
func (f *Fetcher) Suspect(ids ...ulid.ULID) {
	f.suspects.Lock()
	defer f.suspects.Unlock()
	if f.suspects.ids == nil {
		f.suspects.ids = map[ulid.ULID]struct{}{}
	}
	for _, id := range ids {
		f.suspects.ids[id] = struct{}{}
	}
}

// suspected takes the suspects out and returns those that are known.
func (f *Fetcher) suspected(known *Manifest) (ids []ulid.ULID) {
	f.suspects.Lock()
	defer f.suspects.Unlock()
	for id := range f.suspects.ids {
		if known.Metas[id] != nil {
			ids = append(ids, id)
		}
	}
	clear(f.suspects.ids)
	return ids
}

// confirm gives up the suspects that are gone. The pass before it has shown that
// the bucket answers, if not that its listing can be believed. Where they are more
// than one, and more than may vanish at once, they are kept and looked for again
// when GoneDelay is over. With them counts what was given up while the manifest
// lists it, and what a doubted listing lacks: else an empty bucket would be
// forgotten bit by bit.
func (f *Fetcher) confirm(ctx context.Context, s *fetchState, doubted bool) error {
	if err := f.seek(ctx, s); err != nil {
		return err
	}
	ids := f.suspected(s.known)
	gone, err := f.probe(ctx, ids)
	if err != nil {
		f.Suspect(ids...)
	}
	before := len(s.lost.blocks) // given up by passes before
	most := max(1, (len(s.known.Metas)+before)/shareOfFault)
	if len(gone) > 0 && (before+len(gone) > most || doubted && len(s.missing) > most) {
		for _, id := range gone {
			if !s.missing[id].firsthand {
				s.missing[id] = sighting{since: f.now(), firsthand: true}
			}
		}
		f.metrics.faults.Inc()
		return fmt.Errorf("%w: meta.json of %d blocks of %d is not there when asked for by name; they are kept until it is missing again in %s",
			ErrListing, len(gone), len(s.known.Metas), f.cfg.GoneDelay)
	}
	for _, id := range gone {
		f.noteGone(s, id)
	}
	f.drop(s, gone)
	return err
}

// noteGone says of a block that is given up that nothing explains it, if so.
func (f *Fetcher) noteGone(s *fetchState, id ulid.ULID) {
	if s.known.Marks[id].Deletion != nil {
		return
	}
	f.metrics.gone.Inc()
	f.log.Warn("block is gone from the bucket, and neither a mark nor an announcement says why; it is given up", "block", id)
}

// lost are blocks that are given up while the manifest still lists them.
type lost struct {
	blocks map[ulid.ULID]record // as the manifest lists them
	at     time.Time            // ListedAt of the manifest when they were last looked for
}

// prune forgets those that are known again, and those of which the manifest says
// something else by now.
func (l *lost) prune(s *fetchState) {
	for id, listed := range l.blocks {
		if s.known.Metas[id] != nil || !s.manifest.now.record(id).same(listed) {
			delete(l.blocks, id)
		}
	}
}

// seek looks for lost blocks once after each comparison of the manifest with a
// listing: one that it still lists may have been brought back.
func (f *Fetcher) seek(ctx context.Context, s *fetchState) error {
	l := &s.lost
	l.prune(s)
	if l.at.Equal(s.manifest.listedAt()) {
		return nil
	}
	absent := map[ulid.ULID]bool{}
	ids := sortedIDs(l.blocks)
	gone, err := f.probe(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range gone {
		absent[id] = true
	}
	for _, id := range ids {
		if !absent[id] {
			s.known.set(id, l.blocks[id])
			delete(l.blocks, id)
		}
	}
	l.at = s.manifest.listedAt()
	return nil
}
