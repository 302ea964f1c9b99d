package store

import (
	"context"
	"maps"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

// coverRounds bounds how often a look turns to what a block replaced because
// that block can't be read: from 14 days back to 2 days, 8 hours, 2 hours.
const coverRounds = 4

// loadNeeded loads the blocks that queries are to be answered from, and returns
// them: those that no other block covers, or none that can be read. So a
// compacted block that is broken hides nothing while what it was made from is
// still there.
func (s *Store) loadNeeded(ctx context.Context, metas map[ulid.ULID]*block.Meta) map[ulid.ULID]*block.Meta {
	broken := map[ulid.ULID]bool{}
	var out map[ulid.ULID]*block.Meta
	for range coverRounds {
		out = needed(metas, broken)
		s.load(ctx, out, broken)
		found := len(broken)
		for id := range out {
			if l := s.blocks[id]; l != nil && l.broken() != nil {
				broken[id] = true
			}
		}
		if len(broken) == found {
			break
		}
	}
	s.noteBroken(metas)
	return out
}

// needed leaves out the blocks that another one covers that isn't broken, and
// the broken ones whose sources the others have, which nobody will miss.
func needed(metas map[ulid.ULID]*block.Meta, broken map[ulid.ULID]bool) map[ulid.ULID]*block.Meta {
	out := maps.Clone(metas)
	maps.DeleteFunc(out, func(id ulid.ULID, _ *block.Meta) bool { return broken[id] })
	for _, id := range block.Duplicates(out) {
		delete(out, id)
	}
	if len(broken) == 0 {
		return out
	}
	have := map[string]map[ulid.ULID]bool{} // by group: the sources in out
	for _, m := range out {
		key := m.GroupKey()
		if have[key] == nil {
			have[key] = map[ulid.ULID]bool{}
		}
		for _, source := range m.Sources() {
			have[key][source] = true
		}
	}
	for id := range broken {
		for _, source := range metas[id].Sources() {
			if !have[metas[id].GroupKey()][source] {
				out[id] = metas[id]
			}
		}
	}
	return out
}
