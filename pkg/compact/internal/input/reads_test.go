package input_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// TestReads prints which ranged GETs a reading costs; the golden file is to be
// checked by eye.
func TestReads(t *testing.T) {
	var bkt *spoiled
	var m *block.Meta
	datadriven.RunTest(t, "testdata/reads", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "block":
			var series, samples, segment int
			d.ScanArgs(t, "series", &series)
			d.ScanArgs(t, "samples", &samples)
			d.ScanArgs(t, "segment", &segment)
			memory, meta, _ := upload(t, noise(series, samples), blocktest.Options{SegmentBytes: int64(segment)})
			bkt, m = &spoiled{Bucket: memory}, meta
			return sizes(m)
		case "wide":
			memory, meta, _ := wideBlock(t)
			bkt, m = &spoiled{Bucket: memory}, meta
			return sizes(m)
		case "read":
			r := reading{every: 1, backward: d.HasArg("backward")}
			d.ScanArgs(t, "window", &r.window)
			d.MaybeScanArgs(t, "from", &r.from)
			d.MaybeScanArgs(t, "every", &r.every)
			wanted := r.run(t, bkt, m)
			return print(bkt.take(), wanted)
		}
		return "unknown command"
	})
}

// noise are series whose samples don't compress.
func noise(series, samples int) (out []blocktest.Series) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for i := range series {
		out = append(out, blocktest.Series{
			Labels:  labels.FromStrings("__name__", "m", "instance", fmt.Sprintf("host-%06d", i)),
			Samples: blocktest.Floats(0, int64(samples)*15_000, 15_000, func(int64) float64 { return rnd.Float64() }),
		})
	}
	return out
}

func sizes(m *block.Meta) string {
	var b strings.Builder
	for _, f := range m.Thanos.Files {
		if f.SizeBytes > 0 {
			fmt.Fprintf(&b, "%s %d\n", f.RelPath, f.SizeBytes)
		}
	}
	return b.String()
}

// reading is a way to go through a block.
type reading struct {
	window      int64
	from, every int // series by number
	backward    bool
}

// run reads series and chunks and returns the bytes of those chunks.
func (r reading) run(t *testing.T, bkt block.Bucket, m *block.Meta) (wanted int64) {
	b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: r.window})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	symbols := b.Symbols(t.Context())
	for symbols.Next() {
		continue
	}
	require.NoError(t, symbols.Err())
	if r.from > 0 {
		// Symbols are in order, and so the values of the last label are.
		first := r.first(t, bkt, m)
		require.NoError(t, b.Seek(t.Context(), func(s *input.Series) (bool, error) {
			return slices.CompareFunc(s.Labels, first, func(a, b input.Label) int { return int(a.Value) - int(b.Value) }) < 0, nil
		}))
	}
	for i := 0; ; i++ {
		s, err := b.Next(t.Context())
		if err == io.EOF {
			return wanted
		}
		require.NoError(t, err)
		if i%r.every != 0 {
			continue
		}
		refs := slices.Clone(s.Chunks)
		if r.backward {
			slices.Reverse(refs)
		}
		for _, c := range refs {
			_, data, err := b.Chunk(t.Context(), c.Ref)
			require.NoError(t, err)
			wanted += int64(len(binary.AppendUvarint(nil, uint64(len(data))))+1+len(data)) + 4
		}
	}
}

// first are the labels of the series number from, found by a reader of its own.
func (r reading) first(t *testing.T, bkt block.Bucket, m *block.Meta) []input.Label {
	b, err := input.Open(t.Context(), bkt.(*spoiled).Bucket, m, input.Config{})
	require.NoError(t, err)
	defer b.Close()
	for range r.from {
		_, err = b.Next(t.Context())
		require.NoError(t, err)
	}
	s, err := b.Next(t.Context())
	require.NoError(t, err)
	return slices.Clone(s.Labels)
}

// print lists reads; where there are many of one object, their number and sum.
func print(gets []get, wanted int64) string {
	var b strings.Builder
	var chunkBytes int64
	for object, of := range grouped(gets) {
		var sum int64
		for _, g := range of {
			sum += g.to - g.off
		}
		if strings.HasPrefix(object, block.ChunksDirname) {
			chunkBytes += sum
		}
		if len(of) > 16 {
			fmt.Fprintf(&b, "%s: %d GETs of %d bytes\n", object, len(of), sum)
			continue
		}
		for _, g := range of {
			fmt.Fprintf(&b, "%s %d-%d (%d)\n", object, g.off, g.to, g.to-g.off)
		}
	}
	fmt.Fprintf(&b, "chunks: %.2f bytes read for one wanted\n", float64(chunkBytes)/float64(wanted))
	return b.String()
}

// grouped yields the reads of each object; gets are sorted by it.
func grouped(gets []get) func(func(string, []get) bool) {
	return func(yield func(string, []get) bool) {
		for from := 0; from < len(gets); {
			to := from
			for to < len(gets) && gets[to].object == gets[from].object {
				to++
			}
			if !yield(gets[from].object, gets[from:to]) {
				return
			}
			from = to
		}
	}
}

// TestReadOnce: from front to back no byte of a section or of chunks is read
// twice, whatever the window.
func TestReadOnce(t *testing.T) {
	memory, m, _ := upload(t, noise(100, 1000), blocktest.Options{SegmentBytes: 200_000})
	for _, window := range []int64{1000, 40_000, 64 << 10, 150_000, 1 << 20} {
		bkt := &spoiled{Bucket: memory}
		reading{window: window, every: 1}.run(t, bkt, m)
		for object, of := range grouped(bkt.take()) {
			heads := 1 // of a segment
			if object == block.IndexFilename {
				heads = 2
			}
			at := int64(0)
			for _, g := range of[heads:] {
				require.GreaterOrEqual(t, g.off, at, "%s, window %d", object, window)
				require.LessOrEqual(t, g.to-g.off, window)
				at = g.to
			}
		}
	}
}
