package block

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
)

// Delete removes a block from a bucket: meta.json first, so that no reader sees
// half a block, then everything else, the deletion mark last, so that a removal
// that was cut off is still announced and goes on at the next call. What is gone
// already is no error. Only a compactor's cleaning may call this, for blocks
// whose mark is old enough and partial blocks that were left alone.
func Delete(ctx context.Context, bkt Bucket, id ulid.ULID) error {
	var rest []string
	err := bkt.ListSizes(ctx, Name(id, ""), func(o Object) error {
		if got, rel, ok := SplitName(o.Name); ok && got == id && rel != MetaFilename {
			rest = append(rest, rel)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("block %s: list: %w", id, err)
	}
	slices.SortFunc(rest, compareRemoval)
	// Asked for even when it isn't listed: a listing doesn't prove that it is gone.
	for _, rel := range append([]string{MetaFilename}, rest...) {
		if err := bkt.Delete(ctx, Name(id, rel)); err != nil && !bkt.IsObjNotFoundErr(err) {
			return fmt.Errorf("block %s: remove %s: %w", id, rel, err)
		}
	}
	return nil
}

// compareRemoval orders names: data, then the deletion mark, then entries that
// some stores keep for the folders themselves.
func compareRemoval(a, b string) int {
	if d := removalRank(a) - removalRank(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}

func removalRank(rel string) int {
	switch {
	case rel == "" || strings.HasSuffix(rel, "/"):
		return 2
	case rel == DeletionMarkFilename:
		return 1
	}
	return 0
}
