package input_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/compact/internal/input"
	"github.com/firnline/firnline/pkg/proctest"
)

// dump is all that a block holds, as text.
type dump []string

// readAll reads a block through the package.
func readAll(ctx context.Context, bkt block.Bucket, m *block.Meta, window int64) (out dump, err error) {
	b, err := input.Open(ctx, bkt, m, input.Config{WindowBytes: window})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	symbols, err := readSymbols(ctx, b)
	if err != nil {
		return nil, err
	}
	return readSeries(ctx, b, symbols, 1<<30)
}

func readSymbols(ctx context.Context, b *input.Block) (symbols []string, err error) {
	s := b.Symbols(ctx)
	for s.Next() {
		symbols = append(symbols, string(s.At()))
	}
	return symbols, s.Err()
}

// readSeries reads at most n series and their chunks from where b is.
func readSeries(ctx context.Context, b *input.Block, symbols []string, n int) (out dump, err error) {
	for range n {
		s, err := b.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return out, err
		}
		out = append(out, lset(s, symbols).String())
		for _, c := range s.Chunks {
			enc, data, err := b.Chunk(ctx, c.Ref)
			if err != nil {
				return out, err
			}
			out = append(out, fmt.Sprintf("%d-%d %v %x", c.MinTime, c.MaxTime, enc, data))
		}
	}
	return out, nil
}

func lset(s *input.Series, symbols []string) labels.Labels {
	var b labels.ScratchBuilder
	for _, l := range s.Labels {
		b.Add(symbols[l.Name], symbols[l.Value])
	}
	return b.Labels()
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

// spoiled is a bucket whose ranges are written down, and altered on the way:
// spoil gets the n-th body, from 1.
type spoiled struct {
	block.Bucket
	mu    sync.Mutex
	gets  []get
	spoil func(n int, body []byte) []byte // nil: as they are
}

type get struct {
	object  string
	off, to int64
}

func (s *spoiled) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := s.Bucket.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, rel, _ := block.SplitName(name)
	s.gets = append(s.gets, get{rel, off, off + int64(len(body))})
	if s.spoil != nil {
		body = s.spoil(len(s.gets), body)
	}
	return io.NopCloser(bytes.NewReader(body)), err
}

// take returns the reads since the last take, those of one object in their order.
func (s *spoiled) take() []get {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.gets
	s.gets = nil
	slices.SortStableFunc(out, func(a, b get) int { return strings.Compare(a.object, b.object) })
	return out
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
			defer proctest.NoLeaks(t)
			bkt, m, dir := upload(t, series(40, 300), opts)
			want := twin(t, dir)
			for _, window := range []int64{0, 1, 3, 16, 100, 1000, 10_000, 1 << 20} {
				got, err := readAll(t.Context(), bkt, m, window)
				require.NoError(t, err)
				require.Equal(t, want, got, "window %d", window)
			}
			m.Thanos.Files, m.Thanos.SegmentFiles = nil, nil
			got, err := readAll(t.Context(), bkt, m, 1000)
			require.NoError(t, err, "sizes from a listing")
			require.Equal(t, want, got)
		})
	}
}

// TestReadHead: a block that a real head has written, out-of-order samples and all.
func TestReadHead(t *testing.T) {
	dir := t.TempDir()
	lset := labels.FromStrings("__name__", "up", "job", "a")
	path, err := tsdb.CreateBlock([]storage.Series{
		storage.NewListSeries(lset, []chunks.Sample{sample{1, 1}, sample{2, 4}, sample{90_000, 5}}),
		storage.NewListSeries(labels.FromStrings("__name__", "up", "job", "b"), []chunks.Sample{sample{7, 1}}),
	}, dir, 0, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	m, err := block.ReadMeta(path)
	require.NoError(t, err)
	m.Thanos.Labels = map[string]string{"c": "a"}
	bkt := bucket.NewMemory()
	sent := blocktest.Upload(t, bkt, dir, *m)
	got, err := readAll(t.Context(), bkt, &sent, 0)
	require.NoError(t, err)
	require.Equal(t, twin(t, path), got)
	require.Len(t, got, 4)
}

type sample struct {
	t int64
	f float64
}

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

// TestEveryByte: with any byte changed in the bucket a block reads as before or
// not at all, and an error is the block's, names the object, and is final. Cut
// at any byte it doesn't read. RELIABILITY B1, C4
func TestEveryByte(t *testing.T) {
	bkt, m, dir := upload(t, series(4, 30), blocktest.Options{SamplesPerChunk: 10})
	want := twin(t, dir)
	for name, whole := range bkt.Objects() {
		if strings.HasSuffix(name, block.MetaFilename) {
			continue
		}
		unnoticed := 0
		for at := range whole {
			data := bytes.Clone(whole)
			data[at] ^= byte(1 << (at % 8))
			put(t, bkt, name, data)
			got, err := readAll(t.Context(), bkt, m, 300)
			if err == nil {
				require.Equal(t, want, got, "%s changed at %d", name, at)
				unnoticed++
			} else {
				requireBad(t, err, m, name)
			}
			put(t, bkt, name, whole[:at])
			if _, err = readAll(t.Context(), bkt, m, 300); err != nil {
				requireBad(t, err, m, name)
			}
			require.Error(t, err, "%s cut at %d", name, at)
		}
		put(t, bkt, name, whole)
		t.Logf("%s: %d of %d bytes are not looked at", name, unnoticed, len(whole))
	}
}

// requireBad: the block is to blame, by its id and an object's name.
func requireBad(t *testing.T, err error, m *block.Meta, object string) {
	t.Helper()
	var e *input.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, m.ULID, e.Block)
	require.ErrorContains(t, err, object)
	if !errors.Is(err, block.ErrUnknownVersion) {
		require.ErrorIs(t, err, block.ErrCorrupt)
	}
}

