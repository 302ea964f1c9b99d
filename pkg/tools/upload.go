package tools

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// Upload sends the blocks of a folder to a bucket.
type Upload struct {
	Bucket      block.Bucket
	Labels      labels.Labels // external, instead of those that the blocks have
	Source      string        // "": block.SourceBucketUpload
	Concurrency int           // files of a block at once
	HashFunc    string
	Log         *slog.Logger
	Sent        func(done, all int64) // told of bytes, where not nil
}

// Sent is a block that was to be sent.
type Sent struct {
	Block   ulid.ULID `json:"block"`
	Bytes   int64     `json:"bytes"`
	Already bool      `json:"already"` // it was there
	Error   string    `json:"error,omitempty"`
}

// ErrNoBlocks tells that a folder has no blocks.
var ErrNoBlocks = errors.New("no blocks in the folder")

// Dir sends all blocks in dir, or dir itself if it is one, the oldest ULID first.
// Each is verified before it goes; one that was cut off is gone on with; one that
// fails stops no other, and is in the list and in the error.
func (u *Upload) Dir(ctx context.Context, dir string) ([]Sent, error) {
	dirs, err := BlockDirs(dir)
	if err != nil {
		return nil, err
	}
	sizes, all := make([]int64, len(dirs)), int64(0)
	for i, d := range dirs {
		sizes[i] = sizeOf(d)
		all += sizes[i]
	}
	var out []Sent
	var errs []error
	done := int64(0)
	for i, d := range dirs {
		base := done
		s, err := u.block(ctx, d, func(n int64) {
			done += n
			u.tell(done, all)
		})
		done = base + sizes[i]
		u.tell(done, all)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			s.Error = err.Error()
			errs = append(errs, err)
		}
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

func (u *Upload) tell(done, all int64) {
	if u.Sent != nil {
		u.Sent(min(done, all), all)
	}
}

// BlockDirs lists the folders of blocks in dir, or dir itself if it is one.
func BlockDirs(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, ok := block.ParseID(filepath.Base(abs)); ok {
		return []string{abs}, nil
	}
	entries, err := os.ReadDir(abs) // sorted by name
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if _, ok := block.ParseID(e.Name()); ok && e.IsDir() {
			out = append(out, filepath.Join(abs, e.Name()))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w: a block is a folder with a ULID for a name", dir, ErrNoBlocks)
	}
	return out, nil
}

// sizeOf sums up the files of a block, for progress.
func sizeOf(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // the upload tells what is wrong
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

func (u *Upload) block(ctx context.Context, dir string, sent func(int64)) (Sent, error) {
	id, _ := block.ParseID(filepath.Base(dir))
	out := Sent{Block: id}
	m, err := block.ReadMeta(dir)
	if err != nil {
		return out, err
	}
	if m.Stats.NumTombstones > 0 {
		u.Log.Warn("samples deleted in Prometheus come back: its tombstones are not uploaded; run its clean_tombstones API first", "block", id, "tombstones", m.Stats.NumTombstones)
	}
	next := *m
	if !u.Labels.IsEmpty() {
		next.Thanos.Labels = u.Labels.Map()
	}
	if next.Thanos.Source = u.Source; u.Source == "" {
		next.Thanos.Source = block.SourceBucketUpload
	}
	up := block.Uploader{Bucket: u.Bucket, Concurrency: u.Concurrency, HashFunc: u.HashFunc, Sent: sent}
	did, err := up.Upload(ctx, dir, &next)
	if errors.Is(err, block.ErrNoExternalLabels) {
		return out, fmt.Errorf("block %s has no external labels: give them by --label, such as --label='cluster=\"eu\"'", id)
	}
	if err != nil {
		return out, err
	}
	out.Bytes, out.Already = did.SentBytes, did.Already
	if !did.Already {
		announce(ctx, u.Bucket, u.Log, block.Change{Block: id, Meta: did.Meta})
	}
	return out, nil
}
