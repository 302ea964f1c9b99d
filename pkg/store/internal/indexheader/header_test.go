package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"
	"github.com/thanos-io/objstore"

	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// counting counts the bytes that leave the bucket and can break them.
type counting struct {
	objstore.Bucket
	bytes, gets atomic.Int64
	faults      atomic.Int64
	change      func([]byte) []byte
}

func (c *counting) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	r, err := c.Bucket.GetRange(ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	c.bytes.Add(int64(len(b)))
	if c.faults.Add(-1) >= 0 {
		b = c.change(bytes.Clone(b))
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// fixture is an index in a bucket beside Prometheus' own reader of it.
type fixture struct {
	raw    []byte
	bkt    *counting
	reader *index.Reader
	src    Source
}

// realistic are series as a cluster has them, 40 a pod, over two hours.
func realistic(pods int) []blocktest.Series {
	var series []blocktest.Series
	for pod := range pods {
		for m := range 40 {
			series = append(series, blocktest.Series{
				Labels: labels.FromStrings("__name__", fmt.Sprintf("container_metric_number_%d_total", m),
					"namespace", fmt.Sprintf("team-%d", pod%17), "pod", fmt.Sprintf("service-%d-7d9f8b6c5d-%05d", pod%31, pod*7919),
					"container", fmt.Sprintf("main-%d", pod%31), "instance", fmt.Sprintf("10.0.%d.%d:8080", pod/250, pod%250), "job", "kubelet"),
				Samples: blocktest.Floats(0, 7_200_000, 15_000, func(t int64) float64 { return float64(t) * float64(m) }),
			})
		}
	}
	return series
}

func newFixture(t testing.TB, series []blocktest.Series) *fixture {
	dir := t.TempDir()
	m := blocktest.Write(t, dir, series, labels.FromStrings("cluster", "a"), blocktest.Options{})
	raw, err := os.ReadFile(filepath.Join(dir, m.ULID.String(), "index"))
	require.NoError(t, err)
	return newFixtureOf(t, raw)
}

func newFixtureOf(t testing.TB, raw []byte) *fixture {
	f := &fixture{raw: raw, bkt: &counting{Bucket: objstore.NewInMemBucket()}}
	require.NoError(t, f.bkt.Upload(context.Background(), "index", bytes.NewReader(raw)))
	f.src = Source{Bucket: f.bkt, Object: "index", IndexBytes: int64(len(raw)), Folder: t.TempDir()}
	f.reader, _ = index.NewReader(slice(raw), index.DecodePostingsRaw)
	return f
}

type slice []byte

func (s slice) Len() int                           { return len(s) }
func (s slice) Range(start, end int) []byte        { return s[start:end] }
func (s slice) Sub(start, end int) index.ByteSlice { return s[start:end] }

func (f *fixture) header() *Header {
	return New(f.src, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()), time.Now)
}

// verify compares everything a header says with what Prometheus' reader says.
func (f *fixture) verify(t *testing.T, h *Header) {
	ctx := t.Context()
	names, err := h.Names(ctx)
	require.NoError(t, err)
	want, err := f.reader.LabelNames(ctx)
	require.NoError(t, err)
	require.Equal(t, want, names)

	ranges, err := f.reader.PostingsRanges()
	require.NoError(t, err)
	span := func(name, value string) fetch.Span {
		r := ranges[labels.Label{Name: name, Value: value}] // between length and checksum
		return fetch.Span{Start: r.Start - 4, End: r.End + 4}
	}
	for _, name := range names {
		values, err := f.reader.SortedLabelValues(ctx, name, nil)
		require.NoError(t, err)
		all, err := h.Match(ctx, name, "", nil)
		require.NoError(t, err)
		require.Len(t, all, len(values))
		for i, p := range all {
			require.Equal(t, values[i], p.Value)
			require.Equal(t, span(name, p.Value), p.Span)
		}
		ask := []string{"", "zzz", "aaa", values[len(values)-1], values[0], values[len(values)/2], values[0]}
		got, err := h.Postings(ctx, name, ask)
		require.NoError(t, err)
		wantValues := slices.Compact(slices.Sorted(slices.Values([]string{values[0], values[len(values)/2], values[len(values)-1]})))
		require.Len(t, got, len(wantValues))
		for i, p := range got {
			require.Equal(t, wantValues[i], p.Value)
			require.Equal(t, span(name, p.Value), p.Span)
		}
	}
	all, ok, err := h.All(ctx)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, span("", ""), all.Span)

	var ids []uint32
	var symbols []string
	for it := f.reader.Symbols(); it.Next(); {
		ids, symbols = append(ids, uint32(len(ids))), append(symbols, it.At())
	}
	require.NoError(t, h.Symbols(ctx, ids, func(id uint32, s string) { require.Equal(t, symbols[id], s) }))
	some := []uint32{1, 5, 33, 34, ids[len(ids)-1]}
	seen := 0
	require.NoError(t, h.Symbols(ctx, some, func(id uint32, s string) { seen++; require.Equal(t, symbols[id], s) }))
	require.Equal(t, len(some), seen)
}