func put(t testing.TB, bkt block.Bucket, name string, body []byte) {
	require.NoError(t, bkt.Upload(context.Background(), name, bytes.NewReader(body)))
}

// TestOnTheWay: what comes changed or cut short only once is not held against
// the block. It reads as it should, but for symbols: these were handed out when
// it is found, so that there is an error that may be gone another time. RELIABILITY B1
func TestOnTheWay(t *testing.T) {
	bkt, m, dir := upload(t, series(20, 60), blocktest.Options{SamplesPerChunk: 10, SegmentBytes: 4096})
	want := twin(t, dir)
	through := &spoiled{Bucket: bkt}
	_, err := readAll(t.Context(), through, m, 200)
	require.NoError(t, err)
	requests := len(through.take())
	require.Greater(t, requests, 40)
	wrong := 0
	for seed := range int64(3) {
		for n := range requests {
			rnd := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
			for _, cut := range []bool{false, true} {
				got, err := readAll(t.Context(), &spoiled{Bucket: bkt, spoil: func(i int, body []byte) []byte {
					if i != n || len(body) == 0 {
						return body
					}
					at := rnd.IntN(len(body))
					if cut {
						return body[:at]
					}
					body = bytes.Clone(body)
					body[at] ^= 1 << rnd.IntN(8)
					return body
				}}, m, 200)
				if err != nil {
					require.False(t, cut, "seed %d, request %d", seed, n)
					require.ErrorContains(t, err, "symbols came wrong")
					require.NotErrorIs(t, err, block.ErrCorrupt)
					wrong++
					continue
				}
				require.Equal(t, want, got, "seed %d, request %d, cut %v", seed, n, cut)
			}
		}
	}
	require.Positive(t, wrong)
}

// TestFaults: a request that fails ends the reading with the bucket's error,
// which is not held against the block, and leaves nothing behind.
func TestFaults(t *testing.T) {
	defer proctest.NoLeaks(t)
	bkt, m, _ := upload(t, series(20, 60), blocktest.Options{SamplesPerChunk: 10, SegmentBytes: 4096})
	lost := errors.New("connection reset")
	for n := int64(0); ; n++ {
		var left atomic.Int64
		left.Store(n)
		_, err := readAll(t.Context(), bucket.WithFaults(bkt, func(context.Context, string, string) error {
			if left.Add(-1) == -1 {
				return lost
			}
			return nil
		}), m, 200)
		if left.Load() >= 0 {
			require.NoError(t, err)
			require.Greater(t, n, int64(50))
			return
		}
		if err != nil { // what was read ahead and never wanted may fail
			var e *input.Error
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, lost)
			require.NotErrorIs(t, err, block.ErrCorrupt)
		}
	}
}

// TestGone: a block that is removed while it is read is not corrupt.
func TestGone(t *testing.T) {
	bkt, m, _ := upload(t, series(20, 60), blocktest.Options{})
	b, err := input.Open(t.Context(), bkt, m, input.Config{})
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, bkt.Delete(t.Context(), block.Name(m.ULID, block.IndexFilename)))
	_, err = b.Next(t.Context())
	require.True(t, bkt.IsObjNotFoundErr(err), "%v", err)
	require.NotErrorIs(t, err, block.ErrCorrupt)
}

// TestVersions: other versions of index and segments are refused, by name.
func TestVersions(t *testing.T) {
	bkt, m, _ := upload(t, series(2, 10), blocktest.Options{})
	for _, rel := range []string{"index", "chunks/000001"} {
		name := block.Name(m.ULID, rel)
		whole := bkt.Objects()[name]
		data := bytes.Clone(whole)
		data[4] = 3 - data[4] // 1 for 2, 2 for 1
		put(t, bkt, name, data)
		_, err := readAll(t.Context(), bkt, m, 0)
		require.ErrorIs(t, err, block.ErrUnknownVersion)
		require.NotErrorIs(t, err, block.ErrCorrupt)
		require.ErrorContains(t, err, name)
		put(t, bkt, name, whole)
	}
}

