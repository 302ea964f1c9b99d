package block

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RemoveOldLeases removes the records of leases whose names begin with prefix
// and that nobody has written since before, a time by the bucket's clock that is
// long after any of them has lapsed. It returns how many went.
//
// A removal can't be conditional: a lease that is taken in the same moment loses
// its record, and its holder learns of it by the next renewal. That is why this
// is only for leases under which all work may be done twice.
func RemoveOldLeases(ctx context.Context, bkt Bucket, prefix string, before time.Time) (int, error) {
	var old []string
	err := bkt.ListSizes(ctx, leasesPrefix+prefix, func(o Object) error {
		if o.LastModified.Before(before) {
			old = append(old, o.Name)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list leases: %w", err)
	}
	var errs []error
	removed := 0
	for _, name := range old {
		if err := bkt.Delete(ctx, name); err != nil && !bkt.IsObjNotFoundErr(err) {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}
