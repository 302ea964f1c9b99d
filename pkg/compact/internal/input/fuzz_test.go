package input_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// crafted makes an index of the given symbols and series sections, all of whose
// checksums are right but those within the series, and a segment.
func crafted(t *testing.T, symbols, series, segment []byte) (block.Bucket, *block.Meta) {
	b := binary.BigEndian.AppendUint32(nil, 0xBAAAD700)
	b = append(b, layout.IndexVersion)
	at := []int{len(b)}
	b = binary.BigEndian.AppendUint32(b, uint32(len(symbols)))
	b = binary.BigEndian.AppendUint32(append(b, symbols...), layout.Sum(symbols))
	at = append(at, len(b))
	b = append(b, make([]byte, layout.AlignSeries(int64(len(b)))-int64(len(b)))...)
	b = append(b, series...)
	at = append(at, len(b), len(b), len(b), len(b))
	b = append(b, make([]byte, 12)...)
	var toc []byte
	for _, off := range at {
		toc = binary.BigEndian.AppendUint64(toc, uint64(off))
	}
	b = binary.BigEndian.AppendUint32(append(b, toc...), layout.Sum(toc))

	bkt, m := bucket.NewMemory(), &block.Meta{Version: 1}
	put(t, bkt, block.Name(m.ULID, block.IndexFilename), b)
	put(t, bkt, block.Name(m.ULID, "chunks/000001"), append(binary.BigEndian.AppendUint64(nil, 0x85BD40DD_01000000), segment...))
	return bkt, m
}

// TestPadding: zeroes behind the last series are taken for padding where all
// series have been read, and else for what a disk has lost.
func TestPadding(t *testing.T) {
	content := []byte{1, 0, 0, 0} // one label, no chunks
	entry := append(binary.AppendUvarint(nil, uint64(len(content))), content...)
	entry = binary.BigEndian.AppendUint32(entry, layout.Sum(content)) // 9 bytes
	two := slices.Concat(entry, make([]byte, 7), entry)
	read := func(section []byte, stats uint64) (n int, err error) {
		bkt, m := crafted(t, []byte("\x00\x00\x00\x01\x00"), section, nil)
		m.Stats.NumSeries = stats
		b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: 20})
		require.NoError(t, err)
		defer b.Close()
		for {
			if _, err = b.Next(t.Context()); err != nil {
				return n, err
			}
			n++
		}
	}
	for _, padding := range []int{0, 1, 7, 8, 23, 100, 5000} {
		section := slices.Concat(two, make([]byte, padding))
		n, err := read(section, 2)
		require.Equal(t, io.EOF, err, padding)
		require.Equal(t, 2, n)
		n, err = read(section, 3)
		require.Equal(t, 2, n)
		if padding > 7 {
			require.ErrorIs(t, err, block.ErrCorrupt, "a series is missing")
			section[len(section)-1] = 1
			_, err = read(section, 2)
			require.ErrorIs(t, err, block.ErrCorrupt, "not only zeroes")
		}
	}
}

// FuzzSymbols: the stream gives what a plain reading of the section gives, by
// windows of any length, and an error where that has one.
func FuzzSymbols(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03\x00\x01a\x02bc"), uint16(3))
	f.Add([]byte("\x00\x00\x00\x02\x01b\x01a"), uint16(1))
	f.Add([]byte("\xff\xff\xff\xff\x01b"), uint16(8))
	f.Add([]byte("\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), uint16(0))
	f.Fuzz(func(t *testing.T, section []byte, window uint16) {
		bkt, m := crafted(t, section, nil, nil)
		want, ok := plainSymbols(section)
		b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: int64(window)})
		require.NoError(t, err)
		defer b.Close()
		got, err := readSymbols(t.Context(), b)
		if !ok {
			require.ErrorIs(t, err, block.ErrCorrupt)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// plainSymbols is the slow twin of the stream.
func plainSymbols(b []byte) (out []string, ok bool) {
	if len(b) < 4 {
		return nil, false
	}
	n := binary.BigEndian.Uint32(b)
	for b = b[4:]; n > 0; n-- {
		l, w := binary.Uvarint(b)
		if w <= 0 || l > uint64(len(b)-w) {
			return nil, false
		}
		out = append(out, string(b[w:w+int(l)]))
		b = b[w+int(l):]
	}
	return out, len(b) == 0 && slices.IsSorted(out) && len(slices.Compact(slices.Clone(out))) == len(out)
}

// FuzzSections: whatever stands where series and chunks should, reading comes to
// an end or an error, in memory that the bytes justify.
func FuzzSections(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\xf1\x6a\xc7\xd2"), []byte("\x02\x01\x00\x01\x00\x00\x00\x00"), uint16(5), uint32(8))
	_, segment := realSections(f)
	f.Add(bytes.Repeat([]byte{0}, 40), segment, uint16(100), uint32(8))
	series, segment := realSections(f)
	f.Add(series, segment, uint16(7), uint32(9))
	f.Fuzz(func(t *testing.T, series, segment []byte, window uint16, ref uint32) {
		bkt, m := crafted(t, []byte{0, 0, 0, 0}, series, segment)
		b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: int64(window)})
		require.NoError(t, err)
		defer b.Close()
		for n := 0; ; n++ {
			s, err := b.Next(t.Context())
			if err == io.EOF {
				break
			}
			if err != nil {
				require.ErrorIs(t, err, block.ErrCorrupt)
				break
			}
			require.LessOrEqual(t, n, len(series)/16)
			require.LessOrEqual(t, len(s.Labels)+len(s.Chunks), len(series))
		}
		if _, data, err := b.Chunk(t.Context(), uint64(ref)); err == nil {
			require.Less(t, len(data), len(segment))
		} else {
			require.ErrorIs(t, err, block.ErrCorrupt)
		}
	})
}

// realSections are those of a block that Prometheus' writers made.
func realSections(f *testing.F) (entries, segment []byte) {
	bkt, m, _ := upload(f, series(2, 20), blocktest.Options{})
	index := bkt.Objects()[block.Name(m.ULID, block.IndexFilename)]
	toc, err := layout.ParseTOC(index[len(index)-layout.TOCLen:], int64(len(index)))
	require.NoError(f, err)
	from := layout.AlignSeries(toc.Series.Start)
	return index[from:toc.Series.End], bkt.Objects()[block.Name(m.ULID, "chunks/000001")][8:]
}
