package block_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/bucket"
)

// spoiled is a bucket whose answers are counted, and altered on the way: spoil
// gets the n-th body, from 1.
type spoiled struct {
	block.Bucket
	mu       sync.Mutex
	requests int
	bytes    int64
	spoil    func(n int, body []byte) []byte // nil: as they are
}

// count notes a request, and returns its number.
func (s *spoiled) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	return s.requests
}

func (s *spoiled) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	n := s.count()
	r, err := s.Bucket.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	s.mu.Lock()
	s.bytes += int64(len(body))
	s.mu.Unlock()
	if s.spoil != nil {
		body = s.spoil(n, bytes.Clone(body))
	}
	return io.NopCloser(bytes.NewReader(body)), err
}

func (s *spoiled) ListSizes(ctx context.Context, prefix string, f func(block.Object) error) error {
	s.count()
	return s.Bucket.ListSizes(ctx, prefix, f)
}

func remoteBlock(t testing.TB, series, samples int, opts blocktest.Options) (*bucket.Memory, *block.Meta) {
	var in []blocktest.Series
	for i := range series {
		in = append(in, blocktest.Series{
			Labels: labels.FromStrings("__name__", fmt.Sprintf("m%d", i%10), "instance", fmt.Sprintf("host-%06d", i)),
			Samples: blocktest.Floats(0, int64(samples)*15_000, 15_000, func(t int64) float64 {
				return float64((t * int64(i+1)) % 1009)
			}),
		})
	}
	dir, bkt := t.TempDir(), bucket.NewMemory()
	m := blocktest.Write(t, dir, in, labels.FromStrings("c", "a"), opts)
	m = blocktest.Upload(t, bkt, dir, m)
	return bkt, &m
}

// put replaces an object.
func put(t testing.TB, bkt block.Bucket, name string, body []byte) {
	require.NoError(t, bkt.Upload(context.Background(), name, bytes.NewReader(body)))
}

// TestVerifyRemote: whole blocks pass at a bounded cost, with and without
// meta.json and the sizes in it, raw and of many segments.
func TestVerifyRemote(t *testing.T) {
	for name, opts := range map[string]blocktest.Options{
		"plain": {}, "xor2": {XOR2: true}, "segments": {SegmentBytes: 4096, SamplesPerChunk: 5},
	} {
		for _, series := range []int{0, 1, 2, 50} {
			bkt, m := remoteBlock(t, series, 100, opts)
			c := &spoiled{Bucket: bkt}
			require.NoError(t, block.VerifyRemote(t.Context(), c, m), "%s %d", name, series)
			require.LessOrEqual(t, c.requests, 64)

			require.NoError(t, bkt.Delete(t.Context(), block.Name(m.ULID, block.MetaFilename)))
			require.NoError(t, block.VerifyRemote(t.Context(), bkt, m), "before the commit")
			m.Thanos.Files, m.Thanos.SegmentFiles = nil, nil
			require.NoError(t, block.VerifyRemote(t.Context(), bkt, m), "as old writers leave it")
		}
	}
}

// TestVerifyRemoteBounded: a block whose sections are too long to be read whole
// costs no more than a small one, and its samples are still looked at.
func TestVerifyRemoteBounded(t *testing.T) {
	bkt, m := remoteBlock(t, 100_000, 2, blocktest.Options{SegmentBytes: 128 << 10})
	require.Greater(t, len(m.Thanos.SegmentFiles), 12)
	c := &spoiled{Bucket: bkt}
	require.NoError(t, block.VerifyRemote(t.Context(), c, m))
	t.Logf("%d requests, %d bytes of %d", c.requests, c.bytes, m.SizeBytes())
	require.LessOrEqual(t, c.requests, 64)
	require.Greater(t, c.requests, 12*3, "series one by one")
	require.LessOrEqual(t, c.bytes, int64(16<<20))

	segments := m.Thanos.SegmentFiles
	for _, name := range []string{segments[0], segments[len(segments)-1]} { // of the first and the last series
		name = block.Name(m.ULID, block.ChunksDirname+"/"+name)
		whole := bkt.Objects()[name]
		data := bytes.Clone(whole)
		for i := range data[8:] {
			data[8+i] ^= 1
		}
		put(t, bkt, name, data)
		require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrCorrupt, name)
		put(t, bkt, name, whole)
	}
}

// TestVerifyRemoteOnTheWay: a body cut short or changed once is not held against
// the block. RELIABILITY B1
func TestVerifyRemoteOnTheWay(t *testing.T) {
	for series, opts := range map[int]blocktest.Options{20: {}, 80_000: {SegmentBytes: 128 << 10}} { // whole, and by samples
		bkt, m := remoteBlock(t, series, 2, opts)
		verifyOnTheWay(t, bkt, m)
	}
}

func verifyOnTheWay(t *testing.T, bkt block.Bucket, m *block.Meta) {
	c := &spoiled{Bucket: bkt}
	require.NoError(t, block.VerifyRemote(t.Context(), c, m))
	for n := range c.requests + 1 {
		require.NoError(t, block.VerifyRemote(t.Context(), &spoiled{Bucket: bkt, spoil: func(i int, body []byte) []byte {
			if i == n && len(body) > 0 {
				body[len(body)/2] ^= 4
			}
			return body
		}}, m), "request %d changed", n)
		require.NoError(t, block.VerifyRemote(t.Context(), &spoiled{Bucket: bkt, spoil: func(i int, body []byte) []byte {
			if i == n {
				return body[:len(body)/2]
			}
			return body
		}}, m), "request %d cut", n)
	}
}

