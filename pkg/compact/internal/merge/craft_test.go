package merge_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/compact/internal/merge"
)

// craft adds a block whose series and chunks stand in the order given, however
// wrong: Prometheus' writers refuse that, foreign ones have not.
func (w *world) craft(replica uint64, mint, maxt int64, series ...blocktest.Series) {
	w.tb.Helper()
	m := &block.Meta{ULID: id(len(w.ids)), Version: 1, MinTime: mint, MaxTime: maxt}
	w.ids = append(w.ids, m.ULID)
	dir := w.tb.TempDir()
	cw, err := chunks.NewWriter(dir)
	require.NoError(w.tb, err)
	for i := range series {
		series[i].Chunks = slices.Clone(series[i].Chunks)
		if len(series[i].Chunks) == 0 {
			series[i].Chunks = blocktest.Chunks(w.tb, series[i].Samples, blocktest.Options{})
		}
		require.NoError(w.tb, cw.WriteChunks(series[i].Chunks...))
	}
	require.NoError(w.tb, cw.Close())
	names, err := os.ReadDir(dir)
	require.NoError(w.tb, err)
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join(dir, n.Name()))
		require.NoError(w.tb, err)
		w.replace(m.ULID.String()+"/"+block.ChunksDirname+"/"+n.Name(), data)
	}
	w.replace(m.ULID.String()+"/"+block.IndexFilename, craftIndex(series))
	w.open(m, replica)
}

func (w *world) open(m *block.Meta, replica uint64) {
	w.tb.Helper()
	src, err := input.Open(w.tb.Context(), w.bkt, m, input.Config{WindowBytes: 64 << 10})
	require.NoError(w.tb, err)
	w.tb.Cleanup(func() { _ = src.Close() })
	w.sources = append(w.sources, merge.Source{Block: src, Replica: replica})
}

// replace puts an object, in the place of what was there.
func (w *world) replace(name string, data []byte) {
	w.tb.Helper()
	require.NoError(w.tb, w.bkt.Upload(w.tb.Context(), name, bytes.NewReader(data)))
}

// craftIndex writes an index with the series as they come, and no postings but
// those of all series.
func craftIndex(series []blocktest.Series) []byte {
	be := binary.BigEndian
	sum := func(b []byte, from int) []byte { return be.AppendUint32(b, layout.Sum(b[from:])) }
	section := func(out, content []byte) []byte {
		out = be.AppendUint32(out, uint32(len(content)))
		return sum(append(out, content...), len(out))
	}
	used := map[string]bool{"": true}
	for _, s := range series {
		s.Labels.Range(func(l labels.Label) { used[l.Name], used[l.Value] = true, true })
	}
	symbols := slices.Sorted(maps.Keys(used))

	out := append(be.AppendUint32(nil, 0xBAAAD700), 2)
	toc := []int64{int64(len(out))}
	content := be.AppendUint32(nil, uint32(len(symbols)))
	for _, s := range symbols {
		content = append(binary.AppendUvarint(content, uint64(len(s))), s...)
	}
	out = section(out, content)
	toc = append(toc, layout.AlignSeries(int64(len(out))))
	var refs []uint32
	for _, s := range series {
		for len(out)%16 != 0 {
			out = append(out, 0)
		}
		refs = append(refs, uint32(len(out)/16))
		entry := craftEntry(symbols, s)
		out = binary.AppendUvarint(out, uint64(len(entry)))
		out = sum(append(out, entry...), len(out))
	}
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	all := len(out)
	content = be.AppendUint32(nil, uint32(len(refs)))
	for _, r := range refs {
		content = be.AppendUint32(content, r)
	}
	out = section(out, content)
	toc = append(toc, 0, 0, int64(all), int64(len(out)))
	content = append(be.AppendUint32(nil, 1), 2, 0, 0)
	out = section(out, binary.AppendUvarint(content, uint64(all)))
	at := len(out)
	for _, o := range toc {
		out = be.AppendUint64(out, uint64(o))
	}
	return sum(out, at)
}

func craftEntry(symbols []string, s blocktest.Series) []byte {
	number := func(x string) uint64 {
		i, _ := slices.BinarySearch(symbols, x)
		return uint64(i)
	}
	b := binary.AppendUvarint(nil, uint64(s.Labels.Len()))
	s.Labels.Range(func(l labels.Label) {
		b = binary.AppendUvarint(binary.AppendUvarint(b, number(l.Name)), number(l.Value))
	})
	b = binary.AppendUvarint(b, uint64(len(s.Chunks)))
	var maxt, ref int64
	for i, c := range s.Chunks {
		if i == 0 {
			b = binary.AppendVarint(b, c.MinTime)
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendUvarint(b, uint64(c.Ref))
		} else {
			b = binary.AppendUvarint(b, uint64(c.MinTime-maxt))
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendVarint(b, int64(c.Ref)-ref)
		}
		maxt, ref = c.MaxTime, int64(c.Ref)
	}
	return b
}
