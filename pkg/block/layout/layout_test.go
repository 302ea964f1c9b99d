package layout_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/layout"
)

// encode writes a series entry's content as the TSDB does.
func encode(s layout.Series) []byte {
	var b encoding.Encbuf
	b.PutUvarint(len(s.Labels))
	for _, l := range s.Labels {
		b.PutUvarint32(l.Name)
		b.PutUvarint32(l.Value)
	}
	b.PutUvarint(len(s.Chunks))
	var last layout.Chunk
	for i, c := range s.Chunks {
		if i == 0 {
			b.PutVarint64(c.MinTime)
			b.PutUvarint64(uint64(c.MaxTime - c.MinTime))
			b.PutUvarint64(c.Ref)
		} else {
			b.PutUvarint64(uint64(c.MinTime - last.MaxTime))
			b.PutUvarint64(uint64(c.MaxTime - c.MinTime))
			b.PutVarint64(int64(c.Ref - last.Ref))
		}
		last = c
	}
	return b.Get()
}

// record puts length and checksum around content.
func record(kind layout.Frame, content []byte) []byte {
	var b []byte
	switch kind {
	case layout.PostingsRecord:
		b = binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	case layout.SeriesRecord:
		b = binary.AppendUvarint(nil, uint64(len(content)))
	case layout.ChunkRecord:
		b = binary.AppendUvarint(nil, uint64(len(content)-1))
	}
	b = append(b, content...)
	return binary.BigEndian.AppendUint32(b, layout.Sum(content))
}

// TestSeriesDecode: random entries, out-of-order and overlapping chunks among
// them, come out as they went in. A failure prints the seed.
func TestSeriesDecode(t *testing.T) {
	var got layout.Series
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		want := layout.Series{Labels: []layout.Label{}, Chunks: []layout.Chunk{}}
		name := uint32(0)
		for range r.IntN(6) {
			name += 1 + r.Uint32N(300)
			want.Labels = append(want.Labels, layout.Label{Name: name, Value: r.Uint32()})
		}
		at, ref := r.Int64N(1<<42)-1<<41, r.Uint64N(1<<60)
		for range r.IntN(6) {
			c := layout.Chunk{MinTime: at, MaxTime: at + r.Int64N(1<<r.IntN(40)), Ref: ref}
			want.Chunks = append(want.Chunks, c)
			at += r.Int64N(1<<30) - 1<<28
			ref += r.Uint64N(1<<20) - 1<<10
		}
		require.NoError(t, got.Decode(encode(want)), "seed %d", seed)
		require.Equal(t, want.Labels, append([]layout.Label{}, got.Labels...), "seed %d", seed)
		require.Equal(t, want.Chunks, append([]layout.Chunk{}, got.Chunks...), "seed %d", seed)
	}
}

func TestSeriesDecodeRefuses(t *testing.T) {
	for name, s := range map[string]layout.Series{
		"label twice":         {Labels: []layout.Label{{Name: 1, Value: 2}, {Name: 1, Value: 3}}},
		"labels out of order": {Labels: []layout.Label{{Name: 2, Value: 2}, {Name: 1, Value: 3}}},
		"chunk ends early":    {Chunks: []layout.Chunk{{MinTime: 5, MaxTime: 4, Ref: 8}}},
	} {
		require.Error(t, new(layout.Series).Decode(encode(s)), name)
	}
	require.Error(t, new(layout.Series).Decode(append(encode(layout.Series{}), 0)), "bytes behind")
	require.Error(t, new(layout.Series).Decode([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}), "a count far beyond the bytes")
}

