package fetch

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// faulty changes the bodies of the first answers and counts all of them.
type faulty struct {
	objstore.Bucket
	mu     sync.Mutex
	gets   int
	faults int
	change func([]byte) []byte
}

func (f *faulty) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	body, err := f.Bucket.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gets++
	if f.faults > 0 {
		f.faults--
		b = f.change(bytes.Clone(b))
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// chunkRecord frames data as a segment file does.
func chunkRecord(data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(data)))
	at := len(b)
	b = append(b, 1)
	b = append(b, data...)
	return binary.BigEndian.AppendUint32(b, layout.Sum(b[at:]))
}

func newFetcher(t *testing.T, object []byte) (*Fetcher, *faulty) {
	bkt := &faulty{Bucket: objstore.NewInMemBucket()}
	require.NoError(t, bkt.Upload(t.Context(), "o", bytes.NewReader(object)))
	cfg := Config{Gap: 16, MaxRead: 1 << 20, PerRequest: 4, Concurrency: 4}
	return New(cfg, bkt, prometheus.NewRegistry()), bkt
}

func TestRecordsShortGuess(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var object []byte
	var want [][]byte
	var spans []Span
	for range 50 {
		data := make([]byte, 1+rnd.IntN(300))
		for i := range data {
			data[i] = byte(rnd.IntN(256))
		}
		rec := chunkRecord(data)
		spans = append(spans, Span{int64(len(object)), int64(len(object)) + 1 + rnd.Int64N(400)})
		object, want = append(object, rec...), append(want, rec)
	}
	f, _ := newFetcher(t, object)
	got, cost, err := f.Records(t.Context(), Terms{}, Chunk, Object{"o", int64(len(object))}, spans)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Positive(t, cost.Reads)
}

// RELIABILITY B1: cut or flipped once is mended by reading again; for good it is
// an error that names object and offset.
func TestRecordsFaults(t *testing.T) {
	object := append(make([]byte, 100), chunkRecord([]byte("some bytes of a chunk"))...)
	spans := []Span{{100, int64(len(object))}}
	for name, change := range map[string]func([]byte) []byte{
		"cut":         func(b []byte) []byte { return b[:len(b)/2] },
		"empty":       func(b []byte) []byte { return nil },
		"flip data":   func(b []byte) []byte { b[5] ^= 1; return b },
		"flip sum":    func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"flip length": func(b []byte) []byte { b[0] ^= 0x40; return b },
		"zero length": func(b []byte) []byte { b[0] = 0; return b },
	} {
		t.Run(name, func(t *testing.T) {
			f, bkt := newFetcher(t, object)
			bkt.faults, bkt.change = 1, change
			got, _, err := f.Records(t.Context(), Terms{}, Chunk, Object{"o", int64(len(object))}, spans)
			require.NoError(t, err)
			require.Equal(t, object[100:], got[0])
			require.Equal(t, 2, bkt.gets)

			f, bkt = newFetcher(t, object)
			bkt.faults, bkt.change = 100, change
			_, _, err = f.Records(t.Context(), Terms{}, Chunk, Object{"o", int64(len(object))}, spans)
			require.ErrorIs(t, err, storeapi.ErrCorrupt)
			require.ErrorContains(t, err, "object o ")
			require.ErrorContains(t, err, "offset 1")
			require.LessOrEqual(t, bkt.gets, 3)
		})
	}
}

// A broken length must not make us read the world.
func TestRecordsLengthBounded(t *testing.T) {
	object := append(binary.AppendUvarint(nil, 1<<40), make([]byte, 64)...)
	f, _ := newFetcher(t, object)
	_, cost, err := f.Records(t.Context(), Terms{}, Series, Object{"o", int64(len(object))}, []Span{{0, 64}})
	require.ErrorIs(t, err, storeapi.ErrCorrupt)
	require.LessOrEqual(t, cost.Bytes, int64(256))
}

// The place of a postings list is known, so a length that does not fit it is
// broken and nothing is read because of it.
func TestPostingsLengthBounded(t *testing.T) {
	object := append([]byte{0, 0, 3, 0}, make([]byte, 4096)...)
	f, _ := newFetcher(t, object)
	_, cost, err := f.Records(t.Context(), Terms{}, Postings, Object{"o", int64(len(object))}, []Span{{0, 16}})
	require.ErrorIs(t, err, storeapi.ErrCorrupt)
	require.EqualValues(t, 32, cost.Bytes)
}

func TestBudgetBeforeFetch(t *testing.T) {
	object := make([]byte, 4096)
	f, bkt := newFetcher(t, object)
	budget := NewBudget(1000, "bytes", "store.grpc.downloaded-bytes-limit")
	_, _, err := f.Records(t.Context(), Terms{Bytes: budget}, Chunk, Object{"o", 4096}, []Span{{0, 600}, {2000, 2600}})
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.ErrorContains(t, err, "--store.grpc.downloaded-bytes-limit allows 1000")
	require.Zero(t, bkt.gets, "nothing may be read before the limit says yes")
}

func TestSplitReadsAssemble(t *testing.T) {
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	object := chunkRecord(data)
	f, bkt := newFetcher(t, object)
	f.cfg.MaxRead = 512
	got, _, err := f.Records(t.Context(), Terms{}, Chunk, Object{"o", int64(len(object))}, []Span{{0, 16000}})
	require.NoError(t, err)
	require.Equal(t, object, got[0])
	require.Greater(t, bkt.gets, 9)
}

// RELIABILITY P7: the gaps that are read over take memory too.
func TestHeldCountsGaps(t *testing.T) {
	var object []byte
	var spans []Span
	for range 10 {
		rec := chunkRecord(make([]byte, 20))
		spans = append(spans, Span{int64(len(object)), int64(len(object) + len(rec))})
		object = append(append(object, rec...), make([]byte, 10)...)
	}
	f, _ := newFetcher(t, object)
	held := NewBudget(int64(len(object)), "bytes", "chunk-pool-size")
	_, cost, err := f.Records(t.Context(), Terms{Held: held}, Chunk, Object{"o", int64(len(object))}, spans)
	require.NoError(t, err)
	require.EqualValues(t, spans[9].End, cost.Bytes)
	require.Equal(t, cost.Bytes, held.Used())
	held.Give(cost.Bytes)

	held = NewBudget(cost.Bytes-1, "bytes", "chunk-pool-size")
	_, cost, err = f.Records(t.Context(), Terms{Held: held}, Chunk, Object{"o", int64(len(object))}, spans)
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.Equal(t, cost.Bytes, held.Used(), "what is to be given back")
}
