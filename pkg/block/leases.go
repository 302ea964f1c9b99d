package block

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// LeaseInfo is what a lease's record says, to whoever asks.
type LeaseInfo struct {
	Name    string
	Owner   string
	For     string
	TTL     time.Duration // 0: released
	Renewed time.Time     // by the bucket's clock
}

// ListLeases reads the leases whose names begin with prefix. One that can't be
// read is left out.
func ListLeases(ctx context.Context, bkt Bucket, prefix string) ([]LeaseInfo, error) {
	objects, err := leaseObjects(ctx, bkt, prefix)
	if err != nil {
		return nil, err
	}
	var out []LeaseInfo
	for _, o := range objects {
		data, _, err := bkt.GetIf(ctx, o.Name, "")
		if err != nil && !bkt.IsObjNotFoundErr(err) {
			return out, fmt.Errorf("read %s: %w", o.Name, err)
		}
		var r leaseRecord
		if err != nil || json.Unmarshal(data, &r) != nil || r.Version != leaseVersion {
			continue
		}
		out = append(out, LeaseInfo{
			Name: leaseNameOf(o.Name), Owner: r.Owner, For: r.For, TTL: time.Duration(r.TTLSeconds) * time.Second, Renewed: o.LastModified,
		})
	}
	return out, nil
}

// RemoveOldLeases removes the records of leases whose names begin with prefix
// and that nobody has written since before, a time by the bucket's clock that is
// long after any of them has lapsed. It returns how many went.
//
// A removal can't be conditional: a lease that is taken in the same moment loses
// its record, and its holder learns of it by the next renewal. That is why this
// is only for leases under which all work may be done twice.
func RemoveOldLeases(ctx context.Context, bkt Bucket, prefix string, before time.Time) (int, error) {
	objects, err := leaseObjects(ctx, bkt, prefix)
	if err != nil {
		return 0, err
	}
	var errs []error
	removed := 0
	for _, o := range objects {
		if !o.LastModified.Before(before) {
			continue
		}
		if err := bkt.Delete(ctx, o.Name); err != nil && !bkt.IsObjNotFoundErr(err) {
			errs = append(errs, fmt.Errorf("remove %s: %w", o.Name, err))
			continue
		}
		removed++
	}
	return removed, errors.Join(errs...)
}

func leaseObjects(ctx context.Context, bkt Bucket, prefix string) ([]Object, error) {
	var out []Object
	err := bkt.ListSizes(ctx, leasesPrefix+prefix, func(o Object) error {
		out = append(out, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return out, nil
}

func leaseNameOf(object string) string {
	return strings.TrimSuffix(strings.TrimPrefix(object, leasesPrefix), ".json")
}
