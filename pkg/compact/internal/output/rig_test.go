package output

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

const encAggregate = chunkenc.Encoding(0xff) // COMPAT A2.1

// rawChunk is a chunk of any encoding, of which only the bytes matter.
type rawChunk struct {
	chunkenc.Chunk
	enc  chunkenc.Encoding
	data []byte
}

func (c rawChunk) Encoding() chunkenc.Encoding { return c.enc }
func (c rawChunk) Bytes() []byte               { return c.data }
func (c rawChunk) NumSamples() int             { return len(c.data) }

// rawPool hands out chunks as they are, aggregate ones too.
type rawPool struct{}

func (rawPool) Get(enc chunkenc.Encoding, b []byte) (chunkenc.Chunk, error) {
	return rawChunk{enc: enc, data: b}, nil
}
func (rawPool) Put(chunkenc.Chunk) error { return nil }

type testSeries struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// randomSeries returns n series in order. Their chunks are random bytes of all encodings.
func randomSeries(random *rand.Rand, n int) []testSeries {
	seen := map[uint64]bool{}
	out := make([]testSeries, 0, n)
	for len(out) < n {
		lset := randomLabels(random, n)
		if seen[lset.Hash()] {
			continue
		}
		seen[lset.Hash()] = true
		out = append(out, testSeries{labels: lset, chunks: randomChunks(random)})
	}
	slices.SortFunc(out, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	return out
}

// randomLabels has labels that all series have, rare ones, values that are names
// as well, and values that are prefixes of others.
func randomLabels(random *rand.Rand, n int) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	b.Set("__name__", fmt.Sprintf("metric_%d", random.IntN(n/100+3)))
	b.Set("instance", fmt.Sprintf("10.0.%d:9090", random.IntN(n+1)))
	b.Set("job", []string{"a", "ab", "instance", "zone", "ü"}[random.IntN(5)])
	if random.IntN(2) == 0 {
		b.Set("zone", fmt.Sprint(random.IntN(4)))
	}
	if random.IntN(4) == 0 {
		b.Set(fmt.Sprintf("rare_%d", random.IntN(300)), fmt.Sprint(random.IntN(1+n/2)))
	}
	return b.Labels()
}

func randomChunks(random *rand.Rand) []chunks.Meta {
	encodings := []chunkenc.Encoding{
		chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncXOR2,
		chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST, encAggregate,
	}
	var out []chunks.Meta
	t := random.Int64N(1<<40) - 1<<39 // before 1970 too
	for range random.IntN(5) {        // none as well
		data := make([]byte, 1+random.IntN(300))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		m := chunks.Meta{MinTime: t, MaxTime: t + random.Int64N(3)*7_200_000, Chunk: rawChunk{enc: encodings[random.IntN(len(encodings))], data: data}}
		out = append(out, m)
		t = m.MaxTime + 1 + random.Int64N(2)*15_000
	}
	return out
}

