package output

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/input"
)

// TestSameBytesAsTSDB writes the same series with the TSDB's writers.
func TestSameBytesAsTSDB(t *testing.T) {
	for _, n := range []int{0, 1, 2, 17, 300, 5_000} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("series=%d/seed=%d", n, seed), func(t *testing.T) {
				series := randomSeries(rand.New(rand.NewPCG(seed, 7)), n)
				const segmentBytes = 100_000
				want := filesOf(t, writeTheirs(t, series, segmentBytes))
				dir, _, _ := writeOurs(t, series, Config{SegmentBytes: segmentBytes})
				requireSameFiles(t, want, filesOf(t, dir))

				// Symbols that no series has leave no trace.
				dir, _, _ = writeOurs(t, series, Config{SegmentBytes: segmentBytes}, "", "a0", "instance_", "metric_", "zz", "\xff")
				requireSameFiles(t, want, filesOf(t, dir))
			})
		}
	}
}

// TestSameBytesInManyRuns has so many series that postings come from several runs.
func TestSameBytesInManyRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("200,000 series")
	}
	series := randomSeries(rand.New(rand.NewPCG(1, 1)), 200_000)
	want := filesOf(t, writeTheirs(t, series, chunks.DefaultChunkSegmentSize))
	for _, memory := range []int64{minMemory, 64 << 20} {
		dir, stats, content := writeOurs(t, series, Config{MemoryBytes: memory})
		requireSameFiles(t, want, filesOf(t, dir))
		requireVerified(t, dir, stats, content)
	}
}

// requireVerified reads a block and compares with what was found out while writing it.
func requireVerified(t *testing.T, dir string, stats block.Stats, content *block.Content) {
	found, err := block.Verify(context.Background(), dir)
	require.NoError(t, err)
	require.Len(t, content.Sums, len(content.Files))
	found.Sums = content.Sums // TestUploadWritten has them
	require.Equal(t, found, content)
	require.Equal(t, found.Series, stats.NumSeries)
	require.Equal(t, found.Chunks, stats.NumChunks)
	require.Equal(t, stats.NumFloatSamples+stats.NumHistogramSamples, stats.NumSamples)
}

// TestReadBack reads blocks with the TSDB's readers and compares all that was put in.
func TestReadBack(t *testing.T) {
	cases := map[string][]testSeries{
		"samples": sampleSeries(t),
		"one":     randomSeries(rand.New(rand.NewPCG(3, 3)), 1),
		"many":    randomSeries(rand.New(rand.NewPCG(4, 4)), 2_000),
	}
	for name, series := range cases {
		t.Run(name, func(t *testing.T) {
			dir, stats, content := writeOurs(t, series, Config{SegmentBytes: 50_000}, "unused")
			requireVerified(t, dir, stats, content)
			b := openBlock(t, dir)
			r, err := b.Index()
			require.NoError(t, err)
			defer r.Close()
			cr, err := b.Chunks()
			require.NoError(t, err)
			defer cr.Close()
			requireSeries(t, series, r, cr)
			requirePostings(t, series, r)
		})
	}
}

