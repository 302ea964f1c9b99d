package tools

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

// Export writes the raw samples of a bucket's blocks as text, downloading those
// of one set of external labels at a time.
type Export struct {
	Bucket block.Bucket
	Dump   Dump
	Dir    string                           // where blocks are put while they are read
	Told   func(done, all int, bytes int64) // after each download, where not nil
}

// Blocks exports the raw blocks of a view that aren't marked for deletion nor
// covered by others.
func (e *Export) Blocks(ctx context.Context, w io.Writer, v block.View) (out Dumped, err error) {
	groups, n := e.groups(v)
	t := newTally(n, e.Told)
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		got, err := e.group(ctx, w, groups[key], t)
		out.Series, out.Samples, out.Histograms = out.Series+got.Series, out.Samples+got.Samples, out.Histograms+got.Histograms
		if err != nil {
			return out, err
		}
	}
	return out, e.Dump.End(w)
}

// groups are the blocks to read, by group.
func (e *Export) groups(v block.View) (map[string][]*block.Meta, int) {
	live := maps.Clone(v.Metas)
	maps.DeleteFunc(live, func(_ ulid.ULID, m *block.Meta) bool {
		_, ok := block.MatchExternal(m.Labels(), e.Dump.Matchers)
		return !ok || v.Marks[m.ULID].Deletion != nil || m.Resolution() != block.ResolutionRaw || !m.Overlaps(e.Dump.MinTime, e.Dump.MaxTime)
	})
	for _, id := range block.Duplicates(live) {
		delete(live, id)
	}
	groups := map[string][]*block.Meta{}
	for _, m := range live {
		key := m.Labels().String()
		groups[key] = append(groups[key], m)
	}
	return groups, len(live)
}

func (e *Export) group(ctx context.Context, w io.Writer, metas []*block.Meta, t *tally) (Dumped, error) {
	dir, err := os.MkdirTemp(e.Dir, "export-")
	if err != nil {
		return Dumped{}, err
	}
	defer os.RemoveAll(dir)
	var dirs []string
	for _, m := range metas {
		local, err := Download(ctx, e.Bucket, m, dir)
		if err != nil {
			return Dumped{}, err
		}
		dirs = append(dirs, local)
		t.add(m.SizeBytes())
	}
	out, err := e.Dump.Blocks(ctx, w, dirs)
	if err != nil {
		return out, fmt.Errorf("export: %w", err)
	}
	return out, nil
}
