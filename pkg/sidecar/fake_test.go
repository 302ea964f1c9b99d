package sidecar

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// fakeProm answers what the sidecar asks of a Prometheus, and a remote read as a test likes.
type fakeProm struct {
	*httptest.Server
	t  testing.TB
	mu struct {
		sync.Mutex
		external string   // YAML
		names    []string // of labels
		flags    map[string]string
		down     bool
		metadata map[string][]storeapi.Metadata
		exemplar func(start, end string) any
	}
	read  atomic.Pointer[http.HandlerFunc]
	calls sync.Map // path → *atomic.Int64
}

func newFakeProm(t testing.TB) *fakeProm {
	p := &fakeProm{t: t}
	p.mu.external, p.mu.names = "{cluster: eu-1}", []string{"__name__", "i"}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// set changes what it answers.
func (p *fakeProm) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *fakeProm) onRead(h http.HandlerFunc) { p.read.Store(&h) }

func (p *fakeProm) count(path string) int64 {
	n, _ := p.calls.LoadOrStore(path, new(atomic.Int64))
	return n.(*atomic.Int64).Load()
}

func (p *fakeProm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := p.calls.LoadOrStore(r.URL.Path, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	if r.URL.Path == "/api/v1/query_exemplars" {
		require.NoError(p.t, r.ParseForm())
	}
	_, _ = io.Copy(io.Discard, r.Body) // only then does a server see its client leave
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.down {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	data := func(v any) {
		require.NoError(p.t, json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": v}))
	}
	switch r.URL.Path {
	case "/api/v1/status/config":
		data(map[string]string{"yaml": "global:\n  external_labels: " + p.mu.external + "\n"})
	case "/api/v1/status/flags":
		data(p.mu.flags)
	case "/api/v1/status/buildinfo":
		data(map[string]string{"version": "3.16.0"})
	case "/api/v1/status/runtimeinfo":
		data(map[string]any{"CWD": "/prometheus", "startTime": "2026-01-01T00:00:00Z"})
	case "/api/v1/labels":
		data(p.mu.names)
	case "/api/v1/metadata":
		data(p.mu.metadata)
	case "/api/v1/query_exemplars":
		if p.mu.exemplar == nil {
			data([]any{})
			return
		}
		data(p.mu.exemplar(r.Form.Get("start"), r.Form.Get("end")))
	case "/metrics":
		fmt.Fprintln(w, "# HELP x y\nup 1\nprometheus_tsdb_lowest_timestamp_seconds 1.7e+09")
	case "/api/v1/read":
		h := p.read.Load()
		p.mu.Unlock() // a slow read must not hold up the rest
		defer p.mu.Lock()
		(*h)(w, r)
	default:
		http.NotFound(w, r)
	}
}

// streaming answers a remote read with a body as it is.
func streaming(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
		_, _ = w.Write(body)
	}
}

// frame returns a frame of a streamed remote read, with the chunks of one series.
func frame(t testing.TB, lset labels.Labels, chunks ...storeapi.Chunk) []byte {
	t.Helper()
	s := &prompb.ChunkedSeries{Labels: prompb.FromLabels(lset, nil)}
	for _, c := range chunks {
		s.Chunks = append(s.Chunks, prompb.Chunk{MinTimeMs: c.MinTime, MaxTimeMs: c.MaxTime, Type: prompb.Chunk_Encoding(c.Raw.Encoding), Data: c.Raw.Bytes})
	}
	raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s}}).Marshal()
	require.NoError(t, err)
	return seal(raw)
}

// seal puts length and checksum in front of a message.
func seal(raw []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(raw)))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
	return append(out, raw...)
}

// chunkAt returns a float chunk of n samples, a second apart.
func chunkAt(t testing.TB, start int64, n int) storeapi.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for i := range n {
		app.Append(0, start+int64(i)*1000, float64(i)*1.7)
	}
	return storeapi.Chunk{MinTime: start, MaxTime: start + int64(n-1)*1000, Raw: storeapi.DataOf(c)}
}

func selection(name string) storeapi.Selection {
	return storeapi.Selection{Mint: 0, Maxt: 1 << 50, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", name)}}
}

// readAll returns what a Store answers, up to the error that ended it.
func readAll(t testing.TB, store storeapi.Store, sel storeapi.Selection) ([]storeapi.Series, error) {
	t.Helper()
	set, err := store.Series(t.Context(), sel)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	var out []storeapi.Series
	for set.Next() {
		at := set.At()
		out = append(out, storeapi.Series{Labels: at.Labels, Chunks: append([]storeapi.Chunk{}, at.Chunks...)})
	}
	return out, set.Err()
}

func text(series []storeapi.Series) string {
	var sb strings.Builder
	for _, s := range series {
		fmt.Fprintf(&sb, "%s %d\n", s.Labels, len(s.Chunks))
	}
	return sb.String()
}

// newServer returns the address of an HTTP server for the test.
func newServer(t testing.TB, h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
