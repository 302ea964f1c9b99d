package store

import (
	"context"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// noteRequest is what requests that are answered from notes have in common.
type noteRequest struct {
	*Store
	partial    bool
	bytes      *fetch.Budget
	mint, maxt int64 // ms, inclusive
	warnings   []string
}

// maxNoteWarnings bounds what an answer says of notes that can't be read.
const maxNoteWarnings = 10

// fail makes a warning of what could not be read, where that is allowed. Calls
// must not overlap.
func (r *noteRequest) fail(err error) error {
	r.noteFailure(err)
	if !r.partial || !canWarn(err) {
		return err
	}
	if len(r.warnings) < maxNoteWarnings {
		r.warnings = append(r.warnings, err.Error())
	}
	return nil
}

// sources returns the blocks of level 1 that have notes, of which the group's
// blocks in time are made, each once.
func (r *noteRequest) sources(ctx context.Context, g group) ([]ulid.ULID, error) {
	listed, err := r.notes.Listed(ctx)
	if err != nil {
		return nil, r.fail(fmt.Errorf("exemplars and metadata of %s: %w", g.labels, err))
	}
	if len(listed) == 0 {
		return nil, nil
	}
	var out []ulid.ULID
	seen := map[ulid.ULID]bool{}
	for _, l := range g.blocks {
		if !l.meta.Overlaps(r.mint, r.maxt) {
			continue
		}
		origins, err := l.meta.Origins()
		if err != nil {
			if err := r.fail(fmt.Errorf("%w: %w", storeapi.ErrCorrupt, err)); err != nil {
				return nil, err
			}
			continue
		}
		for _, id := range origins {
			if _, there := listed[id]; there && !seen[id] {
				seen[id] = true
				out = append(out, id)
			}
		}
	}
	return out, nil
}
