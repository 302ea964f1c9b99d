package store

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block/notes"
	"github.com/firnline/firnline/pkg/storeapi"
)

// metadata is what the notes on blocks say about metrics, as far as requests
// have had them read: the same words stand in thousands of notes and are kept once.
type metadata struct {
	most   int                       // meanings
	turn   chan struct{}             // has room for one: who reads notes does so for all
	groups map[string]*groupMetadata // of who has the turn
}

func newMetadata(most int) *metadata { return &metadata{most: most, turn: make(chan struct{}, 1)} }

// groupMetadata is that of the blocks of the same external labels.
type groupMetadata struct {
	read     map[ulid.ULID]bool
	byName   map[string][]storeapi.Metadata
	meanings int
	full     bool // some was left out
}

func newGroupMetadata() *groupMetadata {
	return &groupMetadata{read: map[ulid.ULID]bool{}, byName: map[string][]storeapi.Metadata{}}
}

// Metadata implements storeapi.MetadataSource, from one note of each day: a
// note has all that was said within a day before it. Metrics are kept by name
// where a limit cuts.
func (s *Store) Metadata(ctx context.Context, metric string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	v := s.view.Load()
	if v == nil {
		return nil, nil, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, s.Ready())
	}
	sel := storeapi.Selection{Mint: math.MinInt64, Maxt: math.MaxInt64}
	if !s.clamp(&sel) {
		return map[string][]storeapi.Metadata{}, nil, nil
	}
	m := s.metadata
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("%w: another request reads metadata: %w", storeapi.ErrUnavailable, ctx.Err())
	}
	r := &noteRequest{Store: s, partial: partial, bytes: s.limits().Bytes, mint: sel.Mint, maxt: sel.Maxt}
	all := map[string][]storeapi.Metadata{}
	groups := map[string]*groupMetadata{}
	for _, g := range v.groups {
		known := m.groups[g.labels.String()]
		known, err := m.update(ctx, r, g, known)
		if err != nil {
			return nil, nil, err
		}
		groups[g.labels.String()] = known
		known.addTo(all, metric)
	}
	m.groups = groups // without those that are gone
	return first(all, limit), r.warnings, nil
}

// update reads the notes of a group that are missing from what is known.
func (m *metadata) update(ctx context.Context, r *noteRequest, g group, known *groupMetadata) (*groupMetadata, error) {
	sources, err := r.sources(ctx, g)
	if err != nil {
		return nil, err
	}
	wanted := lastOfDays(sources)
	if known == nil || known.stale(wanted) {
		known = newGroupMetadata()
	}
	missing := slices.DeleteFunc(wanted, func(id ulid.ULID) bool { return known.read[id] })
	err = r.notes.Each(ctx, missing, r.bytes, func(id ulid.ULID, n *notes.Note) error {
		known.add(n, m.most)
		known.read[id] = true
		return nil
	}, r.fail)
	if err != nil {
		return nil, err
	}
	if known.full {
		return known, r.fail(fmt.Errorf("metadata of %s: more than --%s=%d", g.labels, flagMaxMetadata, m.most))
	}
	return known, nil
}

// lastOfDays returns the last of the blocks that were cut on each day.
func lastOfDays(ids []ulid.ULID) []ulid.ULID {
	last := map[uint64]ulid.ULID{}
	for _, id := range ids {
		day := id.Time() / uint64(24*time.Hour/time.Millisecond)
		if old, ok := last[day]; !ok || id.Compare(old) > 0 {
			last[day] = id
		}
	}
	return slices.SortedFunc(maps.Values(last), ulid.ULID.Compare)
}

// stale tells that most of what was read is of blocks that are not wanted any
// more: the last of each day that is gone, and all but the last of today.
func (k *groupMetadata) stale(wanted []ulid.ULID) bool {
	const some = 16 // so that today's do not count for much
	return len(k.read) > 2*len(wanted)+some
}

func (k *groupMetadata) add(n *notes.Note, most int) {
	for _, f := range n.Families {
		one := storeapi.Metadata{Type: f.Type, Help: f.Help, Unit: f.Unit}
		if slices.Contains(k.byName[f.Name], one) {
			continue
		}
		if k.meanings >= most {
			k.full = true
			continue
		}
		k.meanings++
		k.byName[f.Name] = append(k.byName[f.Name], one)
	}
}

// addTo adds what is known of one metric, or of all.
func (k *groupMetadata) addTo(all map[string][]storeapi.Metadata, metric string) {
	for name, list := range k.byName {
		if metric != "" && name != metric {
			continue
		}
		for _, one := range list {
			if !slices.Contains(all[name], one) {
				all[name] = append(all[name], one)
			}
		}
	}
}

// first keeps so many metrics, by name; below 0: all.
func first(all map[string][]storeapi.Metadata, limit int) map[string][]storeapi.Metadata {
	if limit >= 0 && len(all) > limit {
		for _, name := range slices.Sorted(maps.Keys(all))[limit:] {
			delete(all, name)
		}
	}
	return all
}