// openBlock opens a block as Prometheus does, with a meta.json that it accepts.
func openBlock(t *testing.T, dir string) *tsdb.Block {
	m := block.Meta{ULID: ulid.Make(), Version: 1, MaxTime: 1}
	m.Thanos.Labels = map[string]string{"a": "b"}
	require.NoError(t, block.WriteMeta(dir, &m))
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, rawPool{}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func requireSeries(t *testing.T, want []testSeries, r tsdb.IndexReader, cr tsdb.ChunkReader) {
	ctx := context.Background()
	name, value := index.AllPostingsKey()
	all, err := r.Postings(ctx, name, value)
	require.NoError(t, err)
	var (
		b     labels.ScratchBuilder
		metas []chunks.Meta
	)
	for _, s := range want {
		require.True(t, all.Next())
		require.NoError(t, r.Series(all.At(), &b, &metas))
		require.Equal(t, s.labels.String(), b.Labels().String())
		require.Len(t, metas, len(s.chunks))
		for i, m := range metas {
			require.Equal(t, s.chunks[i].MinTime, m.MinTime)
			require.Equal(t, s.chunks[i].MaxTime, m.MaxTime)
			c, _, err := cr.ChunkOrIterable(m)
			require.NoError(t, err)
			require.Equal(t, s.chunks[i].Chunk.Encoding(), c.Encoding())
			require.Equal(t, len(s.chunks[i].Chunk.Bytes()), len(c.Bytes()))
			require.Equal(t, string(s.chunks[i].Chunk.Bytes()), string(c.Bytes()))
		}
	}
	require.False(t, all.Next())
	require.NoError(t, all.Err())
}

// requirePostings asks for every label there is.
func requirePostings(t *testing.T, series []testSeries, r tsdb.IndexReader) {
	ctx := context.Background()
	want := map[string]map[string][]string{} // name, value, series
	for _, s := range series {
		s.labels.Range(func(l labels.Label) {
			if want[l.Name] == nil {
				want[l.Name] = map[string][]string{}
			}
			want[l.Name][l.Value] = append(want[l.Name][l.Value], s.labels.String())
		})
	}
	names, err := r.LabelNames(ctx)
	require.NoError(t, err)
	require.Equal(t, slices.Sorted(maps.Keys(want)), names)
	for name, values := range want {
		got, err := r.SortedLabelValues(ctx, name, nil)
		require.NoError(t, err)
		require.Equal(t, slices.Sorted(maps.Keys(values)), got)
		for value, lists := range values {
			p, err := r.Postings(ctx, name, value)
			require.NoError(t, err)
			require.Equal(t, lists, labelsOf(t, r, p), "%s=%q", name, value)
		}
	}
}

func labelsOf(t *testing.T, r tsdb.IndexReader, p index.Postings) []string {
	var out []string
	var b labels.ScratchBuilder
	for p.Next() {
		require.NoError(t, r.Series(p.At(), &b, nil))
		out = append(out, b.Labels().String())
	}
	require.NoError(t, p.Err())
	return out
}

// TestUploadWritten sends a block by what its writer knows of it, and compares
// with one that was verified.
func TestUploadWritten(t *testing.T) {
	dir, stats, content := writeOurs(t, sampleSeries(t), Config{SegmentBytes: 10_000})
	m := block.Meta{ULID: ulid.Make(), Version: 1, MaxTime: 500 * 15_000, Stats: stats}
	m.Thanos.Labels = map[string]string{"cluster": "a"}
	now := func() time.Time { return time.Unix(1, 0) }

	verified, sent := bucket.NewMemory(), bucket.NewMemory()
	_, err := (&block.Uploader{Bucket: verified, Now: now}).Upload(context.Background(), dir, &m)
	require.NoError(t, err)
	_, err = (&block.Uploader{Bucket: sent, Now: now}).UploadWritten(context.Background(), dir, &m, content)
	require.NoError(t, err)
	require.Equal(t, verified.Objects(), sent.Objects())
}

func TestStats(t *testing.T) {
	series := sampleSeries(t)
	_, stats, _ := writeOurs(t, series, Config{})
	want := block.Stats{NumSeries: uint64(len(series))}
	for _, s := range series {
		for _, c := range s.chunks {
			want.NumChunks++
			want.NumSamples += uint64(c.Chunk.NumSamples())
			if c.Chunk.Encoding() == chunkenc.EncHistogram {
				want.NumHistogramSamples += uint64(c.Chunk.NumSamples())
			}
		}
	}
	want.NumFloatSamples = want.NumSamples - want.NumHistogramSamples
	require.Equal(t, want, stats)
}

// TestSegmentsRollOver: no file is longer than it may be, but for a chunk that is so by itself.
func TestSegmentsRollOver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b")
	w, err := Create(dir, unionOf(t, "a"), Config{SegmentBytes: 1000})
	require.NoError(t, err)
	var refs []uint64
	for _, size := range []int{400, 400, 400, 5000, 10, 2 * segmentBuffer} {
		ref, err := w.Chunk(chunkenc.EncXOR, make([]byte, size))
		require.NoError(t, err)
		refs = append(refs, ref)
	}
	_, err = w.Close()
	require.NoError(t, err)
	require.Equal(t, []uint64{8, 8 + 2 + 1 + 400 + 4, 1<<32 | 8, 2<<32 | 8, 3<<32 | 8, 4<<32 | 8}, refs)
	require.Equal(t, []string{"000001", "000002", "000003", "000004", "000005"}, w.Content().SegmentFiles)
}

