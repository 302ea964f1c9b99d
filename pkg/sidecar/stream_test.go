package sidecar

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// TestStreamOrder has label sets that are prefixes of others, and no labels of
// the external labels' names: the order changes though nothing is sorted.
func TestStreamOrder(t *testing.T) {
	p := newFakeProm(t)
	var body []byte
	c := chunkAt(t, 1000, 3)
	for _, pairs := range [][]string{
		{"__name__", "m", "a", "1", "cluster", "eu-1"},
		{"__name__", "m", "a", "1", "b", "1", "cluster", "eu-1"},
		{"__name__", "m", "a", "1", "b", "1", "cluster", "eu-1", "zone", "1"},
		{"__name__", "m", "a", "1", "cluster", "eu-1", "zone", "1"},
		{"__name__", "m", "a", "2", "cluster", "eu-1"},
	} {
		body = append(body, frame(t, labels.FromStrings(pairs...), c)...)
	}
	p.onRead(streaming(body))
	s := ready(t, run(t, testCfg(t, p.URL)))
	got, err := readAll(t, s.Services().Store, selection("m"))
	require.NoError(t, err)
	require.Equal(t, `{__name__="m", a="1", b="1", cluster="eu-1"} 1
{__name__="m", a="1", b="1", cluster="eu-1", zone="1"} 1
{__name__="m", a="1", cluster="eu-1"} 1
{__name__="m", a="1", cluster="eu-1", zone="1"} 1
{__name__="m", a="2", cluster="eu-1"} 1
`, text(got))
}

// TestStreamFrames merges the frames of a series, also those that hold several series.
func TestStreamFrames(t *testing.T) {
	p := newFakeProm(t)
	a := labels.FromStrings("__name__", "a", "cluster", "eu-1")
	b := labels.FromStrings("__name__", "b", "cluster", "eu-1")
	var body []byte
	for i := range 3 {
		body = append(body, frame(t, a, chunkAt(t, int64(i)*10_000, 5), chunkAt(t, int64(i)*10_000+5_000, 5))...)
	}
	body = append(body, frame(t, b, chunkAt(t, 20_000, 5))...)
	body = append(body, frame(t, b, chunkAt(t, 10_000, 5), chunkAt(t, 20_000, 5))...)
	p.onRead(streaming(body))
	s := ready(t, run(t, testCfg(t, p.URL)))
	got, err := readAll(t, s.Services().Store, selection("a|b"))
	require.NoError(t, err)
	require.Equal(t, "{__name__=\"a\", cluster=\"eu-1\"} 6\n{__name__=\"b\", cluster=\"eu-1\"} 2\n", text(got))
	require.Equal(t, int64(10_000), got[1].Chunks[0].MinTime, "chunks are sorted")
}

// TestStreamCut ends the answer at each byte: only between frames, where HTTP
// must tell, can it look complete.
func TestStreamCut(t *testing.T) {
	p := newFakeProm(t)
	s := ready(t, run(t, testCfg(t, p.URL)))
	first := frame(t, labels.FromStrings("__name__", "a"), chunkAt(t, 0, 3))
	body := append(first, frame(t, labels.FromStrings("__name__", "b"), chunkAt(t, 0, 3))...)
	for n := range len(body) {
		p.onRead(streaming(body[:n]))
		got, err := readAll(t, s.Services().Store, selection("a|b"))
		if n == 0 || n == len(first) {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, storeapi.ErrUnavailable, "cut after %d bytes, got %v", n, text(got))
		// Where HTTP says how long the answer is, the cut shows between frames as well.
		p.onRead(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			streaming(body[:n])(w, r)
			panic(http.ErrAbortHandler)
		})
		_, err = readAll(t, s.Services().Store, selection("a|b"))
		require.Error(t, err)
	}
}

// TestStreamFlipped flips each bit of an answer: none may go unseen.
func TestStreamFlipped(t *testing.T) {
	p := newFakeProm(t)
	cfg := testCfg(t, p.URL)
	cfg.Prometheus.MaxFrameBytes = 1 << 20
	s := ready(t, run(t, cfg))
	body := frame(t, labels.FromStrings("__name__", "a"), chunkAt(t, 0, 3))
	for i := range len(body) * 8 {
		bad := append([]byte{}, body...)
		bad[i/8] ^= 1 << (i % 8)
		p.onRead(streaming(bad))
		_, err := readAll(t, s.Services().Store, selection("a"))
		require.Error(t, err, "bit %d", i)
	}
}