// The whole index is never read: less than 15 % of it, by three requests.
func TestBuildReadsLittle(t *testing.T) {
	f := newFixture(t, realistic(200))
	h := f.header()
	defer h.Close()
	require.NoError(t, h.Ensure(t.Context()))
	t.Logf("index %d bytes, read %d bytes (%.1f %%)", len(f.raw), f.bkt.bytes.Load(), 100*float64(f.bkt.bytes.Load())/float64(len(f.raw)))
	require.Less(t, float64(f.bkt.bytes.Load()), 0.15*float64(len(f.raw)))
	require.EqualValues(t, 3, f.bkt.gets.Load())

	f.verify(t, h)
	require.EqualValues(t, 3, f.bkt.gets.Load(), "a header that is there asks the bucket nothing")
	again := f.header()
	defer again.Close()
	f.verify(t, again)
	require.EqualValues(t, 3, f.bkt.gets.Load(), "nor does a new process")
}

func TestMatchPrefix(t *testing.T) {
	f := newFixture(t, realistic(200))
	h := f.header()
	defer h.Close()
	for _, prefix := range []string{"", "s", "service-1", "service-19-7d9", "zz", "a", "service-30-7d9f8b6c5d-999999"} {
		values, err := f.reader.SortedLabelValues(t.Context(), "pod", nil)
		require.NoError(t, err)
		values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return !bytes.HasPrefix([]byte(v), []byte(prefix)) || v[len(v)-1] == '3' })
		got, err := h.Match(t.Context(), "pod", prefix, func(v string) bool { return v[len(v)-1] != '3' })
		require.NoError(t, err)
		require.Len(t, got, len(values), prefix)
		for i := range got {
			require.Equal(t, values[i], got[i].Value)
		}
	}
}

// RELIABILITY G2: a header file torn at any place, or with any byte flipped, is
// built again, and what is read is right.
func TestDamagedFile(t *testing.T) {
	f := newFixture(t, realistic(5))
	h := f.header()
	require.NoError(t, h.Ensure(t.Context()))
	whole, err := os.ReadFile(h.path())
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(5, 6))
	check := func(content []byte) {
		require.NoError(t, os.WriteFile(h.path(), content, 0o644))
		h := f.header()
		defer h.Close()
		f.verify(t, h)
	}
	for n := 0; n < len(whole); n += 1 + len(whole)/12 {
		check(whole[:n])
	}
	for range 20 {
		b := bytes.Clone(whole)
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		check(b)
	}
	newer := bytes.Clone(whole)
	newer[4]++
	check(newer)
	check(append(bytes.Clone(whole), 0))
	now, err := os.ReadFile(h.path())
	require.NoError(t, err)
	require.Equal(t, whole, now, "what is built again is what was built first")
}

// RELIABILITY G3: the file shrinks while it is open: built again, no process death.
func TestFileTruncatedWhileOpen(t *testing.T) {
	f := newFixture(t, realistic(5))
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	h := New(f.src, slog.New(slog.DiscardHandler), m, time.Now)
	defer h.Close()
	f.verify(t, h)
	require.NoError(t, os.Truncate(h.path(), 100))
	f.verify(t, h)
	require.EqualValues(t, 1, testutil.ToFloat64(m.damaged))
}

// RELIABILITY B1: an index cut or flipped on the way once is read again; one
// that is broken for good is an error naming object and offset, and leaves no file.
func TestBrokenIndex(t *testing.T) {
	f := newFixture(t, realistic(3))
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[len(b)*at/100] ^= 0x10; return b }
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut": func(b []byte) []byte { return b[:len(b)/2] }, "flip 10": flip(10), "flip 50": flip(50), "flip 90": flip(90),
		"empty": func([]byte) []byte { return nil },
	} {
		for faults, ok := range map[int64]bool{1: true, 1000: false} {
			for skip := range int64(3) { // which of the three reads breaks first
				g := newFixtureOf(t, f.raw)
				left := skip
				g.bkt.change = func(b []byte) []byte {
					if left > 0 {
						left--
						return b
					}
					return change(b)
				}
				g.bkt.faults.Store(faults + skip)
				h := g.header()
				err := h.Ensure(t.Context())
				if ok {
					require.NoError(t, err, "%s %d", name, skip)
					g.verify(t, h)
				} else {
					require.ErrorIs(t, err, storeapi.ErrCorrupt, name)
					require.ErrorContains(t, err, "object index at offset ")
					entries, err := os.ReadDir(g.src.Folder)
					require.NoError(t, err)
					require.Empty(t, entries)
				}
				h.Close()
			}
		}
	}
}