// TestFrame: records of every kind, and what is wrong with them.
func TestFrame(t *testing.T) {
	for _, kind := range []layout.Frame{layout.PostingsRecord, layout.SeriesRecord, layout.ChunkRecord} {
		for _, n := range []int{2, 100, 127, 128, 129, 40_000} {
			content := slices.Repeat([]byte{7}, n)
			rec := record(kind, content)
			got, size, err := kind.Content(append(slices.Clone(rec), 1, 2, 3))
			require.NoError(t, err)
			require.EqualValues(t, len(rec), size)
			require.Equal(t, content, got)
			require.Equal(t, content, kind.Strip(rec))

			for cut := range rec {
				got, size, err := kind.Content(rec[:cut])
				require.NoError(t, err)
				require.Nil(t, got)
				require.Greater(t, size, int64(cut))
			}
			rec[len(rec)/2] ^= 1
			_, _, err = kind.Content(rec)
			require.ErrorIs(t, err, layout.ErrChecksum)
		}
	}
	for _, kind := range []layout.Frame{layout.SeriesRecord, layout.ChunkRecord} {
		_, _, err := kind.Content([]byte{0, 0, 0, 0, 0})
		require.ErrorIs(t, err, layout.ErrLength)
		_, _, err = kind.Content(binary.AppendUvarint(nil, layout.MaxRecord+1))
		require.ErrorIs(t, err, layout.ErrLength)
	}
}

// indexBytes are those of a small real index.
func indexBytes(t testing.TB) []byte {
	dir := t.TempDir()
	in := []blocktest.Series{
		{Labels: labels.FromStrings("__name__", "a"), Samples: blocktest.Floats(0, 100, 10, func(t int64) float64 { return float64(t) })},
		{Labels: labels.FromStrings("__name__", "b", "x", "y"), Samples: blocktest.Floats(0, 100, 10, func(t int64) float64 { return 1 })},
	}
	m := blocktest.Write(t, dir, in, labels.EmptyLabels(), blocktest.Options{SamplesPerChunk: 5})
	data, err := os.ReadFile(filepath.Join(dir, m.ULID.String(), block.IndexFilename))
	require.NoError(t, err)
	return data
}

// TestIndex reads all that layout knows off an index that Prometheus wrote.
func TestIndex(t *testing.T) {
	b := indexBytes(t)
	version, err := layout.IndexHead(b)
	require.NoError(t, err)
	require.EqualValues(t, layout.IndexVersion, version)
	toc, err := layout.ParseTOC(b[len(b)-layout.TOCLen:], int64(len(b)))
	require.NoError(t, err)
	for name, at := range map[string]layout.Span{"symbols": toc.Symbols, "postings table": toc.PostingsTable} {
		content, _, err := layout.PostingsRecord.Content(b[at.Start:at.End])
		require.NoError(t, err, name)
		require.NotNil(t, content, name)
	}
	list, ok, err := layout.AllPostings(b[toc.PostingsTable.Start:])
	require.NoError(t, err)
	require.True(t, ok)
	n, err := layout.PostingsCount(b[list:])
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	content, size, err := layout.PostingsRecord.Content(b[list:])
	require.NoError(t, err)
	require.NotNil(t, content)
	require.Equal(t, layout.PostingsLen(n), size)

	r, err := index.NewReader(byteSlice(b), index.DecodePostingsRaw)
	require.NoError(t, err)
	all, err := r.Postings(t.Context(), "", "")
	require.NoError(t, err)
	at := layout.AlignSeries(toc.Series.Start)
	for i := int64(0); all.Next(); i++ {
		require.Equal(t, at, layout.SeriesOffset(b[list+layout.PostingsHeadLen+i*layout.RefLen:]))
		content, size, err := layout.SeriesRecord.Content(b[at:])
		require.NoError(t, err)
		var s layout.Series
		require.NoError(t, s.Decode(content))
		requireSame(t, r, all, &s)
		at = layout.AlignSeries(at + size)
	}
	require.Equal(t, at, layout.AlignSeries(toc.Series.End))
}

func requireSame(t *testing.T, r *index.Reader, at index.Postings, s *layout.Series) {
	var lb labels.ScratchBuilder
	var metas []chunks.Meta
	require.NoError(t, r.Series(at.At(), &lb, &metas))
	require.Len(t, s.Labels, lb.Labels().Len())
	require.Len(t, s.Chunks, len(metas))
	for i, m := range metas {
		require.Equal(t, layout.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Ref: uint64(m.Ref)}, s.Chunks[i])
	}
}

