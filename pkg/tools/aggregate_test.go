package tools_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/tools"
	"github.com/firnline/firnline/pkg/tools/internal/localblock"
)

// coarse uploads a block of 5m of one series, sampled each minute for ten hours.
func coarse(t *testing.T, b block.Bucket, dir string) block.Meta {
	t.Helper()
	d := downsample.NewDownsampler(block.Resolution5m)
	var ts []int64
	var vs []float64
	for at := int64(0); at < 10*hour; at += 60_000 {
		ts, vs = append(ts, at), append(vs, float64(at/60_000))
	}
	require.NoError(t, d.Floats(ts, vs))
	made, err := d.Finish(block.Resolution5m)
	require.NoError(t, err)
	s := blocktest.Series{Labels: labels.FromStrings("__name__", "m")}
	for _, e := range made {
		c, err := localblock.NewAggregate(bytes.Clone(e.Payload))
		require.NoError(t, err)
		s.Chunks = append(s.Chunks, chunks.Meta{MinTime: e.MinTime, MaxTime: e.MaxTime, Chunk: c})
	}
	m := blocktest.Write(t, dir, []blocktest.Series{s}, labels.FromStrings("cluster", "a"), blocktest.Options{ID: id(3), MaxTime: 10 * hour, Resolution: block.Resolution5m})
	return blocktest.Upload(t, b, dir, m)
}

func dumped(t *testing.T, dir string) string {
	t.Helper()
	var text bytes.Buffer
	d := everything(tools.FormatOpenMetrics)
	_, err := d.Blocks(t.Context(), &text, []string{dir})
	require.NoError(t, err)
	return text.String()
}

// TestRewriteOfDownsampled: windows that a deletion touches go, whole, from each
// aggregate; the others stay as they are.
func TestRewriteOfDownsampled(t *testing.T) {
	b, dir := bucket.NewMemory(), t.TempDir()
	m := coarse(t, b, dir)
	was := dumped(t, filepath.Join(dir, m.ULID.String()))
	for _, aggregate := range []string{"count", "sum", "min", "max", "counter"} {
		require.Contains(t, was, fmt.Sprintf("m{%s=%q,cluster=\"a\"} ", tools.AggregateLabel, aggregate))
	}
	require.Contains(t, was, "m{__aggregate__=\"count\",cluster=\"a\"} 5 299.999\n")

	from, to := 3*hour+60_000, 4*hour
	rw := rewriting(t, fmt.Sprintf(`[{matchers: m, intervals: [{mint: %d, maxt: %d}]}]`, from, to), "")
	done, err := rw.Block(t.Context(), tools.RewriteParts{Bucket: b, Log: quiet, Dir: t.TempDir()}, m.ULID)
	require.NoError(t, err)
	require.Equal(t, uint64(13), done.SamplesDropped, "the windows from 3:00 to 4:05")
	next, err := block.FetchMeta(t.Context(), b, done.New)
	require.NoError(t, err)
	require.Equal(t, block.Resolution5m, next.Resolution())
	local, err := tools.Download(t.Context(), b, next, t.TempDir())
	require.NoError(t, err)
	_, err = block.Verify(t.Context(), local)
	require.NoError(t, err)
	left := dumped(t, local)
	for line := range strings.Lines(was) {
		if strings.Contains(line, "counter") {
			continue // it is corrected where the hole is: see downsample.Cut
		}
		var at float64
		_, err := fmt.Sscanf(line[strings.LastIndexByte(line, ' ')+1:], "%f", &at)
		require.NoError(t, err)
		gone := at*1000 > float64(3*hour) && at*1000 < float64(4*hour+300_000)
		require.Equal(t, !gone, strings.Contains(left, line), line)
	}
}