// TestRefusesWrongCalls: each rule of Series by a call that breaks it.
func TestRefusesWrongCalls(t *testing.T) {
	one := []input.Label{{Name: 0, Value: 1}}
	two := []input.Label{{Name: 0, Value: 1}, {Name: 2, Value: 0}}
	chunk := input.Chunk{MinTime: 1, MaxTime: 5, Ref: 8}
	for name, call := range map[string]func(w *Writer) error{
		"same labels again":     func(w *Writer) error { return w.Series(two, nil, Samples{}) },
		"labels that are first": func(w *Writer) error { return w.Series(one, nil, Samples{}) },
		"no labels behind some": func(w *Writer) error { return w.Series(nil, nil, Samples{}) },
		"name out of range":     func(w *Writer) error { return w.Series([]input.Label{{Name: 3, Value: 1}}, nil, Samples{}) },
		"value out of range":    func(w *Writer) error { return w.Series([]input.Label{{Name: 1, Value: 3}}, nil, Samples{}) },
		"a name twice": func(w *Writer) error {
			return w.Series([]input.Label{{Name: 1, Value: 1}, {Name: 1, Value: 2}}, nil, Samples{})
		},
		"names out of order": func(w *Writer) error {
			return w.Series([]input.Label{{Name: 2, Value: 1}, {Name: 1, Value: 2}}, nil, Samples{})
		},
		"chunk ends before it begins": chunksOf(input.Chunk{MinTime: 5, MaxTime: 4, Ref: 8}),
		"chunks overlap":              chunksOf(chunk, input.Chunk{MinTime: 5, MaxTime: 9, Ref: 15}),
		"chunks out of order":         chunksOf(chunk, input.Chunk{MinTime: 0, MaxTime: 0, Ref: 15}),
		"reference twice":             chunksOf(chunk, input.Chunk{MinTime: 6, MaxTime: 9, Ref: 8}),
		"reference from elsewhere":    chunksOf(input.Chunk{MinTime: 6, MaxTime: 9, Ref: 1 << 32}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "b")
			w, err := Create(dir, unionOf(t, "a", "b", "c"), Config{})
			require.NoError(t, err)
			for range 2 {
				_, err = w.Chunk(chunkenc.EncXOR, []byte("x"))
				require.NoError(t, err)
			}
			require.NoError(t, w.Series(two, nil, Samples{}))

			err = call(w)
			require.ErrorIs(t, err, errInternal)
			_, chunkErr := w.Chunk(chunkenc.EncXOR, nil)
			require.Equal(t, err, chunkErr, "the writer keeps its error")
			_, closeErr := w.Close()
			require.ErrorIs(t, closeErr, errInternal)
			require.NoDirExists(t, dir)
		})
	}
}

func chunksOf(chunks ...input.Chunk) func(w *Writer) error {
	return func(w *Writer) error {
		return w.Series([]input.Label{{Name: 1, Value: 1}}, chunks, Samples{})
	}
}

func TestCreateRefusesFolderWithContent(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "x"), 0o755))
	_, err := Create(dir, unionOf(t), Config{})
	require.ErrorContains(t, err, "not empty")
	require.DirExists(t, filepath.Join(dir, "x"))
}

func TestAbort(t *testing.T) {
	series := randomSeries(rand.New(rand.NewPCG(5, 5)), 100)
	syms := unionOf(t, symbolsOf(series)...)
	for _, closed := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "b")
		w, err := Create(dir, syms, Config{})
		require.NoError(t, err)
		require.NoError(t, fill(t, w, syms, series))
		if closed {
			_, err := w.Close()
			require.NoError(t, err)
		}
		require.NoError(t, w.Abort())
		require.NoError(t, w.Abort())
		require.NoDirExists(t, dir)
		_, err = w.Close()
		require.Error(t, err)
	}
}

// fullDisk holds so many bytes, in all files of a block together. It also counts open files.
type fullDisk struct {
	left       int64
	open, fail int // fail: closing the file with this number fails, from 1
}

func (d *fullDisk) create(path string) (handle, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	d.open++
	return &diskFile{File: f, disk: d}, err
}

type diskFile struct {
	*os.File
	disk *fullDisk
}