// TestContext: a context that is done ends a call; another call goes on where
// the one before stopped, though its reading ahead is lost.
func TestContext(t *testing.T) {
	defer proctest.NoLeaks(t)
	bkt, m, dir := upload(t, series(40, 100), blocktest.Options{SamplesPerChunk: 10})
	want := twin(t, dir)
	b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: 1000})
	require.NoError(t, err)
	defer b.Close()
	symbols, err := readSymbols(t.Context(), b)
	require.NoError(t, err)
	var got dump
	for range 43 {
		done, cancel := context.WithCancel(t.Context())
		part, err := readSeries(done, b, symbols, 1)
		require.NoError(t, err)
		got = append(got, part...)
		cancel()
	}
	require.Equal(t, want, got)

	done, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, b.Seek(t.Context(), func(*input.Series) (bool, error) { return false, nil }))
	ss := b.Symbols(done)
	require.False(t, ss.Next())
	require.ErrorIs(t, ss.Err(), context.Canceled)
	_, _, err = b.Chunk(done, 8)
	require.ErrorIs(t, err, context.Canceled)
}

// TestTwoGoroutines: series in one, chunks in another.
func TestTwoGoroutines(t *testing.T) {
	bkt, m, dir := upload(t, series(40, 100), blocktest.Options{SamplesPerChunk: 10, SegmentBytes: 8192})
	want := twin(t, dir)
	b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: 1000})
	require.NoError(t, err)
	defer b.Close()
	refs, read := make(chan uint64), make(chan int)
	go func() {
		n := 0
		for ref := range refs {
			if _, _, err := b.Chunk(t.Context(), ref); err == nil {
				n++
			}
		}
		read <- n
	}()
	series, chunks := 0, 0
	for {
		s, err := b.Next(t.Context())
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		series++
		for _, c := range s.Chunks {
			chunks++
			refs <- c.Ref
		}
		require.Positive(t, b.Reads().Requests)
	}
	close(refs)
	require.Equal(t, chunks, <-read)
	require.Len(t, want, series+chunks)
}

// TestChunkAnyOrder: chunks come right whatever the order of asking. A failure
// prints the seed.
func TestChunkAnyOrder(t *testing.T) {
	bkt, m, _ := upload(t, series(200, 300), blocktest.Options{SegmentBytes: 64 << 10, SamplesPerChunk: 30})
	want := map[uint64]string{}
	var refs []uint64
	b, err := input.Open(t.Context(), bkt, m, input.Config{})
	require.NoError(t, err)
	for {
		s, err := b.Next(t.Context())
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		for _, c := range s.Chunks {
			enc, data, err := b.Chunk(t.Context(), c.Ref)
			require.NoError(t, err)
			want[c.Ref] = fmt.Sprint(enc, data)
			refs = append(refs, c.Ref)
		}
	}
	require.NoError(t, b.Close())
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		b, err := input.Open(t.Context(), bkt, m, input.Config{WindowBytes: 1 << (6 + rnd.IntN(12))})
		require.NoError(t, err)
		at := 0
		for range 500 {
			switch rnd.IntN(4) {
			case 0:
				at = rnd.IntN(len(refs))
			case 1:
				at = max(at-rnd.IntN(20), 0)
			default:
				at = min(at+rnd.IntN(4), len(refs)-1)
			}
			enc, data, err := b.Chunk(t.Context(), refs[at])
			require.NoError(t, err, "seed %d", seed)
			require.Equal(t, want[refs[at]], fmt.Sprint(enc, data), "seed %d", seed)
		}
		require.NoError(t, b.Close())
	}
	for _, ref := range []uint64{0, 7, 9, 1<<32 - 1, 1 << 60, 1<<64 - 1} {
		_, _, err := b.Chunk(t.Context(), ref)
		requireBad(t, err, m, m.ULID.String())
	}
	require.NoError(t, b.Close())
}

// TestMemory: all that reading a block from front to back ever takes is what
// MemoryBytes says, and the windows of the symbols: nothing is taken by the
// series or the chunk.
func TestMemory(t *testing.T) {
	bkt, m, _ := upload(t, series(3000, 500), blocktest.Options{SegmentBytes: 2 << 20})
	const window = 128 << 10
	cfg := input.Config{WindowBytes: window}
	require.Greater(t, m.SizeBytes(), int64(20*window))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := input.Open(t.Context(), bkt, m, cfg)
	require.NoError(t, err)
	s := b.Symbols(t.Context())
	for s.Next() {
		continue
	}
	require.NoError(t, s.Err())
	segments := uint64(0)
	for {
		s, err := b.Next(t.Context())
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		for _, c := range s.Chunks {
			segments = max(segments, c.Ref>>32+1)
			_, _, err := b.Chunk(t.Context(), c.Ref)
			require.NoError(t, err)
		}
	}
	require.NoError(t, b.Close())
	runtime.ReadMemStats(&after)
	took := int64(after.TotalAlloc - before.TotalAlloc)
	bound := input.MemoryBytes(m, cfg)
	t.Logf("took %d, bound %d, block %d bytes, %d segments", took, bound, m.SizeBytes(), segments)
	perSegment := int64(2 * (window + 32<<10)) // a segment's windows are not those of the next
	require.Less(t, took, bound+2*window+int64(segments-1)*perSegment+64<<10)
}
