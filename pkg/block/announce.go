package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"
)

// maxChanges is how many changes one announcement may hold.
const maxChanges = 10_000

// Announce tells readers of the bucket's manifest what has happened, by one
// small object, firnline/manifest.d/<ULID>. Call it after the fact: a block is
// announced when its meta.json is there and verified, a removal when meta.json
// is gone. A compactor folds announcements into the manifest and removes them.
//
// An announcement that fails or is lost is found out by the next listing, so
// callers log the error and go on. Where nobody has written a manifest nobody
// reads announcements either, and none is written.
func Announce(ctx context.Context, bkt Bucket, changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	if err := checkChanges(changes); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	there, err := bkt.Exists(ctx, manifestName)
	if err != nil {
		return fmt.Errorf("announce: look for %s: %w", manifestName, err)
	}
	if !there {
		return nil
	}
	data, err := encodeChanges(changes)
	if err != nil {
		return fmt.Errorf("announce: encode: %w", err)
	}
	// The time in the name orders announcements and decides about nothing else:
	// where clocks disagree, the next listing sets it right.
	name := announcePrefix + ulid.Make().String()
	if err := bkt.Upload(ctx, name, bytes.NewReader(data)); err != nil {
		return fmt.Errorf("announce: write %s: %w", name, err)
	}
	return nil
}

var errChange = errors.New("neither a meta nor marks nor a removal, or more than one of them")

// checkChanges refuses what readers would.
func checkChanges(changes []Change) error {
	if len(changes) > maxChanges {
		return fmt.Errorf("%d changes, %d are the most", len(changes), maxChanges)
	}
	for _, c := range changes {
		if bits := bits(c.Meta != nil, c.Marks != nil, c.Removed); bits&(bits-1) != 0 || bits == 0 {
			return fmt.Errorf("block %s: %w", c.Block, errChange)
		}
		if c.Meta == nil {
			continue
		}
		if err := c.Meta.check(c.Block); err != nil {
			return fmt.Errorf("block %s: meta: %w", c.Block, err)
		}
	}
	return nil
}
