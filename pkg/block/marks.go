package block

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/oklog/ulid/v2"
)

const markVersion = 1

// Reasons in marks.
const (
	ReasonManual                       = "manual"
	ReasonIndexSizeExceeding           = "index-size-exceeding"
	ReasonOutOfOrderChunk              = "block-index-out-of-order-chunk"
	ReasonDownsampleVerticalCompaction = "downsample-vertical-compaction"
)

// ErrNoMark tells that a block does not have the mark asked for.
var ErrNoMark = errors.New("no such mark")

// DeletionMark says that a block is to be removed once the delete delay has passed.
type DeletionMark struct {
	ID           ulid.ULID `json:"id"`
	Version      int       `json:"version"`
	Details      string    `json:"details,omitempty"`
	DeletionTime int64     `json:"deletion_time"` // when it was marked, unix seconds
}

// NoCompactMark keeps a block out of compaction.
type NoCompactMark struct {
	ID            ulid.ULID `json:"id"`
	Version       int       `json:"version"`
	Details       string    `json:"details,omitempty"`
	NoCompactTime int64     `json:"no_compact_time"` // unix seconds
	Reason        string    `json:"reason"`
}

// NoDownsampleMark keeps a block out of downsampling.
type NoDownsampleMark struct {
	ID               ulid.ULID `json:"id"`
	Version          int       `json:"version"`
	Details          string    `json:"details,omitempty"`
	NoDownsampleTime int64     `json:"no_downsample_time"` // unix seconds
	Reason           string    `json:"reason"`
}

// Marks are the marks of one block. Nil: not marked so.
type Marks struct {
	Deletion     *DeletionMark
	NoCompact    *NoCompactMark
	NoDownsample *NoDownsampleMark
}

// same tells whether both have equal marks.
func (m Marks) same(o Marks) bool {
	return equal(m.Deletion, o.Deletion) && equal(m.NoCompact, o.NoCompact) && equal(m.NoDownsample, o.NoDownsample)
}

