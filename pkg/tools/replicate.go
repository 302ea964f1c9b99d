package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block"
)

// Replication copies blocks from one bucket to another.
//
//	data objects, those missing or of another size ─► compare sizes ─► read back ─► meta.json, byte for byte
//
// So a block is visible in the second bucket only when it is whole; what was cut
// off is gone on with, and what is there is not sent again.
type Replication struct {
	From, To    block.Bucket
	Log         *slog.Logger
	Concurrency int                            // blocks at once
	Resolutions []int64                        // in ms; none: all
	MinLevel    int                            // of compaction
	MaxLevel    int                            // 0: no bound
	SkipMarked  bool                           // leave out what is marked for deletion
	Told        func(done, all int, _ int64)   // after each block, where not nil
	Fault       func(point, name string) error // nil but in tests
}

// chosen lists the blocks of a view that are to be copied, the oldest data first.
func (r *Replication) chosen(v block.View) []*block.Meta {
	return slices.DeleteFunc(v.Sorted(), func(m *block.Meta) bool {
		return len(r.Resolutions) > 0 && !slices.Contains(r.Resolutions, m.Resolution()) ||
			m.Compaction.Level < r.MinLevel || r.MaxLevel > 0 && m.Compaction.Level > r.MaxLevel ||
			r.SkipMarked && v.Marks[m.ULID].Deletion != nil
	})
}

// Blocks copies the blocks of a view that are chosen. One that fails stops no other.
func (r *Replication) Blocks(ctx context.Context, v block.View) ([]Sent, error) {
	todo := r.chosen(v)
	out := make([]Sent, len(todo))
	var mu sync.Mutex
	var errs []error
	t := newTally(len(todo), r.Told)
	var g errgroup.Group
	g.SetLimit(max(r.Concurrency, 1))
	for i, m := range todo {
		g.Go(func() error {
			s, err := r.one(ctx, m)
			if err != nil {
				s.Error = err.Error()
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
			out[i] = s
			t.add(s.Bytes)
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return out, err
	}
	return out, errors.Join(errs...)
}

func (r *Replication) one(ctx context.Context, m *block.Meta) (Sent, error) {
	out := Sent{Block: m.ULID}
	there, err := r.To.Exists(ctx, block.Name(m.ULID, block.MetaFilename))
	if err != nil {
		return out, fmt.Errorf("block %s: look for it in the second bucket: %w", m.ULID, err)
	}
	if there {
		out.Already = true
		return out, nil
	}
	if out.Bytes, err = r.copyData(ctx, m.ULID); err != nil {
		return out, err
	}
	if err := block.VerifyRemote(ctx, r.To, m); err != nil {
		return out, err
	}
	if err := r.step("meta", m.ULID.String()); err != nil {
		return out, err
	}
	data, err := block.GetAll(ctx, r.From, block.Name(m.ULID, block.MetaFilename), maxMeta)
	if err != nil {
		return out, fmt.Errorf("block %s: read meta.json: %w", m.ULID, err)
	}
	if err := r.To.Upload(ctx, block.Name(m.ULID, block.MetaFilename), bytes.NewReader(data)); err != nil {
		return out, fmt.Errorf("block %s: write meta.json: %w", m.ULID, err)
	}
	landed, err := block.FetchMeta(ctx, r.To, m.ULID)
	if err != nil {
		return out, fmt.Errorf("read back: %w", err)
	}
	announce(ctx, r.To, r.Log, block.Change{Block: m.ULID, Meta: landed})
	out.Bytes += int64(len(data))
	return out, nil
}

// maxMeta is how long a meta.json may be.
const maxMeta = 64 << 20

func (r *Replication) step(point, name string) error {
	if r.Fault == nil {
		return nil
	}
	return r.Fault(point, name)
}

// copyData copies the data objects that the second bucket lacks.
func (r *Replication) copyData(ctx context.Context, id ulid.ULID) (int64, error) {
	from, err := dataSizes(ctx, r.From, id)
	if err != nil {
		return 0, err
	}
	to, err := dataSizes(ctx, r.To, id)
	if err != nil {
		return 0, err
	}
	var sent int64
	for rel, size := range from {
		if have, ok := to[rel]; ok && have == size {
			continue
		}
		if err := r.step("object", rel); err != nil {
			return sent, err
		}
		if err := r.copyObject(ctx, block.Name(id, rel)); err != nil {
			return sent, fmt.Errorf("block %s: %w", id, err)
		}
		sent += size
	}
	return sent, nil
}

// dataSizes lists the data objects of a block.
func dataSizes(ctx context.Context, bkt block.Bucket, id ulid.ULID) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := bkt.ListSizes(ctx, block.Name(id, ""), func(o block.Object) error {
		if got, rel, ok := block.SplitName(o.Name); ok && got == id && isData(rel) {
			sizes[rel] = o.SizeBytes
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("block %s: list: %w", id, err)
	}
	return sizes, nil
}

func (r *Replication) copyObject(ctx context.Context, name string) error {
	body, err := r.From.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer body.Close()
	if err := r.To.Upload(ctx, name, body); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
