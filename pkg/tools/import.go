package tools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/firnline/firnline/pkg/block"
)

// BlockLength is how much time a block has that import makes. Compactors begin
// with blocks of this length.
const BlockLength = 2 * time.Hour

// HeadBlock writes what is in the head of a Prometheus' data folder, and in no
// block yet, as a block into dir. The folder is only read.
func HeadBlock(data, dir string, log *slog.Logger) (Imported, error) {
	if _, err := os.Stat(filepath.Join(data, "wal")); errors.Is(err, os.ErrNotExist) {
		return Imported{}, nil // it has no head
	}
	db, err := tsdb.OpenDBReadOnly(data, dir, warningsOf(log))
	if err != nil {
		return Imported{}, fmt.Errorf("%s: %w", data, err)
	}
	if err := errors.Join(db.FlushWAL(dir), db.Close()); err != nil {
		return Imported{}, fmt.Errorf("%s: read the head's log: %w", data, err)
	}
	var out Imported
	dirs, err := BlockDirs(dir)
	if errors.Is(err, ErrNoBlocks) {
		return out, nil
	}
	for _, d := range dirs {
		m, err := block.ReadMeta(d)
		if err != nil {
			return out, err
		}
		out.Blocks++
		out.Samples += int(m.Stats.NumSamples)
	}
	return out, err
}

// warningsOf leaves out what the TSDB tells of its ordinary work.
func warningsOf(log *slog.Logger) *slog.Logger { return slog.New(onlyWarnings{log.Handler()}) }

type onlyWarnings struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h onlyWarnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h onlyWarnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return onlyWarnings{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h onlyWarnings) WithGroup(name string) slog.Handler {
	return onlyWarnings{h.Handler.WithGroup(name)}
}

// blocks collects samples in blocks of BlockLength, one after the other.
type blocks struct {
	dir  string
	log  *slog.Logger
	told *Imported

	window int64 // the one that is open; only with w
	w      *tsdb.BlockWriter
	app    storage.AppenderV2
	n      int // appended since the last commit
	any    bool
}

// Imported is what an import came to.
type Imported struct {
	Blocks, Samples int
	Dropped         int // samples that had no time, or were out of order
}

// commitEvery bounds what an appender holds.
const commitEvery = 5000

// begin opens the block of a window.
func (b *blocks) begin(ctx context.Context, window int64) (err error) {
	length := BlockLength.Milliseconds()
	if b.w, err = tsdb.NewBlockWriter(warningsOf(b.log), b.dir, length); err != nil {
		return err
	}
	b.window, b.any, b.n = window, false, 0
	b.app = b.w.AppenderV2(ctx)
	return nil
}

// add appends a sample of the window that is open.
func (b *blocks) add(ctx context.Context, lset labels.Labels, t int64, s sample) error {
	_, err := b.app.Append(0, lset, 0, t, s.f, nil, s.h, storage.AOptions{})
	switch {
	case errors.Is(err, storage.ErrOutOfOrderSample), errors.Is(err, storage.ErrDuplicateSampleForTimestamp), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrTooOldSample):
		b.told.Dropped++
		return nil
	case err != nil:
		return fmt.Errorf("series %s: %w", lset, err)
	}
	b.told.Samples++
	b.any = true
	if b.n++; b.n < commitEvery {
		return nil
	}
	if err := b.app.Commit(); err != nil {
		return err
	}
	b.n, b.app = 0, b.w.AppenderV2(ctx)
	return nil
}

// end writes the block, unless nothing is in it.
func (b *blocks) end(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, b.w.Close()) }()
	if err := b.app.Commit(); err != nil {
		return err
	}
	if !b.any {
		return nil
	}
	if _, err := b.w.Flush(ctx); err != nil {
		return fmt.Errorf("write block: %w", err)
	}
	b.told.Blocks++
	return nil
}

// windowOf is the window that a time is in, by number.
func windowOf(t int64) int64 {
	length := BlockLength.Milliseconds()
	w := t / length
	if t%length < 0 {
		w--
	}
	return w
}