// TestStreamGarbage has frames that are whole and say nonsense.
func TestStreamGarbage(t *testing.T) {
	p := newFakeProm(t)
	s := ready(t, run(t, testCfg(t, p.URL)))
	a := labels.FromStrings("__name__", "a")
	unknown, short, backwards := chunkAt(t, 0, 1), chunkAt(t, 0, 1), chunkAt(t, 0, 1)
	unknown.Raw.Encoding, short.Raw.Bytes, backwards.MinTime = 99, []byte{0}, 1
	for name, body := range map[string][]byte{
		"no protobuf":      seal([]byte("what is this")),
		"unknown encoding": frame(t, a, unknown),
		"short chunk":      frame(t, a, short),
		"backwards":        frame(t, a, backwards),
		"cut message":      seal([]byte{0x0a, 0x7f}),
	} {
		t.Run(name, func(t *testing.T) {
			p.onRead(streaming(body))
			_, err := readAll(t, s.Services().Store, selection("a"))
			require.ErrorIs(t, err, storeapi.ErrCorrupt)
			require.ErrorContains(t, err, p.URL)
		})
	}
}

// TestStreamLimits names the flag of each limit.
func TestStreamLimits(t *testing.T) {
	p := newFakeProm(t)
	var body []byte
	for i := range 5 {
		body = append(body, frame(t, labels.FromStrings("__name__", "a", "i", fmt.Sprint(i)), chunkAt(t, 0, 10))...)
	}
	p.onRead(streaming(body))
	for _, c := range []struct {
		flag string
		set  func(*Config)
	}{
		{"--store.limits.request-series", func(c *Config) { c.Limits.RequestSeries = 4 }},
		{"--store.limits.request-samples", func(c *Config) { c.Limits.RequestSamples = 49 }},
		{"--prometheus.max-frame-bytes", func(c *Config) { c.Prometheus.MaxFrameBytes = 20 }},
	} {
		t.Run(c.flag, func(t *testing.T) {
			cfg := testCfg(t, p.URL)
			c.set(&cfg)
			_, err := readAll(t, ready(t, run(t, cfg)).Services().Store, selection("a"))
			require.ErrorIs(t, err, storeapi.ErrLimit)
			require.ErrorContains(t, err, c.flag)
		})
	}
	t.Run("--store.limits.sort-bytes", func(t *testing.T) {
		p.set(func() { p.mu.names = append(p.mu.names, "cluster") })
		cfg := testCfg(t, p.URL)
		cfg.Limits.SortBytes = 200
		_, err := readAll(t, ready(t, run(t, cfg)).Services().Store, selection("a"))
		require.ErrorIs(t, err, storeapi.ErrLimit)
		require.ErrorContains(t, err, "--store.limits.sort-bytes")
	})
	t.Run("just enough", func(t *testing.T) {
		cfg := testCfg(t, p.URL)
		cfg.Limits.RequestSeries, cfg.Limits.RequestSamples = 5, 50
		got, err := readAll(t, ready(t, run(t, cfg)).Services().Store, selection("a"))
		require.NoError(t, err)
		require.Len(t, got, 5)
	})
}

// TestStreamDisorder has a label come up that series were not known to have.
func TestStreamDisorder(t *testing.T) {
	p := newFakeProm(t)
	cfg := testCfg(t, p.URL)
	require.NoError(t, cfg.Prometheus.LabelsTTL.Set("1h"))
	s := ready(t, run(t, cfg))
	p.onRead(streaming(append(
		frame(t, labels.FromStrings("__name__", "a", "cluster", "other"), chunkAt(t, 0, 1)),
		frame(t, labels.FromStrings("__name__", "a", "cluster", "own"), chunkAt(t, 5000, 1))...)))
	_, err := readAll(t, s.Services().Store, selection("a"))
	require.ErrorIs(t, err, storeapi.ErrUnavailable)

	// What was remembered is forgotten, so asking again is right.
	p.set(func() { p.mu.names = append(p.mu.names, "cluster") })
	got, err := readAll(t, ready(t, s).Services().Store, selection("a"))
	require.NoError(t, err)
	require.Equal(t, "{__name__=\"a\", cluster=\"eu-1\"} 2\n", text(got))
}

