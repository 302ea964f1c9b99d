package main

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact"
)

// folderBucket makes a bucket in a folder with two days of blocks, and the flag for it.
func folderBucket(t *testing.T) (dir, objstore string) {
	dir = t.TempDir()
	b, err := bucket.NewFolder(dir)
	require.NoError(t, err)
	const hour, day = int64(3_600_000), 24 * int64(3_600_000)
	start := 4 * 14 * day
	local := t.TempDir()
	for from := start; from < start+2*day; from += 16 * hour {
		series := []blocktest.Series{{Labels: labels.FromStrings("__name__", "up"), Samples: blocktest.Floats(from, from+16*hour, hour/4, func(int64) float64 { return 1 })}}
		m := blocktest.Write(t, local, series, labels.FromStrings("cluster", "a"), blocktest.Options{MinTime: from, MaxTime: from + 16*hour})
		up := block.Uploader{Bucket: b, Now: func() time.Time { return time.Now().Add(-time.Hour) }}
		_, err := up.Upload(context.Background(), filepath.Join(local, m.ULID.String()), &m)
		require.NoError(t, err)
	}
	return dir, "--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}"
}

// TestCompactOnce makes one pass and ends with exit code 0, and 1 where
// something was left undone; the plan says what would be done before.
func TestCompactOnce(t *testing.T) {
	_, objstore := folderBucket(t)
	code, out, errs := cli(t, "tools", "compact", "plan", objstore)
	require.Zero(t, code, errs)
	require.Contains(t, out, "3 blocks")

	args := []string{"compact", objstore, "--http-address=127.0.0.1:0", "--shutdown-delay=0s"}
	code, _, errs = cli(t, append(args, "--data-dir="+t.TempDir(), "--compact.disk=1B")...)
	require.Equal(t, exitProblem, code, errs)
	require.Contains(t, errs, "--compact.disk is 1 B")

	code, _, errs = cli(t, append(args, "--data-dir="+t.TempDir())...)
	require.Zero(t, code, errs)
	code, out, errs = cli(t, "tools", "compact", "plan", objstore)
	require.Zero(t, code, errs)
	require.NotContains(t, out, "3 blocks")

	code, out, errs = cli(t, "tools", "bucket", "merge-shards", "--all", objstore, "--data-dir="+t.TempDir())
	require.Zero(t, code, errs)
	require.Empty(t, out, "there are no shards")
	code, _, _ = cli(t, "tools", "bucket", "merge-shards", objstore)
	require.Equal(t, exitUsage, code)
}

func TestBoard(t *testing.T) {
	var buf bytes.Buffer
	b := newBoard(&buf)
	require.False(t, b.terminal)
	b.show([]string{"nothing"})
	_, err := b.Write([]byte("log\n"))
	require.NoError(t, err)
	require.Equal(t, "log\n", buf.String(), "no terminal: only the log")

	buf.Reset()
	b.terminal = true
	b.show([]string{"one", "two"})
	_, err = b.Write([]byte("log\n"))
	require.NoError(t, err)
	b.show(nil)
	lines := "\x1b[2K\x1b[?7lone\x1b[?7h\n\x1b[2K\x1b[?7ltwo\x1b[?7h\n"
	require.Equal(t, lines+"\x1b[2A\x1b[Jlog\n"+lines+"\x1b[2A\x1b[J", buf.String())
}

func TestJobTable(t *testing.T) {
	s := compact.Status{
		Blocks: 7, Marked: 2, Hours: 1.5, SetAside: make([]compact.Noted, 4), Backlog: []compact.Backlog{{Group: "0@1", Labels: `{a="b"}`, Jobs: map[string]int{"compact": 3}, Blocks: 9, Bytes: 5 << 20, Hours: 1.5}},
		Running: []compact.RunningJob{{Share: 0.25, Left: 90, Stage: "merging", What: "compact {a=\"b\"} of 3 blocks"}},
	}
	require.Equal(t, []string{
		"5 blocks, 2 more marked for deletion, 3 jobs to do in 1 group, 1 running, 4 set aside, about 1.5h",
		"[=====               ]  25%       2m  merging        compact {a=\"b\"} of 3 blocks",
		"    3 jobs     9 blocks    5.0 MiB  0@1 {a=\"b\"}, about 1.5h",
	}, jobTable(s))
	s.Backlog = slices.Repeat(s.Backlog, 7)
	lines := jobTable(s)
	require.Len(t, lines, 2+5+1)
	require.Equal(t, "         … and 2 more groups", lines[len(lines)-1])
	require.Equal(t, []string{"looking for blocks"}, jobTable(compact.Status{Ready: "looking for blocks"}))
	require.Equal(t, "[====================]", bar(2, 20))
	require.Equal(t, "abc…", clip("abcdef", 4))
}