func (f *diskFile) Write(b []byte) (int, error) {
	if f.disk.left -= int64(len(b)); f.disk.left < 0 {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(b)
}

func (f *diskFile) Close() error {
	err := f.File.Close()
	if err == nil {
		f.disk.open--
	}
	if f.disk.fail--; f.disk.fail == 0 {
		return syscall.EIO
	}
	return err
}

// TestDiskFull: wherever it happens, nothing is left and the cause is told.
//
// RELIABILITY C5
func TestDiskFull(t *testing.T) {
	series := randomSeries(rand.New(rand.NewPCG(6, 6)), 2_000)
	syms := unionOf(t, symbolsOf(series)...)
	write := func(disk *fullDisk) (string, error) {
		dir := filepath.Join(t.TempDir(), "b")
		w, err := create(dir, syms, Config{SegmentBytes: 100_000}, environment{open: disk.create, maxIndexBytes: maxIndexBytes})
		require.NoError(t, err)
		if err := fill(t, w, syms, series); err != nil {
			require.NoError(t, w.Abort())
			return dir, err
		}
		_, err = w.Close()
		return dir, err
	}
	disk := &fullDisk{left: 1 << 40}
	_, err := write(disk)
	require.NoError(t, err)
	require.Zero(t, disk.open, "files left open")
	taken := 1<<40 - disk.left

	const steps = 60
	for i := range int64(steps) {
		disk := &fullDisk{left: taken * i / steps}
		dir, err := write(disk)
		require.ErrorIs(t, err, syscall.ENOSPC, "after %d bytes of %d", taken*i/steps, taken)
		require.NoDirExists(t, dir)
		require.Zero(t, disk.open, "files left open")
	}
	for i := 1; ; i++ {
		disk := &fullDisk{left: 1 << 40, fail: i}
		dir, err := write(disk)
		if disk.fail > 0 {
			require.NoError(t, err)
			require.Greater(t, i, 5, "segments and index are closed")
			break
		}
		require.ErrorIs(t, err, syscall.EIO)
		require.NoDirExists(t, dir)
		require.Zero(t, disk.open, "files left open")
	}
}

// damagedFile flips a bit when it is read back, at part/parts of its length.
type damagedFile struct {
	*os.File
	part, parts int64
}

func (f damagedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	info, statErr := f.Stat()
	if statErr != nil {
		return n, statErr
	}
	if at := info.Size() * f.part / f.parts; at >= off && at < off+int64(n) {
		b[at-off] ^= 0x80
	}
	return n, err
}

// TestDamagedTempFile: what the disk has changed is not written into a block.
// The files are longer than a buffer, so that some of it is used before their
// checksum can tell.
//
// RELIABILITY C6
func TestDamagedTempFile(t *testing.T) {
	series := randomSeries(rand.New(rand.NewPCG(8, 8)), 20_000)
	syms := unionOf(t, symbolsOf(series)...)
	const parts = 12
	for _, name := range []string{seriesFilename, postingsFilename, offsetsFilename} {
		for part := range int64(parts) {
			env := environment{maxIndexBytes: maxIndexBytes, open: func(path string) (handle, error) {
				f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
				if filepath.Base(path) != name {
					return f, err
				}
				return damagedFile{File: f, part: part, parts: parts}, err
			}}
			dir := filepath.Join(t.TempDir(), "b")
			w, err := create(dir, syms, Config{}, env)
			require.NoError(t, err)
			for _, s := range series {
				require.NoError(t, w.Series(numbered(t, syms, s.labels), nil, Samples{}))
			}
			_, err = w.Close()
			require.Error(t, err, "%s at %d of %d", name, part, parts)
			require.NoDirExists(t, dir)
		}
	}
}

// TestTooLarge: the limit of the format is an error before anything passes it.
func TestTooLarge(t *testing.T) {
	series := randomSeries(rand.New(rand.NewPCG(9, 9)), 300)
	syms := unionOf(t, symbolsOf(series)...)
	whole, _, content := writeOurs(t, series, Config{})
	require.DirExists(t, whole)
	size := content.Files[len(content.Files)-1].SizeBytes
	for _, limit := range []int64{10, 1_000, size - 1, size} {
		dir := filepath.Join(t.TempDir(), "b")
		w, err := create(dir, syms, Config{}, environment{open: createFile, maxIndexBytes: limit})
		require.NoError(t, err)
		require.NoError(t, fill(t, w, syms, series))
		_, err = w.Close()
		if limit == size {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrTooLarge)
		require.NoDirExists(t, dir)
	}
	w, err := Create(filepath.Join(t.TempDir(), "b"), syms, Config{})
	require.NoError(t, err)
	_, err = w.Chunk(chunkenc.EncXOR, make([]byte, chunks.DefaultChunkSegmentSize+1))
	require.ErrorIs(t, err, ErrTooLarge)
	require.NoError(t, w.Abort())
}

// TestMemoryIsBounded writes a million series and watches the heap.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("a million series")
	}
	const n, memory = 1_000_000, 16 << 20
	syms, write := syntheticSeries(t, n, 2)
	w, err := Create(filepath.Join(t.TempDir(), "b"), syms, Config{MemoryBytes: memory})
	require.NoError(t, err)
	before := heapBytes(t)
	peak := watchHeap(t)
	require.NoError(t, write(w))
	_, err = w.Close()
	require.NoError(t, err)
	require.Less(t, peak()-before, int64(memory+4<<20))
}