// TestVerifyRemoteFiles: objects that are missing, short or too many. RELIABILITY S3, C6
func TestVerifyRemoteFiles(t *testing.T) {
	bkt, m := remoteBlock(t, 20, 300, blocktest.Options{SegmentBytes: 2048, SamplesPerChunk: 50})
	require.Greater(t, len(m.Thanos.SegmentFiles), 2)
	for name, whole := range bkt.Objects() {
		if strings.HasSuffix(name, block.MetaFilename) {
			continue
		}
		require.NoError(t, bkt.Delete(t.Context(), name))
		require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrNotVerified, name)
		put(t, bkt, name, whole[:len(whole)-1])
		require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrNotVerified, name)
		put(t, bkt, name, append(bytes.Clone(whole), 0))
		require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrNotVerified, name)
		put(t, bkt, name, whole)
		require.NoError(t, block.VerifyRemote(t.Context(), bkt, m))
	}
	put(t, bkt, block.Name(m.ULID, "chunks/000099"), nil)
	require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrNotVerified)
}

// TestVerifyRemoteBytes: in a block short enough to be looked at whole a change
// of any byte of the index is found, but for padding and sections that nobody
// reads; and so is a chunk that is not the series' own.
func TestVerifyRemoteBytes(t *testing.T) {
	bkt, m := remoteBlock(t, 4, 20, blocktest.Options{})
	for name, whole := range bkt.Objects() {
		if strings.HasSuffix(name, block.MetaFilename) {
			continue
		}
		unnoticed := 0
		for at := range whole {
			data := bytes.Clone(whole)
			data[at] ^= 0x10
			put(t, bkt, name, data)
			err := block.VerifyRemote(t.Context(), bkt, m)
			switch {
			case err == nil:
				unnoticed++
			default:
				require.ErrorContains(t, err, m.ULID.String())
				require.ErrorContains(t, err, name)
				if at != 4 {
					require.ErrorIs(t, err, block.ErrCorrupt)
				} else {
					require.ErrorIs(t, err, block.ErrUnknownVersion)
				}
			}
		}
		put(t, bkt, name, whole)
		t.Logf("%s: %d of %d bytes are not looked at", name, unnoticed, len(whole))
		most := 3 // the unused bytes of a segment's header
		if strings.HasSuffix(name, block.IndexFilename) {
			most = len(whole) / 2 // other postings, padding
		}
		require.LessOrEqual(t, unnoticed, most, name)
	}
}

// TestVerifyRemoteCounts: the numbers of meta.json are those of the index.
func TestVerifyRemoteCounts(t *testing.T) {
	bkt, m := remoteBlock(t, 5, 20, blocktest.Options{})
	m.Stats.NumSeries++
	require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrCorrupt)
	m.Stats.NumSeries--
	m.Stats.NumChunks++
	require.ErrorIs(t, block.VerifyRemote(t.Context(), bkt, m), block.ErrCorrupt)
}

// TestVerifyRemoteFaults: what the bucket says goes up as it is, and is not held
// against the block.
func TestVerifyRemoteFaults(t *testing.T) {
	bkt, m := remoteBlock(t, 20, 100, blocktest.Options{})
	for n := 0; ; n++ {
		var left atomic.Int64
		left.Store(int64(n))
		failing := bucket.WithFaults(bkt, func(_ context.Context, point, _ string) error {
			if left.Add(-1) == -1 {
				return context.DeadlineExceeded
			}
			return nil
		})
		err := block.VerifyRemote(t.Context(), failing, m)
		if left.Load() >= 0 {
			require.NoError(t, err)
			require.Greater(t, n, 10)
			return
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, block.ErrCorrupt)
		require.NotErrorIs(t, err, block.ErrNotVerified)
	}
}

// TestShortAnswersAreNotCorrupt: a store that cuts every answer off is at fault,
// not the block, whose object is as long as it should be. RELIABILITY B1
func TestShortAnswersAreNotCorrupt(t *testing.T) {
	bkt, m := remoteBlock(t, 20, 100, blocktest.Options{})
	cut := &spoiled{Bucket: bkt, spoil: func(_ int, body []byte) []byte { return body[:len(body)/2] }}
	err := block.VerifyRemote(t.Context(), cut, m)
	require.ErrorContains(t, err, "index: offset ")
	require.NotErrorIs(t, err, block.ErrCorrupt)
}

// long has an object of one chunk, which says that it has a MiB and has another checksum.
type long struct {
	block.Bucket
	now, most atomic.Int32 // bodies of the whole that are read
}

func (l *long) GetRange(_ context.Context, _ string, _, length int64) (io.ReadCloser, error) {
	body := make([]byte, length)
	binary.PutUvarint(body, 1<<20)
	if length <= 1<<20 {
		return io.NopCloser(bytes.NewReader(body)), nil
	}
	now := l.now.Add(1)
	for most := l.most.Load(); now > most && !l.most.CompareAndSwap(most, now); most = l.most.Load() {
	}
	for range 100 {
		runtime.Gosched() // for others to come
	}
	l.now.Add(-1)
	return io.NopCloser(bytes.NewReader(body)), nil
}

// TestLongRecordsOneByOne: of records that are read side by side and say that they are huge one is in
// memory at a time. RELIABILITY P7
func TestLongRecordsOneByOne(t *testing.T) {
	var (
		l    long
		lock sync.Mutex
		g    sync.WaitGroup
	)
	for range 8 {
		g.Go(func() {
			r := block.RangeReader{Bucket: &l, SizeBytes: 2 << 20, Long: &lock}
			_, err := r.Record(t.Context(), layout.Span{End: r.SizeBytes}, layout.ChunkRecord, 4<<10)
			assert.ErrorIs(t, err, block.ErrCorrupt)
		})
	}
	g.Wait()
	require.EqualValues(t, 1, l.most.Load())
}