// TestHanging has a Prometheus that says nothing, from the start or on the way.
func TestHanging(t *testing.T) {
	p := newFakeProm(t)
	hang := func(body []byte) (hung chan struct{}) {
		hung = make(chan struct{}, 1)
		p.onRead(func(w http.ResponseWriter, r *http.Request) {
			if body != nil {
				streaming(body)(w, r)
				w.(http.Flusher).Flush()
			}
			hung <- struct{}{}
			<-r.Context().Done()
		})
		return hung
	}
	body := frame(t, labels.FromStrings("__name__", "a"), chunkAt(t, 0, 3))
	for name, body := range map[string][]byte{"before headers": nil, "before a frame": {}, "within a frame": body[:len(body)-2], "after a frame": body} {
		t.Run(name+", idle", func(t *testing.T) {
			hang(body)
			cfg := testCfg(t, p.URL)
			require.NoError(t, cfg.Prometheus.ReadIdleTimeout.Set("50ms"))
			_, err := readAll(t, ready(t, run(t, cfg)).Services().Store, selection("a"))
			require.ErrorIs(t, err, storeapi.ErrUnavailable)
			require.ErrorContains(t, err, "--prometheus.read-idle-timeout")
		})
		t.Run(name+", cancelled", func(t *testing.T) {
			hung := hang(body)
			store := ready(t, run(t, testCfg(t, p.URL))).Services().Store
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				<-hung
				cancel()
			}()
			set, err := store.Series(ctx, selection("a"))
			if err == nil {
				defer set.Close()
				for set.Next() {
				}
				err = set.Err()
			}
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

// TestSlots lets only so many reads at Prometheus, and gives their slots back.
func TestSlots(t *testing.T) {
	p := newFakeProm(t)
	p.onRead(streaming(frame(t, labels.FromStrings("__name__", "a"), chunkAt(t, 0, 3))))
	cfg := testCfg(t, p.URL)
	cfg.Prometheus.MaxReads = 1
	s := ready(t, run(t, cfg))
	store := s.Services().Store
	for range 3 { // a set read to its end, or closed early, leaves its slot
		_, err := readAll(t, store, selection("a"))
		require.NoError(t, err)
		set, err := store.Series(t.Context(), selection("a"))
		require.NoError(t, err)
		set.Close()
	}
	set, err := store.Series(t.Context(), selection("a"))
	require.NoError(t, err)
	defer set.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan error, 1)
	go func() {
		_, err := store.Series(ctx, selection("a"))
		left <- err
	}()
	require.Eventually(t, func() bool { return testutil.ToFloat64(s.store.metrics.waiting) == 1 }, 2*time.Minute, time.Millisecond)
	leave()
	require.ErrorContains(t, <-left, "--prometheus.max-concurrent-reads")
}

// endless streams n series of the same size, in one buffer: what memory is
// measured is the sidecar's.
func endless(t testing.TB, n int) http.HandlerFunc {
	const digits = "000000000"
	chunks := make([]storeapi.Chunk, 20)
	for i := range chunks {
		chunks[i] = chunkAt(t, int64(i)*120_000, 120)
	}
	template := frame(t, labels.FromStrings("__name__", "a", "cluster", "eu-1", "i", digits), chunks...)
	_, size := binary.Uvarint(template)
	at := bytes.Index(template, []byte(digits))
	table := crc32.MakeTable(crc32.Castagnoli)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
		buf := bytes.Clone(template)
		for i := range n {
			for d, left := at+len(digits)-1, i; d >= at; d, left = d-1, left/10 {
				buf[d] = byte('0' + left%10)
			}
			binary.BigEndian.PutUint32(buf[size:], crc32.Checksum(buf[size+4:], table))
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	}
}

// peak reads an answer and returns its series, bytes and the most memory in use at any thousandth series.
func peak(t testing.TB, store storeapi.Store) (series int, bytes int64, heap uint64) {
	set, err := store.Series(context.Background(), selection("a"))
	require.NoError(t, err)
	defer set.Close()
	for set.Next() {
		for _, c := range set.At().Chunks {
			bytes += int64(len(c.Raw.Bytes))
		}
		if series++; series%1000 == 0 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			heap = max(heap, m.HeapAlloc)
		}
	}
	require.NoError(t, set.Err())
	return series, bytes, heap
}

// TestMemory reads answers of which one is ten times as large, in the same memory.
func TestMemory(t *testing.T) {
	p := newFakeProm(t)
	store := ready(t, run(t, testCfg(t, p.URL))).Services().Store
	p.onRead(endless(t, 1000))
	_, small, base := peak(t, store)
	p.onRead(endless(t, 10_000))
	n, large, most := peak(t, store)
	require.Equal(t, 10_000, n)
	require.Greater(t, large, 9*small)
	require.Less(t, most, base+4<<20, "the small answer has %d bytes, the large one %d", small, large)
}

func BenchmarkSeries(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("series=%d", n), func(b *testing.B) {
			p := newFakeProm(b)
			store := ready(b, run(b, testCfg(b, p.URL))).Services().Store
			p.onRead(endless(b, n))
			b.ReportAllocs()
			var heap uint64
			var bytes int64
			for b.Loop() {
				_, bytes, heap = peak(b, store)
			}
			b.SetBytes(bytes)
			b.ReportMetric(float64(heap), "peak-B")
		})
	}
}