type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// TestParseTOC: the indices of label values that old writers left between the
// sections belong to none; sections out of order are refused.
func TestParseTOC(t *testing.T) {
	parse := func(offsets ...uint64) (layout.TOC, error) {
		var b []byte
		for _, off := range offsets {
			b = binary.BigEndian.AppendUint64(b, off)
		}
		return layout.ParseTOC(binary.BigEndian.AppendUint32(b, layout.Sum(b)), 1000)
	}
	toc, err := parse(5, 100, 200, 400, 300, 500) // symbols, series, labels, their table, postings, their table
	require.NoError(t, err)
	require.Equal(t, layout.TOC{
		Symbols: layout.Span{Start: 5, End: 100}, Series: layout.Span{Start: 100, End: 200},
		Postings: layout.Span{Start: 300, End: 400}, PostingsTable: layout.Span{Start: 500, End: 948},
	}, toc)
	toc, err = parse(5, 100, 0, 0, 300, 500)
	require.NoError(t, err)
	require.Equal(t, layout.Span{Start: 100, End: 300}, toc.Series)
	require.Equal(t, layout.Span{Start: 300, End: 500}, toc.Postings)
	for _, bad := range [][]uint64{
		{4, 100, 0, 0, 300, 500}, {5, 4, 0, 0, 300, 500}, {5, 301, 0, 0, 300, 500}, {5, 100, 0, 0, 501, 500},
		{5, 100, 0, 0, 300, 948}, {1 << 63, 100, 0, 0, 300, 500}, {5, 100, 0, 0, 300, 1 << 63},
	} {
		_, err := parse(bad...)
		require.Error(t, err, bad)
	}
}

// FuzzSeries: what is decoded encodes to what decodes to the same, and takes no
// more memory than the input justifies.
func FuzzSeries(f *testing.F) {
	f.Add(encode(layout.Series{}))
	f.Add(encode(layout.Series{
		Labels: []layout.Label{{Name: 1, Value: 2}, {Name: 300, Value: 5}},
		Chunks: []layout.Chunk{{MinTime: 1, MaxTime: 9, Ref: 8}, {MinTime: 5, MaxTime: 20, Ref: 1 << 33}, {MinTime: 3, MaxTime: 3, Ref: 9}},
	}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again layout.Series
		if s.Decode(b) != nil {
			return
		}
		require.LessOrEqual(t, 2*len(s.Labels)+3*len(s.Chunks), len(b))
		require.NoError(t, again.Decode(encode(s)))
		require.Equal(t, s.Labels, again.Labels)
		require.Equal(t, s.Chunks, again.Chunks)
	})
}

// FuzzTOC: sections lie in order within the index, whatever the table says.
func FuzzTOC(f *testing.F) {
	b := indexBytes(f)
	f.Add(b[len(b)-layout.TOCLen:len(b)-4], int64(len(b)))
	f.Add(make([]byte, 48), int64(1000))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		b = binary.BigEndian.AppendUint32(b, layout.Sum(b)) // else hardly anything gets past the checksum
		toc, err := layout.ParseTOC(b, size)
		if err != nil {
			return
		}
		last := int64(layout.IndexHeadLen)
		for _, s := range []layout.Span{toc.Symbols, toc.Series, toc.Postings, toc.PostingsTable} {
			require.LessOrEqual(t, last, s.Start)
			require.LessOrEqual(t, s.Start, s.End)
			last = s.End
		}
		require.Equal(t, size-layout.TOCLen, last)
	})
}

// FuzzFrame: content lies within what was given and has the checksum that stands behind it.
func FuzzFrame(f *testing.F) {
	for kind := range layout.ChunkRecord + 1 {
		f.Add(uint8(kind), record(kind, []byte("hello")))
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		content, size, err := layout.Frame(kind % 3).Content(b)
		if err != nil || content == nil {
			require.True(t, err != nil || size > int64(len(b)))
			return
		}
		require.LessOrEqual(t, size, int64(len(b)))
		require.Equal(t, binary.BigEndian.Uint32(b[size-crc32.Size:]), layout.Sum(content))
	})
}

// FuzzPostings: the two fixed heads.
func FuzzPostings(f *testing.F) {
	b := indexBytes(f)
	toc, err := layout.ParseTOC(b[len(b)-layout.TOCLen:], int64(len(b)))
	require.NoError(f, err)
	f.Add(b[toc.PostingsTable.Start:])
	f.Add(b[toc.Postings.Start:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := layout.PostingsCount(b); err == nil {
			require.EqualValues(t, layout.PostingsLen(n), 8+int64(binary.BigEndian.Uint32(b)))
		}
		_, _, _ = layout.AllPostings(b)
	})
}