// heapBytes collects, and returns the bytes that were found in use: garbage that is
// made since then does not count, however late we look.
func heapBytes(t *testing.T) int64 {
	t.Helper()
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// watchHeap collects all the time and returns what tells the highest use seen.
func watchHeap(t *testing.T) func() int64 {
	done, result := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		for {
			select {
			case <-done:
				result <- peak
				return
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, heapBytes(t))
			}
		}
	}()
	return func() int64 {
		close(done)
		return <-result
	}
}

// syntheticSeries returns the symbols of n series with twelve labels and some
// chunks of 120 bytes, and what writes them.
func syntheticSeries(t testing.TB, n, chunks int) (*Symbols, func(w *Writer) error) {
	const pods = 1000
	var symbols []string
	for i := range n/pods + 1 {
		symbols = append(symbols, fmt.Sprintf("metric_%07d", i))
	}
	for i := range pods {
		symbols = append(symbols, fmt.Sprintf("pod-%07d", i), fmt.Sprintf("10.0.0.%07d", i))
	}
	names := []string{"__name__", "cluster", "code", "container", "endpoint", "instance", "job", "method", "namespace", "pod", "service", "uid"}
	symbols = append(symbols, names...)
	for i := range n {
		symbols = append(symbols, fmt.Sprintf("uid-%09d", i))
	}
	syms := unionOf(t, append(symbols, "eu-1")...)
	number := func(s string) uint32 {
		i, ok := syms.Find(s)
		require.True(t, ok, s)
		return i
	}
	lset := make([]input.Label, len(names))
	for i, name := range names {
		lset[i] = input.Label{Name: number(name), Value: number("eu-1")}
	}
	metric, pod, address, uid := number("metric_0000000"), number("pod-0000000"), number("10.0.0.0000000"), number("uid-000000000")
	data := make([]byte, 120)
	return syms, func(w *Writer) error {
		metas := make([]input.Chunk, chunks)
		for i := range uint32(n) {
			lset[0].Value, lset[5].Value, lset[9].Value = metric+i/pods, address+i%pods, pod+i%pods
			lset[8].Value, lset[11].Value = pod+i%7, uid+i
			for j := range metas {
				ref, err := w.Chunk(chunkenc.EncXOR, data)
				if err != nil {
					return err
				}
				metas[j] = input.Chunk{MinTime: int64(j) * 7_200_000, MaxTime: int64(j)*7_200_000 + 7_100_000, Ref: ref}
			}
			if err := w.Series(lset, metas, Samples{Floats: 240}); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestChunkDoesNotAllocate counts over many chunks and series.
func TestChunkDoesNotAllocate(t *testing.T) {
	syms := unionOf(t, "a")
	w, err := Create(filepath.Join(t.TempDir(), "b"), syms, Config{})
	require.NoError(t, err)
	data := make([]byte, 200)
	_, err = w.Chunk(chunkenc.EncXOR, data)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(10_000, func() {
		if _, err := w.Chunk(chunkenc.EncXOR, data); err != nil {
			t.Error(err)
		}
	}))
	require.NoError(t, w.Abort())
}

// BenchmarkWrite writes a block of series with twelve labels and two chunks
// each, as one cut from a head has them.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{10_000, 300_000} {
		syms, write := syntheticSeries(b, n, 2)
		example := filepath.Join(b.TempDir(), "b")
		require.NoError(b, writeBlock(example, syms, write))
		size := sizeOf(b, example)
		b.Run(fmt.Sprintf("writer=firnline/series=%d", n), func(b *testing.B) {
			benchmark(b, n, size, func(dir string) error { return writeBlock(dir, syms, write) })
		})
		series := seriesOf(b, example)
		b.Run(fmt.Sprintf("writer=tsdb/series=%d", n), func(b *testing.B) {
			benchmark(b, n, size, func(dir string) error { return writeTSDB(dir, syms, series) })
		})
	}
}