func TestIndexVersion1(t *testing.T) {
	f := newFixture(t, realistic(2))
	raw := bytes.Clone(f.raw)
	raw[4] = 1
	h := newFixtureOf(t, raw).header()
	require.ErrorContains(t, h.Ensure(t.Context()), "index version 1 is not supported")
}

func TestMissingIndex(t *testing.T) {
	f := newFixture(t, realistic(2))
	f.src.Object = "nowhere/index"
	err := f.header().Ensure(t.Context())
	require.ErrorAs(t, err, new(*fetch.GoneError))
	require.ErrorContains(t, err, "nowhere/index")
}

func TestUnloadIdle(t *testing.T) {
	f := newFixture(t, realistic(2))
	now := time.Unix(1000, 0)
	m := NewMetrics(prometheus.NewRegistry())
	h := New(f.src, slog.New(slog.DiscardHandler), m, func() time.Time { return now })
	f.verify(t, h)
	h.UnloadIdle(now.Add(-time.Minute))
	require.EqualValues(t, 1, testutil.ToFloat64(m.loaded))
	h.UnloadIdle(now.Add(time.Minute))
	require.EqualValues(t, 0, testutil.ToFloat64(m.loaded))
	f.verify(t, h)
	require.EqualValues(t, 2, testutil.ToFloat64(m.loads))
	require.EqualValues(t, 1, testutil.ToFloat64(m.builds))
	h.Close()
}

func FuzzDirectory(f *testing.F) {
	dir := &directory{series: fetch.Span{Start: 100, End: 200}, symbols: 40, groups: []int64{16, 40, 60},
		names: []nameEntry{{name: "", values: 1, first: []string{""}, groups: []int64{60, 70}},
			{name: "job", values: 33, first: []string{"a", "z"}, groups: []int64{70, 90, 99}}}}
	f.Add(dir.encode(), int64(99))
	f.Add([]byte{}, int64(16))
	huge := binary.AppendUvarint([]byte{1, 2}, math.MaxInt64) // so many symbols
	f.Add(append(huge, 0, 0), int64(16))
	f.Fuzz(func(t *testing.T, b []byte, end int64) {
		d, err := decodeDirectory(b, end)
		if err != nil {
			require.ErrorIs(t, err, errDamaged)
			return
		}
		again, err := decodeDirectory(d.encode(), end)
		require.NoError(t, err)
		require.Equal(t, d, again)
	})
}

func FuzzGroups(f *testing.F) {
	group := binary.AppendUvarint(append([]byte{3}, "abc"...), 77)
	group = binary.AppendUvarint(group, 12)
	f.Add(group)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = binary.BigEndian.AppendUint32(b, crcOf(b)) // else nothing gets past the checksum
		entries, err := decodePostings(b, nil)
		if err != nil {
			require.ErrorIs(t, err, errDamaged)
		}
		require.LessOrEqual(t, len(entries), len(b))
		_ = decodeSymbols(b, func(int, []byte) {})
	})
}

func BenchmarkOpen(b *testing.B) {
	f := newFixture(b, realistic(200))
	h := f.header()
	require.NoError(b, h.Ensure(b.Context()))
	b.ReportAllocs()
	for b.Loop() {
		r, err := openReader(h.path(), f.src.IndexBytes)
		require.NoError(b, err)
		r.close()
	}
}

// A header is closed when its block is dropped; whoever unloads idle headers may
// come at the same moment.
func TestCloseWhileUnloading(t *testing.T) {
	f := newFixture(t, realistic(1))
	m := NewMetrics(prometheus.NewRegistry())
	for range 50 {
		h := New(f.src, slog.New(slog.DiscardHandler), m, time.Now)
		_, err := h.Names(t.Context())
		require.NoError(t, err)
		var g sync.WaitGroup
		g.Go(func() { h.UnloadIdle(time.Now().Add(time.Hour)) })
		g.Go(h.Close)
		g.Wait()
		require.Zero(t, testutil.ToFloat64(m.loaded), "let go of once")
	}
}
