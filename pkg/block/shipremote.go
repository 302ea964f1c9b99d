package block

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// remoteConcurrency is how many metas a shipper reads at once on the rare
// occasions when it has to.
const remoteConcurrency = 16

// readRemote returns the metas of the blocks in a bucket that can hold samples
// of local ones: those cut at or after the oldest of their sources.
func readRemote(ctx context.Context, bkt Bucket, local []localBlock) ([]*Meta, error) {
	l, err := list(ctx, bkt, StrategyRecursive, remoteConcurrency)
	if err != nil {
		return nil, err
	}
	since := oldestSource(local)
	var ids []ulid.ULID
	for id, b := range l {
		if b.has(MetaFilename) && id.Time() >= since {
			ids = append(ids, id)
		}
	}
	metas := make([]*Meta, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(remoteConcurrency)
	for i, id := range ids {
		g.Go(func() error {
			m, err := FetchMeta(ctx, bkt, id)
			if errors.Is(err, ErrPartial) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnknownVersion) {
				return nil // covers nothing that could be relied on
			}
			metas[i] = m
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(metas, func(m *Meta) bool { return m == nil }), nil
}

// FetchMeta reads a block's meta.json from a bucket. The error wraps ErrPartial
// where there is none, and else what ParseMeta says.
func FetchMeta(ctx context.Context, bkt Bucket, id ulid.ULID) (*Meta, error) {
	data, err := GetAll(ctx, bkt, Name(id, MetaFilename), maxMetaBytes)
	if err != nil && bkt.IsObjNotFoundErr(err) {
		return nil, fmt.Errorf("block %s: %w", id, ErrPartial)
	}
	if err != nil {
		return nil, fmt.Errorf("block %s: read meta: %w", id, err)
	}
	return ParseMeta(id, data)
}

// oldestSource returns the time in the ULIDs, ms, of the oldest source of any block.
func oldestSource(local []localBlock) uint64 {
	oldest := ^uint64(0)
	for _, b := range local {
		for _, s := range b.meta.Sources() {
			oldest = min(oldest, s.Time())
		}
	}
	return oldest
}