// BenchmarkVerify is what a second look at all that was written costs, beside
// writing it. (Whence Writer.Content, which spares it.)
func BenchmarkVerify(b *testing.B) {
	for _, chunks := range []int{2, 24} {
		const n = 50_000
		syms, write := syntheticSeries(b, n, chunks)
		example := filepath.Join(b.TempDir(), "b")
		require.NoError(b, writeBlock(example, syms, write))
		size := sizeOf(b, example)
		b.Run(fmt.Sprintf("write/series=%d/chunks=%d", n, chunks), func(b *testing.B) {
			benchmark(b, n, size, func(dir string) error { return writeBlock(dir, syms, write) })
		})
		b.Run(fmt.Sprintf("verify/series=%d/chunks=%d", n, chunks), func(b *testing.B) {
			benchmark(b, n, size, func(string) error {
				_, err := block.Verify(context.Background(), example)
				return err
			})
		})
	}
}

// benchmark runs what writes or reads a block of so many series and bytes.
func benchmark(b *testing.B, series int, sizeBytes int64, run func(dir string) error) {
	b.ReportAllocs()
	b.SetBytes(sizeBytes)
	cpu := cpuTime(b)
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "b")
		require.NoError(b, run(dir))
		require.NoError(b, os.RemoveAll(dir))
	}
	perSeries := float64(b.N) * float64(series)
	b.ReportMetric(float64(b.Elapsed())/perSeries, "ns/series")
	b.ReportMetric(float64(cpuTime(b)-cpu)/perSeries, "cpu-ns/series")
}

// writeBlock writes a block with what syntheticSeries returned.
func writeBlock(dir string, syms *Symbols, write func(w *Writer) error) error {
	w, err := Create(dir, syms, Config{MemoryBytes: 64 << 20})
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		return err
	}
	_, err = w.Close()
	return err
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func sizeOf(b *testing.B, dir string) int64 {
	var sum int64
	require.NoError(b, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		sum += info.Size()
		return err
	}))
	return sum
}

// seriesOf reads the series of a block as the TSDB's writers take them.
func seriesOf(b *testing.B, dir string) []testSeries {
	r, err := index.NewFileReader(filepath.Join(dir, block.IndexFilename), index.DecodePostingsRaw)
	require.NoError(b, err)
	defer r.Close()
	name, value := index.AllPostingsKey()
	all, err := r.Postings(context.Background(), name, value)
	require.NoError(b, err)
	chunk := rawChunk{enc: chunkenc.EncXOR, data: make([]byte, 120)}
	var out []testSeries
	var builder labels.ScratchBuilder
	for all.Next() {
		s := testSeries{}
		require.NoError(b, r.Series(all.At(), &builder, &s.chunks))
		s.labels = builder.Labels()
		for i := range s.chunks {
			s.chunks[i].Chunk = chunk
		}
		out = append(out, s)
	}
	require.NoError(b, all.Err())
	return out
}

func writeTSDB(dir string, syms *Symbols, series []testSeries) error {
	cw, err := chunks.NewWriter(filepath.Join(dir, block.ChunksDirname))
	if err != nil {
		return err
	}
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, block.IndexFilename))
	if err != nil {
		return err
	}
	for i := range uint32(syms.Len()) {
		if err := iw.AddSymbol(syms.At(i)); err != nil {
			return err
		}
	}
	for i, s := range series {
		if err := cw.WriteChunks(s.chunks...); err != nil {
			return err
		}
		if err := iw.AddSeries(storage.SeriesRef(i), s.labels, s.chunks...); err != nil {
			return err
		}
	}
	if err := cw.Close(); err != nil {
		return err
	}
	return iw.Close()
}
