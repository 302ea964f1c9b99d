package input_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// BenchmarkSymbols reads the symbols of an index with 60,000 of them, against a
// walk over Prometheus' symbols of a mapped file.
func BenchmarkSymbols(b *testing.B) {
	bkt, m, dir := wideBlock(b)
	remote, err := block.OpenRemote(b.Context(), bkt, m, nil)
	require.NoError(b, err)
	toc, err := remote.TOC(b.Context())
	require.NoError(b, err)
	b.Run("firnline", func(b *testing.B) {
		b.SetBytes(toc.Symbols.Len())
		b.ReportAllocs()
		for b.Loop() {
			r, err := input.Open(b.Context(), bkt, m, input.Config{})
			require.NoError(b, err)
			s := r.Symbols(b.Context())
			for s.Next() {
				_ = s.At()
			}
			require.NoError(b, s.Err())
			require.NoError(b, r.Close())
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		b.SetBytes(toc.Symbols.Len())
		b.ReportAllocs()
		for b.Loop() {
			r, err := index.NewFileReader(filepath.Join(dir, block.IndexFilename), index.DecodePostingsRaw)
			require.NoError(b, err)
			it := r.Symbols()
			for it.Next() {
				_ = it.At()
			}
			require.NoError(b, it.Err())
			require.NoError(b, r.Close())
		}
	})
}

// BenchmarkSeries reads the entries of an index, against Prometheus' reader of a
// mapped file. Bytes are those of the index's series section.
func BenchmarkSeries(b *testing.B) {
	bkt, m, dir := upload(b, series(5000, 1200), blocktest.Options{})
	remote, err := block.OpenRemote(b.Context(), bkt, m, nil)
	require.NoError(b, err)
	toc, err := remote.TOC(b.Context())
	require.NoError(b, err)
	b.Run("firnline", func(b *testing.B) {
		b.SetBytes(toc.Series.Len())
		b.ReportAllocs()
		for b.Loop() {
			r, err := input.Open(b.Context(), bkt, m, input.Config{})
			require.NoError(b, err)
			for err == nil {
				_, err = r.Next(b.Context())
			}
			require.Equal(b, io.EOF, err)
			require.NoError(b, r.Close())
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		b.SetBytes(toc.Series.Len())
		b.ReportAllocs()
		for b.Loop() {
			r, err := index.NewFileReader(filepath.Join(dir, block.IndexFilename), index.DecodePostingsRaw)
			require.NoError(b, err)
			all, err := r.Postings(b.Context(), "", "")
			require.NoError(b, err)
			var lb labels.ScratchBuilder
			var metas []chunks.Meta
			for all.Next() {
				err = errors.Join(err, r.Series(all.At(), &lb, &metas))
				_ = lb.Labels()
			}
			require.NoError(b, err)
			require.NoError(b, r.Close())
		}
	})
}

// BenchmarkChunks reads the chunks of a block in order, against Prometheus'
// reader of mapped segments.
func BenchmarkChunks(b *testing.B) {
	bkt, m, dir := upload(b, series(2000, 1200), blocktest.Options{})
	var refs []uint64
	r, err := input.Open(b.Context(), bkt, m, input.Config{})
	require.NoError(b, err)
	for {
		s, err := r.Next(b.Context())
		if err == io.EOF {
			break
		}
		require.NoError(b, err)
		for _, c := range s.Chunks {
			refs = append(refs, c.Ref)
		}
	}
	require.NoError(b, r.Close())
	extent, _ := m.Extent()
	b.Run("firnline", func(b *testing.B) {
		b.SetBytes(extent.SegmentBytes)
		b.ReportAllocs()
		for b.Loop() {
			r, err := input.Open(context.Background(), bkt, m, input.Config{})
			require.NoError(b, err)
			for _, ref := range refs {
				if _, _, err = r.Chunk(b.Context(), ref); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, r.Close())
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		b.SetBytes(extent.SegmentBytes)
		b.ReportAllocs()
		for b.Loop() {
			r, err := chunks.NewDirReader(filepath.Join(dir, block.ChunksDirname), nil)
			require.NoError(b, err)
			for _, ref := range refs {
				if _, _, err = r.ChunkOrIterable(chunks.Meta{Ref: chunks.ChunkRef(ref)}); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, r.Close())
		}
	})
}
