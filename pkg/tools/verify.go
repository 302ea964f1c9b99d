package tools

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
)

// Severities of findings.
const (
	SeverityError   = "error"   // data can't be read, or is not what meta.json says
	SeverityWarning = "warning" // it can, and somebody should know
)

// Finding is something that is not as it should be.
type Finding struct {
	Severity string    `json:"severity"`
	Kind     string    `json:"kind"` // broken, index, meta, partial, overlap, gap or duplicate
	Block    ulid.ULID `json:"block"`
	Group    string    `json:"group,omitempty"` // external labels and resolution
	Details  string    `json:"details"`
}

// Verification is how blocks are looked at.
type Verification struct {
	Bucket      block.Bucket
	Full        bool   // read every byte; else sizes, index and some chunks
	Dir         string // with Full: a folder in which a block at a time is put
	Concurrency int    // blocks at once
	Gap         time.Duration
	Done        func(done, all int, bytes int64) // told after each block, where not nil
}

// Blocks verifies the blocks of a view that aren't marked for deletion, and looks
// at what they are to one another. A block that can't be read is a finding and
// stops no other; the error is ctx's.
func (v *Verification) Blocks(ctx context.Context, view block.View) ([]Finding, error) {
	live := view.Sorted()
	live = slices.DeleteFunc(live, func(m *block.Meta) bool { return view.Marks[m.ULID].Deletion != nil })
	found := unusable(view)
	results := make([]*Finding, len(live))
	progress := newTally(len(live), v.Done)
	var g errgroup.Group
	g.SetLimit(max(v.Concurrency, 1))
	for i, m := range live {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := v.one(ctx, m); err != nil {
				results[i] = finding(m, err)
			}
			progress.add(m.SizeBytes())
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, f := range results {
		if f != nil {
			found = append(found, *f)
		}
	}
	return append(found, relations(live, v.Gap)...), nil
}

// unusable are findings that looking at the bucket has brought.
func unusable(view block.View) []Finding {
	var out []Finding
	for _, id := range slices.SortedFunc(maps.Keys(view.Problems), ulid.ULID.Compare) {
		out = append(out, Finding{SeverityError, "broken", id, "", view.Problems[id].Error()})
	}
	for _, id := range slices.SortedFunc(maps.Keys(view.Partial), ulid.ULID.Compare) {
		out = append(out, Finding{SeverityWarning, "partial", id, "", "no meta.json; newest object of " + view.Partial[id].UTC().Format(time.RFC3339)})
	}
	return out
}

func finding(m *block.Meta, err error) *Finding {
	f := &Finding{SeverityError, "index", m.ULID, groupName(m), err.Error()}
	if errors.Is(err, block.ErrNotVerified) || errors.Is(err, errMeta) {
		f.Kind = "meta"
	}
	return f
}

// errMeta marks a block whose content is not what its meta.json says.
var errMeta = errors.New("meta.json says otherwise")

func (v *Verification) one(ctx context.Context, m *block.Meta) error {
	if err := block.VerifyRemote(ctx, v.Bucket, m); err != nil || !v.Full {
		return err
	}
	dir, err := os.MkdirTemp(v.Dir, "verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	local, err := Download(ctx, v.Bucket, m, dir)
	if err != nil {
		return err
	}
	c, err := block.Verify(ctx, local)
	if err != nil {
		return err
	}
	if s := m.Stats; s.NumSeries != 0 && s.NumSeries != c.Series || s.NumChunks != 0 && s.NumChunks != c.Chunks {
		return fmt.Errorf("block %s: %w: %d series and %d chunks instead of %d and %d", m.ULID, errMeta, c.Series, c.Chunks, s.NumSeries, s.NumChunks)
	}
	return nil
}

// Download copies a block's data and its meta into dir/<ULID>, a new folder, which it returns.
func Download(ctx context.Context, bkt block.Bucket, m *block.Meta, dir string) (string, error) {
	local := filepath.Join(dir, m.ULID.String())
	if err := os.MkdirAll(filepath.Join(local, block.ChunksDirname), 0o777); err != nil {
		return "", err
	}
	var names []string
	err := bkt.ListSizes(ctx, block.Name(m.ULID, ""), func(o block.Object) error {
		if id, rel, ok := block.SplitName(o.Name); ok && id == m.ULID && isData(rel) {
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("block %s: list: %w", m.ULID, err)
	}
	for _, rel := range names {
		if err := downloadFile(ctx, bkt, block.Name(m.ULID, rel), filepath.Join(local, filepath.FromSlash(rel))); err != nil {
			return "", fmt.Errorf("block %s: %w", m.ULID, err)
		}
	}
	return local, block.WriteMeta(local, m)
}

// isData tells the objects that hold a block's samples.
func isData(rel string) bool {
	return rel == block.IndexFilename || filepath.ToSlash(filepath.Dir(rel)) == block.ChunksDirname
}

func downloadFile(ctx context.Context, bkt block.Bucket, name, path string) (err error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer r.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.ReadFrom(r); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// groupName is a group as people read it.
func groupName(m *block.Meta) string { return Resolution(m.Resolution()) + " " + m.Labels().String() }

// relations looks at the blocks of each group side by side: for those that others
// cover, for times that several have, and for times that none has.
func relations(live []*block.Meta, minGap time.Duration) []Finding {
	metas := map[ulid.ULID]*block.Meta{}
	for _, m := range live {
		metas[m.ULID] = m
	}
	var out []Finding
	for _, id := range block.Duplicates(metas) {
		out = append(out, Finding{SeverityWarning, "duplicate", id, groupName(metas[id]), "another block has all of its sources; a compactor will mark it"})
		delete(metas, id)
	}
	groups := map[string][]*block.Meta{}
	for _, m := range metas {
		groups[m.GroupKey()] = append(groups[m.GroupKey()], m)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		group := groups[key]
		slices.SortFunc(group, func(a, b *block.Meta) int { return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID)) })
		out = append(out, neighbours(group, minGap)...)
	}
	return out
}

// neighbours finds overlaps and gaps in a group that is sorted by time. Shards
// of one split hold other series, so that their times say nothing.
func neighbours(group []*block.Meta, minGap time.Duration) []Finding {
	var out []Finding
	last := group[0] // the one that ends last so far
	for _, m := range group[1:] {
		gap := time.Duration(m.MinTime-last.MaxTime) * time.Millisecond
		switch {
		case gap < 0 && !apart(last, m):
			out = append(out, Finding{SeverityWarning, "overlap", m.ULID, groupName(m), fmt.Sprintf("%s of its time are in %s, too; a compactor merges them", (-gap).String(), last.ULID)})
		case gap > 0 && gap >= minGap:
			out = append(out, Finding{SeverityWarning, "gap", m.ULID, groupName(m), fmt.Sprintf("no block has the %s before it, since %s", gap, time.UnixMilli(last.MaxTime).UTC().Format(time.RFC3339))})
		}
		if m.MaxTime > last.MaxTime {
			last = m
		}
	}
	return out
}

// apart tells whether two blocks are different shards.
func apart(a, b *block.Meta) bool {
	ea, _, errA := a.Extension()
	eb, _, errB := b.Extension()
	return errA == nil && errB == nil && ea.Shard.Key() != eb.Shard.Key()
}
