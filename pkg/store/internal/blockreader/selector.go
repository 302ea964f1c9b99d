package blockreader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// selector turns entries into labels, and leaves out what is not of the shard,
// or hidden, before any chunk is read.
type selector struct {
	symbols  *symbolTable
	extender *storeapi.Extender
	query    *Query
	extend   bool // the result has external labels
	buf      []byte
	last     labels.Labels // of the last entry, to see that the index is sorted
	any      bool
}

func newSelector(b *Block, q *Query, extend bool) *selector {
	return &selector{
		symbols: newSymbolTable(b), extender: storeapi.NewExtender(q.External, q.Without),
		query: q, extend: extend,
	}
}

// choose returns the series of the entries that are wanted.
func (s *selector) choose(ctx context.Context, entries []entry) ([]selected, error) {
	var ids []uint32
	for i := range entries {
		for _, l := range entries[i].Labels {
			ids = append(ids, l.Name, l.Value)
		}
	}
	if err := s.symbols.load(ctx, ids); err != nil {
		return nil, err
	}
	out := make([]selected, 0, len(entries))
	for i := range entries {
		lset := s.symbols.labels(&entries[i])
		if s.any && labels.Compare(s.last, lset) >= 0 {
			return nil, corrupt(s.symbols.block.files.Index.Name, 0, "series %s follows %s", lset, s.last)
		}
		s.last, s.any = lset, true
		chosen := selected{labels: lset, chunks: entries[i].Chunks}
		if s.query.Hidden != nil && !chosen.hide(s.query, s.query.Hidden(lset)) {
			continue
		}
		if s.extend || s.query.Shard != nil {
			extended := s.extender.Extend(lset)
			var mine bool
			if mine, s.buf = s.query.Shard.Matches(extended, s.buf); !mine {
				continue
			}
			if s.extend {
				chosen.replica, chosen.labels = s.extender.Replica(lset), extended
			}
		}
		out = append(out, chosen)
	}
	return out, nil
}

// mergeEqual sorts series and makes one of those with the same labels.
func mergeEqual(all []selected) []selected {
	slices.SortStableFunc(all, func(a, b selected) int { return labels.Compare(a.labels, b.labels) })
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && labels.Equal(out[n-1].labels, s.labels) {
			if out[n-1].cuts != nil || s.cuts != nil {
				out[n-1].cuts = slices.Concat(out[n-1].allCuts(), s.allCuts())
			}
			out[n-1].chunks = slices.Concat(out[n-1].chunks, s.chunks)
			if out[n-1].replica != s.replica {
				out[n-1].replica = 0 // told from the chunks, then
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

func compareChunks(a, b storeapi.Chunk) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
}

// LabelNames returns the label names of the series that match, unsorted.
// External labels are not among them.
func (b *Block) LabelNames(ctx context.Context, q Query, w *Work) ([]string, error) {
	ids := map[uint32]struct{}{}
	err := b.scan(ctx, &q, w, func(entries []entry) error {
		for _, e := range entries {
			for _, l := range e.Labels {
				ids[l.Name] = struct{}{}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b.lookUp(ctx, ids)
}

// LabelValues returns the values of a label name of the series that match, unsorted.
func (b *Block) LabelValues(ctx context.Context, name string, q Query, w *Work) ([]string, error) {
	set, err := labels.NewMatcher(labels.MatchNotEqual, name, "")
	if err != nil {
		return nil, fmt.Errorf("match label %q: %w", name, err)
	}
	q.Matchers = append(slices.Clone(q.Matchers), set)
	ids := map[uint32]struct{}{}
	names := map[uint32]bool{} // which numbers stand for name
	err = b.scan(ctx, &q, w, func(entries []entry) error {
		unknown := map[uint32]struct{}{}
		for _, e := range entries {
			for _, l := range e.Labels {
				if _, ok := names[l.Name]; !ok {
					unknown[l.Name] = struct{}{}
				}
			}
		}
		if err := b.symbols(ctx, unknown, func(id uint32, s string) { names[id] = s == name }); err != nil {
			return err
		}
		for _, e := range entries {
			for _, l := range e.Labels {
				if names[l.Name] {
					ids[l.Value] = struct{}{}
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b.lookUp(ctx, ids)
}

// errFound ends a scan that needs to see no more.
var errFound = errors.New("found")

// Matches tells whether any series matches. It reads no further than it must.
func (b *Block) Matches(ctx context.Context, q Query, w *Work) (bool, error) {
	err := b.scan(ctx, &q, w, func(entries []entry) error {
		if len(entries) > 0 {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

func (b *Block) symbols(ctx context.Context, ids map[uint32]struct{}, f func(uint32, string)) error {
	sorted := make([]uint32, 0, len(ids))
	for id := range ids {
		sorted = append(sorted, id)
	}
	slices.Sort(sorted)
	return b.header.Symbols(ctx, sorted, f)
}

func (b *Block) lookUp(ctx context.Context, ids map[uint32]struct{}) ([]string, error) {
	found := make(map[uint32]string, len(ids))
	if err := b.symbols(ctx, ids, func(id uint32, s string) { found[id] = s }); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(found))
	for _, s := range found {
		out = append(out, s)
	}
	return out, nil
}