// sampleSeries are series with real chunks of every kind.
func sampleSeries(t *testing.T) []testSeries {
	var float, hist, floatHist, custom []blocktest.Sample
	for i := range int64(500) {
		at := i * 15_000
		float = append(float, blocktest.Sample{T: at, ST: 1, F: float64(i)})
		hist = append(hist, blocktest.Sample{T: at, ST: 1, H: blocktest.Histogram(i)})
		floatHist = append(floatHist, blocktest.Sample{T: at, ST: 1, FH: blocktest.FloatHistogram(i)})
		custom = append(custom, blocktest.Sample{T: at, ST: 1, H: blocktest.CustomBuckets(i)})
	}
	var out []testSeries
	for i, opts := range []blocktest.Options{{}, {XOR2: true}, {StartTimestamps: true}} {
		for kind, samples := range map[string][]blocktest.Sample{"float": float, "histogram": hist, "float histogram": floatHist, "nhcb": custom} {
			lset := labels.FromStrings("__name__", "m", "kind", kind, "options", fmt.Sprint(i))
			out = append(out, testSeries{labels: lset, chunks: blocktest.Chunks(t, samples, opts)})
		}
	}
	slices.SortFunc(out, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	return out
}

// sliceSource yields strings.
type sliceSource struct {
	symbols []string
	err     error
	buf     []byte // overwritten by each Next, as a stream's
	next    int
}

func (s *sliceSource) Next() bool {
	if s.next == len(s.symbols) {
		return false
	}
	s.buf = append(s.buf[:0], s.symbols[s.next]...)
	s.next++
	return true
}
func (s *sliceSource) At() []byte { return s.buf }
func (s *sliceSource) Err() error { return s.err }

// symbolsOf returns all strings of the series' labels, sorted.
func symbolsOf(series []testSeries) []string {
	seen := map[string]bool{}
	for _, s := range series {
		s.labels.Range(func(l labels.Label) { seen[l.Name], seen[l.Value] = true, true })
	}
	out := make([]string, 0, len(seen))
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func unionOf(t testing.TB, symbols ...string) *Symbols {
	slices.Sort(symbols)
	syms, _, err := MergeSymbols(&sliceSource{symbols: slices.Compact(symbols)})
	require.NoError(t, err)
	return syms
}

// numbered turns labels into numbers.
func numbered(t testing.TB, syms *Symbols, lset labels.Labels) []input.Label {
	var out []input.Label
	lset.Range(func(l labels.Label) {
		name, hasName := syms.Find(l.Name)
		value, hasValue := syms.Find(l.Value)
		if !hasName || !hasValue {
			t.Fatalf("no number for %s=%q", l.Name, l.Value)
		}
		out = append(out, input.Label{Name: name, Value: value})
	})
	return out
}

// fill gives all series to a writer, and stops at the first error.
func fill(t testing.TB, w *Writer, syms *Symbols, series []testSeries) error {
	for _, s := range series {
		var metas []input.Chunk
		var samples Samples
		for _, c := range s.chunks {
			ref, err := w.Chunk(c.Chunk.Encoding(), c.Chunk.Bytes())
			if err != nil {
				return err
			}
			metas = append(metas, input.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Ref: ref})
			if c.Chunk.Encoding() == chunkenc.EncHistogram {
				samples.Histograms += uint64(c.Chunk.NumSamples())
			} else {
				samples.Floats += uint64(c.Chunk.NumSamples())
			}
		}
		if err := w.Series(numbered(t, syms, s.labels), metas, samples); err != nil {
			return err
		}
	}
	return nil
}

// writeOurs writes a block with a Writer. unused are symbols of the union that no series has.
func writeOurs(t testing.TB, series []testSeries, cfg Config, unused ...string) (string, block.Stats, *block.Content) {
	dir := filepath.Join(t.TempDir(), "block")
	syms := unionOf(t, append(symbolsOf(series), unused...)...)
	w, err := Create(dir, syms, cfg)
	require.NoError(t, err)
	require.NoError(t, fill(t, w, syms, series))
	stats, err := w.Close()
	require.NoError(t, err)
	return dir, stats, w.Content()
}

// writeTheirs writes a block with the TSDB's writers.
func writeTheirs(t testing.TB, series []testSeries, segmentBytes int64) string {
	dir := t.TempDir()
	cw, err := chunks.NewWriter(filepath.Join(dir, block.ChunksDirname), chunks.WithSegmentSize(segmentBytes))
	require.NoError(t, err)
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, block.IndexFilename))
	require.NoError(t, err)
	for _, s := range symbolsOf(series) {
		require.NoError(t, iw.AddSymbol(s))
	}
	for i, s := range series {
		metas := slices.Clone(s.chunks)
		for j := range metas {
			require.NoError(t, cw.WriteChunks(metas[j:j+1]...)) // sets Ref
		}
		require.NoError(t, iw.AddSeries(storage.SeriesRef(i), s.labels, metas...))
	}
	require.NoError(t, cw.Close())
	require.NoError(t, iw.Close())
	return dir
}

// filesOf returns the content of all files below dir.
func filesOf(t testing.TB, dir string) map[string]string {
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = string(data)
		return err
	}))
	return out
}

// requireSameFiles compares folders without printing megabytes.
func requireSameFiles(t testing.TB, want, got map[string]string) {
	require.Equal(t, len(want), len(got), "number of files")
	for name, data := range want {
		other, ok := got[name]
		require.True(t, ok, "%s is missing", name)
		require.Equal(t, len(data), len(other), "length of %s", name)
		for i := range data {
			if data[i] != other[i] {
				require.Failf(t, "differs", "%s at offset %d", name, i)
			}
		}
	}
}
