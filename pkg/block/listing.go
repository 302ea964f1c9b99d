package block

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"
)

// listed are the objects of one block that a listing has shown and that matter
// for knowing it.
type listed struct {
	small  map[string]version // meta.json and marks, by name
	newest time.Time          // when its newest object was written
}

func (l *listed) has(filename string) bool {
	_, ok := l.small[filename]
	return ok
}

// version tells whether an object has been written anew: its size in bytes and
// when it was written, in whole seconds, since stores disagree about fractions.
type version struct {
	sizeBytes int64
	seconds   int64
}

// versions are those of the small objects of one block. A zero one is unknown.
type versions struct {
	meta, deletion, noCompact, noDownsample version
}

// of returns where the version of an object is kept.
func (v *versions) of(filename string) *version {
	switch filename {
	case MetaFilename:
		return &v.meta
	case DeletionMarkFilename:
		return &v.deletion
	case NoCompactMarkFilename:
		return &v.noCompact
	default:
		return &v.noDownsample
	}
}

func versionOf(o Object) version {
	v := version{sizeBytes: o.SizeBytes, seconds: 1} // never zero, which would be unknown
	if !o.LastModified.IsZero() {
		v.seconds = o.LastModified.Unix()
	}
	return v
}

// listing is what one pass over a bucket has shown, by block.
type listing map[ulid.ULID]*listed

func (l listing) add(o Object) {
	id, rel, ok := SplitName(o.Name)
	if !ok {
		return
	}
	b := l[id]
	if b == nil {
		b = &listed{small: map[string]version{}}
		l[id] = b
	}
	b.newest = newer(b.newest, o.LastModified)
	switch rel {
	case MetaFilename, DeletionMarkFilename, NoCompactMarkFilename, NoDownsampleMarkFilename:
		b.small[rel] = versionOf(o)
	}
}

// shows tells whether a block's meta.json was listed.
func (l listing) shows(id ulid.ULID) bool { return l[id] != nil && l[id].has(MetaFilename) }

// leaving tells whether its deletion mark was.
func (l listing) leaving(id ulid.ULID) bool { return l[id] != nil && l[id].has(DeletionMarkFilename) }

func (l listing) firsthand() bool { return true }

func newer(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// list passes over the bucket by one of the two strategies.
func list(ctx context.Context, bkt Bucket, strategy string, concurrency int) (listing, error) {
	if strategy == StrategyConcurrent {
		return listConcurrent(ctx, bkt, concurrency)
	}
	out := listing{}
	err := bkt.ListSizes(ctx, "", func(o Object) error {
		out.add(o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	return out, nil
}

func listConcurrent(ctx context.Context, bkt Bucket, concurrency int) (listing, error) {
	var ids []ulid.ULID
	err := bkt.Iter(ctx, "", func(name string) error {
		if id, ok := ParseID(name); ok {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	out := listing{}
	var mu sync.Mutex // guards out
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(concurrency, 1))
	for _, id := range ids {
		g.Go(func() error {
			err := bkt.ListSizes(ctx, Name(id, ""), func(o Object) error {
				mu.Lock()
				defer mu.Unlock()
				out.add(o)
				return nil
			})
			if err != nil {
				return fmt.Errorf("block %s: list: %w", id, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// ErrEmpty marks a block of which a bucket has nothing at all.
var ErrEmpty = errors.New("no such block")

// NewestObject returns when the newest object of a block was written, by the
// bucket's clock: the measure for how long a partial block has been left alone.
// The time in the ULID says nothing about that, since blocks are uploaded long
// after they were cut. Without any object the error wraps ErrEmpty.
func NewestObject(ctx context.Context, bkt Bucket, id ulid.ULID) (time.Time, error) {
	var newest time.Time
	n := 0
	err := bkt.ListSizes(ctx, Name(id, ""), func(o Object) error {
		n++
		newest = newer(newest, o.LastModified)
		return nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("block %s: list: %w", id, err)
	}
	if n == 0 {
		return time.Time{}, fmt.Errorf("block %s: %w", id, ErrEmpty)
	}
	return newest, nil
}
