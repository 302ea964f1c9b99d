package tools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/firnline/firnline/pkg/block"
)

// ErrNoBlock tells that a bucket has no block of an id.
var ErrNoBlock = errors.New("no such block in the bucket")

// MarkNames lists the marks that a block can have.
func MarkNames() []string {
	return []string{block.DeletionMarkFilename, block.NoCompactMarkFilename, block.NoDownsampleMarkFilename}
}

// Marking puts a mark on blocks, or takes it off them.
type Marking struct {
	Blocks  []ulid.ULID
	Mark    string // one of MarkNames, with or without .json
	Details string
	Remove  bool
}

// Check completes the name of the mark; the error says what is wrong.
func (m *Marking) Check() error {
	if len(m.Blocks) == 0 {
		return errors.New("--id: give the ULID of a block; firnline tools bucket ls lists them")
	}
	if !strings.HasSuffix(m.Mark, ".json") {
		m.Mark += ".json"
	}
	if !slices.Contains(MarkNames(), m.Mark) {
		return fmt.Errorf("--marker: %q is no mark; there are %s", m.Mark, strings.Join(MarkNames(), ", "))
	}
	return nil
}

// Do marks all blocks that are there. One that fails does not stop the others.
func (m *Marking) Do(ctx context.Context, bkt block.Bucket, log *slog.Logger) error {
	var errs []error
	for _, id := range m.Blocks {
		if err := m.one(ctx, bkt, id, log); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (m *Marking) one(ctx context.Context, bkt block.Bucket, id ulid.ULID, log *slog.Logger) error {
	if err := Exists(ctx, bkt, id); err != nil {
		return err
	}
	if err := m.write(ctx, bkt, id); err != nil {
		return err
	}
	marks, err := readMarks(ctx, bkt, id)
	if err == nil {
		err = block.Announce(ctx, bkt, block.Change{Block: id, Marks: &marks})
	}
	if err != nil {
		log.Warn("the mark is not announced; others find it at their next listing", "block", id, "err", err)
	}
	return nil
}

func (m *Marking) write(ctx context.Context, bkt block.Bucket, id ulid.ULID) error {
	now := time.Now().Unix()
	switch {
	case m.Remove:
		return block.Unmark(ctx, bkt, id, m.Mark)
	case m.Mark == block.DeletionMarkFilename:
		return block.WriteDeletionMark(ctx, bkt, block.DeletionMark{ID: id, Details: m.Details, DeletionTime: now})
	case m.Mark == block.NoCompactMarkFilename:
		return block.WriteNoCompactMark(ctx, bkt, block.NoCompactMark{ID: id, Details: m.Details, NoCompactTime: now, Reason: block.ReasonManual})
	}
	return block.WriteNoDownsampleMark(ctx, bkt, block.NoDownsampleMark{ID: id, Details: m.Details, NoDownsampleTime: now, Reason: block.ReasonManual})
}

// Exists tells whether a bucket has a block: the error wraps ErrNoBlock where it
// has nothing of it, block.ErrPartial where it has no meta.json.
func Exists(ctx context.Context, bkt block.Bucket, id ulid.ULID) error {
	ok, err := bkt.Exists(ctx, block.Name(id, block.MetaFilename))
	if err != nil {
		return fmt.Errorf("block %s: look for meta.json: %w", id, err)
	}
	if ok {
		return nil
	}
	if _, err := block.NewestObject(ctx, bkt, id); errors.Is(err, block.ErrEmpty) {
		return fmt.Errorf("block %s: %w", id, ErrNoBlock)
	} else if err != nil {
		return err
	}
	return fmt.Errorf("block %s: %w: it has no meta.json", id, block.ErrPartial)
}

// readMarks reads all marks of a block.
func readMarks(ctx context.Context, bkt block.Bucket, id ulid.ULID) (marks block.Marks, err error) {
	if marks.Deletion, err = optional(block.ReadDeletionMark(ctx, bkt, id)); err != nil {
		return block.Marks{}, err
	}
	if marks.NoCompact, err = optional(block.ReadNoCompactMark(ctx, bkt, id)); err != nil {
		return block.Marks{}, err
	}
	if marks.NoDownsample, err = optional(block.ReadNoDownsampleMark(ctx, bkt, id)); err != nil {
		return block.Marks{}, err
	}
	return marks, nil
}

func optional[T any](mark *T, err error) (*T, error) {
	if errors.Is(err, block.ErrNoMark) {
		return nil, nil
	}
	return mark, err
}
