package notes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

const prefix = "firnline/notes/"

// Name is the object that the note on a block of level 1 is.
func Name(id ulid.ULID) string { return prefix + id.String() }

// ErrNone tells that a block has no note.
var ErrNone = errors.New("no note")

// Upload writes a note, replacing what is there. An empty one is not written.
func Upload(ctx context.Context, bkt block.Bucket, id ulid.ULID, n *Note) error {
	if n.Empty() {
		return nil
	}
	data, err := n.Encode()
	if err != nil {
		return fmt.Errorf("note on block %s: encode: %w", id, err)
	}
	if err := bkt.Upload(ctx, Name(id), bytes.NewReader(data)); err != nil {
		return fmt.Errorf("note on block %s: write: %w", id, err)
	}
	return nil
}

// Read returns the note on a block. The error wraps ErrNone, block.ErrCorrupt or
// block.ErrUnknownVersion, or comes from the bucket.
func Read(ctx context.Context, bkt block.Bucket, id ulid.ULID) (*Note, error) {
	data, err := block.GetAll(ctx, bkt, Name(id), maxContentBytes)
	if err != nil && bkt.IsObjNotFoundErr(err) {
		return nil, fmt.Errorf("block %s: %w", id, ErrNone)
	}
	if err == nil {
		var n *Note
		if n, err = Decode(data); err == nil {
			return n, nil
		}
	}
	return nil, fmt.Errorf("note on block %s: read %s: %w", id, Name(id), err)
}

// Entry is a note as a listing shows it.
type Entry struct {
	Block        ulid.ULID
	SizeBytes    int64
	LastModified time.Time // by the bucket's clock
}

// List calls do for each note, in no particular order. Names that are no ULID are passed by.
func List(ctx context.Context, bkt block.Bucket, do func(Entry)) error {
	err := bkt.ListSizes(ctx, prefix, func(o block.Object) error {
		if id, ok := block.ParseID(strings.TrimPrefix(o.Name, prefix)); ok && o.Name == Name(id) {
			do(Entry{Block: id, SizeBytes: o.SizeBytes, LastModified: o.LastModified})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list notes: %w", err)
	}
	return nil
}

// Remove removes the note on a block. One that is gone already is no error.
func Remove(ctx context.Context, bkt block.Bucket, id ulid.ULID) error {
	if err := bkt.Delete(ctx, Name(id)); err != nil && !bkt.IsObjNotFoundErr(err) {
		return fmt.Errorf("note on block %s: remove: %w", id, err)
	}
	return nil
}
