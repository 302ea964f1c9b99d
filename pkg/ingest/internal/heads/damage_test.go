package heads

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/ingest/internal/replay"
)

// TestIsDamage: what a system could not do is no damage, whatever it is wrapped in.
//
// RELIABILITY I2
func TestIsDamage(t *testing.T) {
	path := func(e error) error { return &fs.PathError{Op: "open", Path: "wal/00000003", Err: e} }
	torn := errors.New("last record is torn")
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"none", nil, false},
		{"log", &wlog.CorruptionErr{Segment: 3, Offset: 17, Err: torn}, true},
		{"log, wrapped", fmt.Errorf("repair corrupted WAL: cannot handle error: %w", fmt.Errorf("backfill checkpoint: %w", &wlog.CorruptionErr{Err: torn})), true},
		{"head chunks", fmt.Errorf("iterate: %w", &chunks.CorruptionErr{FileIndex: 1, Err: torn}), true},
		{"block", fmt.Errorf("block: %w: bad magic number", block.ErrCorrupt), true},
		{"block without meta.json", fmt.Errorf("%w: %w", block.ErrPartial, path(syscall.ENOENT)), true},
		{"a file is missing", fmt.Errorf("open WAL segment: %w", path(syscall.ENOENT)), true},
		{"mended by the TSDB", errMendedByTSDB, true},

		{"log that can't be read", &wlog.CorruptionErr{Segment: 3, Err: fmt.Errorf("read first header byte: %w", path(syscall.EIO))}, false},
		{"no descriptors", fmt.Errorf("open WAL segment: %w", path(syscall.EMFILE)), false},
		{"none in all", path(syscall.ENFILE), false},
		{"rights", path(syscall.EACCES), false},
		{"immutable", &os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.EPERM}, false},
		{"read only", os.NewSyscallError("fsync", syscall.EROFS), false},
		{"mapping", fmt.Errorf("mmap, size 8: %w", syscall.ENOMEM), false},
		{"full", path(syscall.ENOSPC), false},
		{"lock", fmt.Errorf("lock DB directory: %w", syscall.EWOULDBLOCK), false},
		{"damage, and more", errors.Join(&wlog.CorruptionErr{Err: torn}, fmt.Errorf("close: %w", path(syscall.EIO))), false},
		{"more, and damage", errors.Join(path(syscall.ENOENT), path(syscall.EMFILE)), false},
		{"another version", block.ErrUnknownVersion, false},
		{"no room", fmt.Errorf("%w: 98%%", errNoRoom), false},
		{"no space", fmt.Errorf("%w: 10 bytes", errDiskFull), false},
		{"stopped", context.Canceled, false},
		{"closed", os.ErrClosed, false},
		{"nobody knows", errors.New("it did not work"), false},
	} {
		require.Equal(t, c.want, isDamage(c.err), c.name)
	}
}

func TestRemedies(t *testing.T) {
	err := withRemedy(fmt.Errorf("open the TSDB: %w", syscall.EMFILE))
	require.ErrorIs(t, err, syscall.EMFILE)
	require.ErrorContains(t, err, "ulimit -n")
	require.ErrorContains(t, withRemedy(errors.Join(syscall.ENOENT, syscall.EACCES)), "read and write all of the folder")
	require.Equal(t, errNoRoom, withRemedy(errNoRoom), "it says itself what to do")
}

func TestRetryAfter(t *testing.T) {
	var got []time.Duration
	for tries := range 8 {
		got = append(got, retryAfter(tries, syscall.EMFILE)/time.Minute)
	}
	require.Equal(t, []time.Duration{1, 1, 2, 4, 8, 16, 16, 16}, got)
	require.Equal(t, retryNoRoom, retryAfter(1, fmt.Errorf("%w: 98%%", errNoRoom)))
}

// TestUnreadableSegment: the reader of a log calls all its errors corruption, those of the system as well.
func TestUnreadableSegment(t *testing.T) {
	path := wlog.SegmentName(t.TempDir(), 3)
	require.NoError(t, os.Mkdir(path, 0o755)) // can be opened, but not read
	err := replay.EachRecord(path, func([]byte) error { return nil })
	var corrupt *wlog.CorruptionErr
	require.ErrorAs(t, err, &corrupt)
	require.ErrorIs(t, err, syscall.EISDIR)
	require.False(t, isDamage(err))
	_, err = checkSegment(path, &refRange{})
	require.ErrorIs(t, err, syscall.EISDIR)
}