func equal[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// WriteDeletionMark marks a block for removal; the version is filled in. A mark
// that is there already stays as it is, since its date counts.
func WriteDeletionMark(ctx context.Context, bkt Bucket, m DeletionMark) error {
	m.Version = markVersion
	return writeMark(ctx, bkt, m.ID, DeletionMarkFilename, m)
}

// WriteNoCompactMark keeps a block out of compaction, unless a mark does already.
func WriteNoCompactMark(ctx context.Context, bkt Bucket, m NoCompactMark) error {
	m.Version = markVersion
	return writeMark(ctx, bkt, m.ID, NoCompactMarkFilename, m)
}

// ReplaceNoCompactMark is WriteNoCompactMark whatever mark is there already.
func ReplaceNoCompactMark(ctx context.Context, bkt Bucket, m NoCompactMark) error {
	m.Version = markVersion
	return putMark(ctx, bkt, m.ID, NoCompactMarkFilename, m)
}

// WriteNoDownsampleMark keeps a block out of downsampling, unless a mark does already.
func WriteNoDownsampleMark(ctx context.Context, bkt Bucket, m NoDownsampleMark) error {
	m.Version = markVersion
	return writeMark(ctx, bkt, m.ID, NoDownsampleMarkFilename, m)
}

// Unmark removes the mark with one of the names …MarkFilename. A block that
// isn't marked is no error.
func Unmark(ctx context.Context, bkt Bucket, id ulid.ULID, filename string) error {
	err := bkt.Delete(ctx, Name(id, filename))
	if err != nil && !bkt.IsObjNotFoundErr(err) {
		return fmt.Errorf("block %s: remove %s: %w", id, filename, err)
	}
	return nil
}

func writeMark(ctx context.Context, bkt Bucket, id ulid.ULID, filename string, mark any) error {
	there, err := bkt.Exists(ctx, Name(id, filename))
	if err != nil {
		return fmt.Errorf("block %s: look for %s: %w", id, filename, err)
	}
	if there {
		return nil
	}
	return putMark(ctx, bkt, id, filename, mark)
}

func putMark(ctx context.Context, bkt Bucket, id ulid.ULID, filename string, mark any) error {
	data, err := encodeJSON(mark)
	if err != nil {
		return fmt.Errorf("block %s: encode %s: %w", id, filename, err)
	}
	if err := bkt.Upload(ctx, Name(id, filename), bytes.NewReader(data)); err != nil {
		return fmt.Errorf("block %s: write %s: %w", id, filename, err)
	}
	return nil
}

// ReadDeletionMark reads a block's deletion mark. The error wraps ErrNoMark
// where there is none, ErrCorrupt or ErrUnknownVersion where it can't be used.
func ReadDeletionMark(ctx context.Context, bkt Bucket, id ulid.ULID) (*DeletionMark, error) {
	return readMark[DeletionMark](ctx, bkt, id, DeletionMarkFilename)
}

// ReadNoCompactMark is ReadDeletionMark for the no-compact mark. One of an
// unknown version is no error: it keeps the block out all the same (unknownNoCompact).
func ReadNoCompactMark(ctx context.Context, bkt Bucket, id ulid.ULID) (*NoCompactMark, error) {
	mark, err := readMark[NoCompactMark](ctx, bkt, id, NoCompactMarkFilename)
	if errors.Is(err, ErrUnknownVersion) {
		return unknownNoCompact(id, err), nil
	}
	return mark, err
}

// ReadNoDownsampleMark is ReadNoCompactMark for the no-downsample mark.
func ReadNoDownsampleMark(ctx context.Context, bkt Bucket, id ulid.ULID) (*NoDownsampleMark, error) {
	mark, err := readMark[NoDownsampleMark](ctx, bkt, id, NoDownsampleMarkFilename)
	if errors.Is(err, ErrUnknownVersion) {
		return unknownNoDownsample(id, err), nil
	}
	return mark, err
}

// unknownNoCompact stands for a mark of an unknown version. That it is there says
// to leave the block alone, and that much is known of it, whatever else it says;
// Details tell why no more is. A deletion mark has nothing like it: to remove a
// block one must know since when it is marked.
func unknownNoCompact(id ulid.ULID, err error) *NoCompactMark {
	return &NoCompactMark{ID: id, Version: markVersion, Details: err.Error(), Reason: ReasonManual}
}

// unknownNoDownsample is unknownNoCompact for the no-downsample mark.
func unknownNoDownsample(id ulid.ULID, err error) *NoDownsampleMark {
	return &NoDownsampleMark{ID: id, Version: markVersion, Details: err.Error(), Reason: ReasonManual}
}

func readMark[T any](ctx context.Context, bkt Bucket, id ulid.ULID, filename string) (*T, error) {
	data, err := GetAll(ctx, bkt, Name(id, filename), maxMarkBytes)
	if err != nil && bkt.IsObjNotFoundErr(err) {
		return nil, fmt.Errorf("block %s: %s: %w", id, filename, ErrNoMark)
	}
	if err != nil {
		return nil, fmt.Errorf("block %s: read %s: %w", id, filename, err)
	}
	return parseMark[T](id, filename, data)
}

// parseMark reads one of the three kinds of marks and checks what all of them
// have in common. Of a version that isn't known nothing else is looked at.
func parseMark[T any](id ulid.ULID, filename string, data []byte) (*T, error) {
	var head struct {
		Version int `json:"version"`
	}
	var of struct {
		ID ulid.ULID `json:"id"`
	}
	mark := new(T)
	err := json.Unmarshal(data, &head)
	if err == nil && head.Version != markVersion {
		return nil, fmt.Errorf("block %s: %s: %w %d, this program reads %d; upgrade it", id, filename, ErrUnknownVersion, head.Version, markVersion)
	}
	if err = cmp.Or(err, json.Unmarshal(data, &of), json.Unmarshal(data, mark)); err != nil {
		return nil, fmt.Errorf("block %s: %s of %d bytes: %w: %w; write it anew or remove it", id, filename, len(data), ErrCorrupt, err)
	}
	if of.ID != id {
		return nil, fmt.Errorf("block %s: %s: %w: it is that of block %s; write it anew or remove it", id, filename, ErrCorrupt, of.ID)
	}
	return mark, nil
}

// Small objects are read whole, but never more than this many bytes of them.
const (
	maxMetaBytes = 64 << 20 // a meta.json lists every source of a block: some MiB at most
	maxMarkBytes = 1 << 20
)

// GetAll reads an object of at most limit bytes; the error of a longer one wraps ErrCorrupt.
func GetAll(ctx context.Context, bkt Bucket, name string, limit int64) (_ []byte, err error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes: %w", name, limit, ErrCorrupt)
	}
	return data, nil
}
