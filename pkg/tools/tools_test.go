package tools_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/tools"
)

func TestMain(m *testing.M) { proctest.Main(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

const hour = int64(3_600_000)

// counting counts what is asked of a bucket.
type counting struct {
	bucket.Bucket
	calls []string
}

func counted(b bucket.Bucket) *counting {
	c := &counting{}
	c.Bucket = bucket.WithFaults(b, func(_ context.Context, point, object string) error {
		if op, ok := strings.CutSuffix(strings.TrimPrefix(point, "bucket/"), "/before"); ok {
			c.calls = append(c.calls, op+" "+object)
		}
		return nil
	})
	return c
}

// id is a ULID that is the same in each run.
func id(n int) ulid.ULID {
	return ulid.MustNew(uint64(1_700_000_000_000+n), bytes.NewReader(make([]byte, 10)))
}

// ship uploads a block of hours, with two series, of cluster.
func ship(t *testing.T, b block.Bucket, n int, from, to int64, cluster string) block.Meta {
	t.Helper()
	dir := t.TempDir()
	var series []blocktest.Series
	for _, name := range []string{"up", "down"} {
		series = append(series, blocktest.Series{Labels: labels.FromStrings("__name__", name), Samples: blocktest.Floats(from*hour, to*hour, 15_000, func(t int64) float64 { return float64(t) })})
	}
	m := blocktest.Write(t, dir, series, labels.FromStrings("cluster", cluster), blocktest.Options{ID: id(n), MinTime: from * hour, MaxTime: to * hour})
	return blocktest.Upload(t, b, dir, m)
}

// look is a Look with flags.
func look(t *testing.T, args ...string) *tools.Look {
	t.Helper()
	var l tools.Look
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	l.RegisterFlags(fs)
	require.NoError(t, fs.Parse(args))
	require.NoError(t, l.Validate())
	return &l
}

func TestListingTenThousandBlocksReadsOneManifest(t *testing.T) {
	b := bucket.NewMemory()
	var meta string
	for i := range 10_000 {
		m := block.Meta{ULID: id(i), Version: 1, MinTime: int64(i) * hour, MaxTime: int64(i+2) * hour}
		m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
		m.Thanos.Labels = map[string]string{"cluster": fmt.Sprint(i % 10)}
		data, err := m.Encode()
		require.NoError(t, err)
		meta = block.Name(m.ULID, block.MetaFilename)
		require.NoError(t, b.Upload(t.Context(), meta, bytes.NewReader(data)))
	}
	f, err := block.NewFetcher(block.FetcherConfig{Concurrency: 4, Strategy: block.StrategyRecursive, Owner: "test", ListInterval: model.Duration(time.Minute), KeepDuplicates: true}, b, "", quiet, prometheus.NewRegistry())
	require.NoError(t, err)
	at := time.Now()
	f.SetClock(func() time.Time { return at })
	for range 2 { // a manifest that was compared with one listing only is not believed
		_, err = f.Fetch(t.Context())
		require.NoError(t, err)
		require.NoError(t, f.Publish(t.Context()))
		at = at.Add(time.Hour)
	}

	c := counted(b)
	v, err := look(t).In(t.Context(), c, quiet)
	require.NoError(t, err)
	require.True(t, v.FromManifest)
	require.Len(t, tools.Rows(v), 10_000)
	require.Equal(t, []string{"get_if firnline/manifest", "list firnline/manifest.d/"}, c.calls)
}

func TestLookChooses(t *testing.T) {
	b := bucket.NewMemory()
	ship(t, b, 1, 0, 2, "a")
	ship(t, b, 2, 2, 4, "b")
	for name, tc := range map[string]struct {
		args []string
		want int
	}{
		"all":        {nil, 2},
		"label":      {[]string{`--selector=cluster="a"`}, 1},
		"braces":     {[]string{`--selector={cluster=~"a|b"}`, `--selector=cluster!="b"`}, 1},
		"time":       {[]string{"--max-time=1970-01-01T01:00:00Z"}, 1},
		"relabel":    {[]string{"--selector.relabel-config=[{action: drop, source_labels: [cluster], regex: a}]"}, 1},
		"not a time": {[]string{"--min-time=-1h"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := look(t, tc.args...).In(t.Context(), b, quiet)
			require.NoError(t, err)
			require.Len(t, v.Metas, tc.want)
		})
	}
	var l tools.Look
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	l.RegisterFlags(fs)
	require.NoError(t, fs.Parse([]string{"--selector=cluster"}))
	require.ErrorContains(t, l.Validate(), `--selector: "cluster"`)
}

func TestForeignBucket(t *testing.T) {
	b := bucket.NewMemory()
	_, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err, "an empty bucket is fine")
	require.NoError(t, b.Upload(t.Context(), "firnline/manifest.d/x", strings.NewReader("")))
	_, err = look(t).In(t.Context(), b, quiet)
	require.NoError(t, err, "so is one that had blocks")
	require.NoError(t, b.Upload(t.Context(), "photos/cat.jpg", strings.NewReader("")))
	_, err = look(t).In(t.Context(), b, quiet)
	require.ErrorIs(t, err, tools.ErrForeign)
	require.ErrorContains(t, err, "photos/")
}

func TestSortBy(t *testing.T) {
	b := bucket.NewMemory()
	ship(t, b, 1, 0, 4, "b")
	ship(t, b, 2, 4, 6, "a")
	ship(t, b, 3, 6, 8, "a")
	v, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	rows := tools.Rows(v)
	order := func() (out []ulid.ULID) {
		for _, r := range rows {
			out = append(out, r.ULID)
		}
		return out
	}
	require.Equal(t, []ulid.ULID{id(1), id(2), id(3)}, order())
	require.NoError(t, tools.SortBy(rows, []string{"Labels", "from"}))
	require.Equal(t, []ulid.ULID{id(2), id(3), id(1)}, order())
	require.ErrorContains(t, tools.SortBy(rows, []string{"beauty"}), "there are chunks, from")
}

func TestMarking(t *testing.T) {
	b := bucket.NewMemory()
	ship(t, b, 1, 0, 2, "a")
	for _, name := range tools.MarkNames() {
		m := tools.Marking{Blocks: []ulid.ULID{id(1)}, Mark: strings.TrimSuffix(name, ".json"), Details: "why"}
		require.NoError(t, m.Check())
		require.NoError(t, m.Do(t.Context(), b, quiet))
	}
	d, err := block.ReadDeletionMark(t.Context(), b, id(1))
	require.NoError(t, err)
	require.Equal(t, "why", d.Details)
	v, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	require.Equal(t, []string{"deletion", "no-compact", "no-downsample"}, tools.Rows(v)[0].Marks)
	require.Equal(t, tools.StateMarked, tools.Rows(v)[0].State)

	off := tools.Marking{Blocks: []ulid.ULID{id(1)}, Mark: block.DeletionMarkFilename, Remove: true}
	require.NoError(t, off.Do(t.Context(), b, quiet))
	_, err = block.ReadDeletionMark(t.Context(), b, id(1))
	require.ErrorIs(t, err, block.ErrNoMark)

	require.NoError(t, b.Delete(t.Context(), block.Name(id(1), block.MetaFilename)))
	several := tools.Marking{Blocks: []ulid.ULID{id(1), id(9)}, Mark: block.DeletionMarkFilename}
	err = several.Do(t.Context(), b, quiet)
	require.ErrorIs(t, err, block.ErrPartial)
	require.ErrorIs(t, err, tools.ErrNoBlock)
	require.ErrorContains(t, (&tools.Marking{Blocks: several.Blocks, Mark: "x"}).Check(), "no mark")
}

// findings verifies a whole bucket and returns kind and block of what is found.
func findings(t *testing.T, b block.Bucket, full bool) []string {
	t.Helper()
	view, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	v := tools.Verification{Bucket: b, Full: full, Dir: t.TempDir(), Concurrency: 2, Gap: time.Minute}
	found, err := v.Blocks(t.Context(), view)
	require.NoError(t, err)
	out := []string{}
	for _, f := range found {
		out = append(out, fmt.Sprintf("%s %s %d", f.Severity, f.Kind, int64(f.Block.Time())-1_700_000_000_000))
	}
	return out
}

func TestVerify(t *testing.T) {
	b := bucket.NewMemory()
	ship(t, b, 1, 0, 2, "a")
	ship(t, b, 2, 2, 4, "a")
	ship(t, b, 3, 0, 2, "b")
	require.Empty(t, findings(t, b, false))
	require.Empty(t, findings(t, b, true))

	ship(t, b, 4, 3, 5, "a")
	ship(t, b, 5, 6, 8, "a")
	require.Equal(t, []string{"warning overlap 4", "warning gap 5"}, findings(t, b, false))
	require.NoError(t, block.WriteDeletionMark(t.Context(), b, block.DeletionMark{ID: id(4), DeletionTime: 1}))
	require.Equal(t, []string{"warning gap 5"}, findings(t, b, false), "what is marked doesn't count")

	change := func(rel string, do func([]byte) []byte) {
		name := block.Name(id(2), rel)
		was := b.Objects()[name]
		require.NoError(t, b.Upload(t.Context(), name, bytes.NewReader(do(bytes.Clone(was)))))
	}
	segment := b.Objects()[block.Name(id(2), "chunks/000001")]
	flip := func(at int) func([]byte) []byte {
		return func(data []byte) []byte { data[at] ^= 1; return data }
	}
	change("chunks/000001", flip(len(segment)/2))
	require.Contains(t, findings(t, b, true), "error index 2", "every chunk is looked at")
	change("chunks/000001", flip(len(segment)/2))
	change("index", flip(30))
	require.Contains(t, findings(t, b, false), "error index 2")
	change("index", flip(30))
	change("chunks/000001", func(d []byte) []byte { return d[:len(d)-1] })
	require.Contains(t, findings(t, b, false), "error meta 2")
	change("meta.json", func([]byte) []byte { return []byte("{") })
	require.NoError(t, b.Delete(t.Context(), block.Name(id(3), block.MetaFilename)))
	got := findings(t, b, false)
	require.Contains(t, got, "error broken 2")
	require.Contains(t, got, "warning partial 3")
}

func TestStats(t *testing.T) {
	b := bucket.NewMemory()
	first := ship(t, b, 1, 0, 2, "a")
	second := ship(t, b, 2, 2, 6, "a")
	ship(t, b, 3, 0, 2, "b")
	require.NoError(t, block.WriteDeletionMark(t.Context(), b, block.DeletionMark{ID: id(3), DeletionTime: 1}))
	require.NoError(t, b.Upload(t.Context(), block.Name(id(4), "index"), strings.NewReader("x")))
	v, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	s := tools.Stats(tools.Rows(v))
	require.Equal(t, [4]int{3, 1, 1, 0}, [4]int{s.Blocks, s.Marked, s.Partial, s.Broken})
	require.Len(t, s.Groups, 2)
	g := s.Groups[0]
	require.Equal(t, 2, g.Blocks)
	require.Equal(t, first.SizeBytes()+second.SizeBytes(), g.Bytes)
	require.Equal(t, uint64(2*6*240), g.Samples)
	require.Equal(t, []int64{0, 6 * hour}, []int64{g.Oldest.UnixMilli(), g.Newest.UnixMilli()})
}

func TestDownloadIsTheBlock(t *testing.T) {
	b := bucket.NewMemory()
	m := ship(t, b, 1, 0, 2, "a")
	dir, err := tools.Download(t.Context(), b, &m, t.TempDir())
	require.NoError(t, err)
	for _, rel := range []string{"index", "chunks/000001", "meta.json"} {
		got, err := os.ReadFile(filepath.Join(dir, rel))
		require.NoError(t, err)
		require.Equal(t, b.Objects()[block.Name(m.ULID, rel)], got, rel)
	}
	lost := bucket.WithFaults(b, func(_ context.Context, point, _ string) error {
		if point == "bucket/get/before" {
			return errors.New("gone")
		}
		return nil
	})
	_, err = tools.Download(t.Context(), lost, &m, t.TempDir())
	require.ErrorContains(t, err, "gone")
}
