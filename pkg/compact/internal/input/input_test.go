package input_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// dump is all that a block holds, as text.
type dump []string

// readAll reads a block through the package.
func readAll(ctx context.Context, bkt block.Bucket, m *block.Meta, window int64) (out dump, reads input.Reads, err error) {
	b, err := input.Open(ctx, bkt, m, input.Config{WindowBytes: window})
	if err != nil {
		return nil, reads, err
	}
	defer func() { err = errors.Join(err, b.Close()); reads = b.Reads() }()
	var symbols []string
	ss := b.Symbols(ctx)
	for ss.Next() {
		symbols = append(symbols, string(ss.At()))
	}
	if ss.Err() != nil {
		return nil, reads, ss.Err()
	}
	for {
		s, err := b.Next(ctx)
		if err == io.EOF {
			return out, reads, nil
		}
		if err != nil {
			return out, reads, err
		}
		var lb labels.ScratchBuilder
		for _, l := range s.Labels {
			lb.Add(symbols[l.Name], symbols[l.Value])
		}
		out = append(out, lb.Labels().String())
		for _, c := range s.Chunks {
			enc, data, err := b.Chunk(ctx, c.Ref)
			if err != nil {
				return out, reads, err
			}
			out = append(out, fmt.Sprintf("%d-%d %v %x", c.MinTime, c.MaxTime, enc, data))
		}
	}
}

// twin reads a local block by Prometheus' readers.
func twin(t testing.TB, dir string) dump {
	r, err := index.NewFileReader(filepath.Join(dir, block.IndexFilename), index.DecodePostingsRaw)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	cr, err := chunks.NewDirReader(filepath.Join(dir, block.ChunksDirname), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, cr.Close()) }()
	all, err := r.Postings(context.Background(), "", "")
	require.NoError(t, err)
	var out dump
	var b labels.ScratchBuilder
	var metas []chunks.Meta
	for all.Next() {
		require.NoError(t, r.Series(all.At(), &b, &metas))
		out = append(out, b.Labels().String())
		for _, m := range metas {
			c, _, err := cr.ChunkOrIterable(m)
			require.NoError(t, err)
			out = append(out, fmt.Sprintf("%d-%d %v %x", m.MinTime, m.MaxTime, c.Encoding(), c.Bytes()))
		}
	}
	require.NoError(t, all.Err())
	return out
}

// series are n floats with k samples each and one of each kind of histogram.
func series(n int, k int64) []blocktest.Series {
	var h, fh, custom []blocktest.Sample
	for i := range k {
		t := i * 15_000
		h = append(h, blocktest.Sample{T: t, ST: 1, H: blocktest.Histogram(i)})
		fh = append(fh, blocktest.Sample{T: t, ST: 1, FH: blocktest.FloatHistogram(i)})
		custom = append(custom, blocktest.Sample{T: t, ST: 1, H: blocktest.CustomBuckets(i)})
	}
	out := []blocktest.Series{
		{Labels: labels.FromStrings("__name__", "h"), Samples: h},
		{Labels: labels.FromStrings("__name__", "fh"), Samples: fh},
		{Labels: labels.FromStrings("__name__", "custom"), Samples: custom},
	}
	for i := range n {
		out = append(out, blocktest.Series{
			Labels:  labels.FromStrings("__name__", fmt.Sprintf("metric_%03d", i%17), "instance", fmt.Sprintf("host-%05d", i), "job", "x"),
			Samples: blocktest.Floats(0, k*15_000, 15_000, func(t int64) float64 { return float64((t*7919 + int64(i)) % 104729) }),
		})
	}
	return out
}

// upload writes a block, puts it into a bucket of its own and returns its folder too.
func upload(t testing.TB, in []blocktest.Series, opts blocktest.Options) (*bucket.Memory, *block.Meta, string) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	m := blocktest.Write(t, dir, in, labels.FromStrings("cluster", "a"), opts)
	m = blocktest.Upload(t, bkt, dir, m)
	return bkt, &m, filepath.Join(dir, m.ULID.String())
}

// TestReadAll: whatever the encoding, the segments and the window, a block reads
// as Prometheus reads it.
func TestReadAll(t *testing.T) {
	for name, opts := range map[string]blocktest.Options{
		"default":          {},
		"xor2":             {XOR2: true},
		"start timestamps": {StartTimestamps: true},
		"many segments":    {SegmentBytes: 4096, SamplesPerChunk: 7},
	} {
		t.Run(name, func(t *testing.T) {
			bkt, m, dir := upload(t, series(40, 300), opts)
			want := twin(t, dir)
			for _, window := range []int64{0, 1, 3, 16, 100, 1000, 10_000, 1 << 20} {
				got, _, err := readAll(t.Context(), bkt, m, window)
				require.NoError(t, err)
				require.Equal(t, want, got, "window %d", window)
			}
		})
	}
}
