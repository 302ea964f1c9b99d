package ingest_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

const protobuf2 = protobuf + ";proto=io.prometheus.write.v2.Request"

// send1 and send2 send one series by remote write 1 and 2: its labels in the order given, with a sample or a histogram.
func (n *node) send1(at time.Time, h *prompb.Histogram, pairs ...string) (int, string) {
	n.t.Helper()
	var s prompb.TimeSeries
	for i := 0; i < len(pairs); i += 2 {
		s.Labels = append(s.Labels, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	if h != nil {
		h.Timestamp = at.UnixMilli()
		s.Histograms = []prompb.Histogram{*h}
	} else {
		s.Samples = []prompb.Sample{{Timestamp: at.UnixMilli(), Value: 1}}
	}
	body, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{s}}).Marshal()
	require.NoError(n.t, err)
	code, text, _ := n.post("/api/v1/write", protobuf, snappy.Encode(nil, body))
	return code, text
}

func (n *node) send2(at time.Time, h *writev2.Histogram, pairs ...string) (int, string) {
	n.t.Helper()
	req := writev2.Request{Symbols: append([]string{""}, pairs...)}
	var s writev2.TimeSeries
	for i := range pairs {
		s.LabelsRefs = append(s.LabelsRefs, uint32(i+1))
	}
	if h != nil {
		h.Timestamp = at.UnixMilli()
		s.Histograms = []writev2.Histogram{*h}
	} else {
		s.Samples = []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 1}}
	}
	req.Timeseries = []writev2.TimeSeries{s}
	body, err := req.Marshal()
	require.NoError(n.t, err)
	code, text, _ := n.post("/api/v1/write", protobuf2, snappy.Encode(nil, body))
	return code, text
}

// TestLabelsAsSent: labels that can't be are refused, whichever protocol brings them. Those in another order are
// the same series as ever, and one without a value is as good as none.
//
// RELIABILITY P12
func TestLabelsAsSent(t *testing.T) {
	for name, send := range map[string]func(n *node, at time.Time, pairs ...string) (int, string){
		"remote write 1": func(n *node, at time.Time, pairs ...string) (int, string) { return n.send1(at, nil, pairs...) },
		"remote write 2": func(n *node, at time.Time, pairs ...string) (int, string) { return n.send2(at, nil, pairs...) },
	} {
		t.Run(name, func(t *testing.T) {
			n, at := start(t, t.TempDir()), time.Now().Add(-time.Minute)
			for _, c := range []struct {
				pairs []string
				want  string
			}{
				{[]string{"__name__", "bad", "a", "1", "a", "2"}, "twice"},
				{[]string{"a", "1", "__name__", "bad", "a", "1"}, "twice"},
				{[]string{"__name__", "bad", "", "1"}, "without a name"},
				{[]string{"__name__", "bad", "a", "\xff"}, "not UTF-8"},
				{[]string{"__name__", "bad", "a\xff", "1"}, "not UTF-8"},
				{[]string{"__name__", "bad\xff", "a", "1"}, "UTF-8"},
				{[]string{"__name__", "", "a", "1"}, "no name of a metric"},
				{[]string{"a", "1"}, "no name of a metric"},
				{nil, "no labels"},
			} {
				code, text := send(n, at, c.pairs...)
				require.Equal(t, http.StatusBadRequest, code, "%q: %s", c.pairs, text)
				require.Contains(t, text, c.want, "%q", c.pairs)
				require.Contains(t, text, "[bad-labels]", "%q", c.pairs)
			}
			require.Empty(t, n.read("bad"))
			for i, pairs := range [][]string{
				{"__name__", "up", "a", "1", "b", "2"},
				{"b", "2", "a", "1", "__name__", "up"},
				{"a", "1", "__name__", "up", "b", "2"},
				{"__name__", "up", "a", "1", "b", "2", "c", ""},
				{"c", "", "b", "2", "__name__", "up", "a", "1"},
			} {
				code, text := send(n, at.Add(time.Duration(i)*time.Second), pairs...)
				require.Equal(t, http.StatusNoContent, code, "%q: %s", pairs, text)
			}
			got := n.read("up")
			require.Len(t, got, 1, "%q", got)
			require.Contains(t, got[0], `{__name__="up", a="1", b="2", ingest="a"`)
			require.Contains(t, got[0], "} 5")
		})
	}
}

// TestBadHistograms: a histogram that contradicts itself is refused, and spans that say of billions of
// buckets take no memory for them.
//
// RELIABILITY P12
func TestBadHistograms(t *testing.T) {
	n, at := start(t, t.TempDir()), time.Now().Add(-time.Minute)
	type span struct {
		offset int32
		length uint32
	}
	for name, c := range map[string]struct {
		schema int32
		count  uint64
		spans  []span
		deltas []int64
		custom []float64
	}{
		"buckets missing":  {0, 3, []span{{0, 3}}, []int64{1}, nil},
		"buckets too many": {0, 3, []span{{0, 1}}, []int64{1, 1}, nil},
		"count":            {0, 1, []span{{0, 2}}, []int64{1, 1}, nil},
		"negative bucket":  {0, 1, []span{{0, 2}}, []int64{1, -5}, nil},
		"span goes back":   {0, 2, []span{{0, 1}, {-3, 1}}, []int64{1, 0}, nil},
		"billions":         {0, 1, []span{{0, 4_000_000_000}}, []int64{1}, nil},
		"billions, again":  {0, 1, []span{{0, 4_000_000_000}, {0, 4_000_000_000}}, []int64{1}, nil},
		"unknown schema":   {77, 1, []span{{0, 1}}, []int64{1}, nil},
		"bounds descend":   {-53, 2, []span{{0, 2}}, []int64{1, 0}, []float64{2, 1}},
		"more than bounds": {-53, 3, []span{{0, 3}}, []int64{1, 0, 0}, []float64{1}},
	} {
		h1 := &prompb.Histogram{Schema: c.schema, Count: &prompb.Histogram_CountInt{CountInt: c.count}, ZeroCount: &prompb.Histogram_ZeroCountInt{}, PositiveDeltas: c.deltas, CustomValues: c.custom}
		h2 := &writev2.Histogram{Schema: c.schema, Count: &writev2.Histogram_CountInt{CountInt: c.count}, ZeroCount: &writev2.Histogram_ZeroCountInt{}, PositiveDeltas: c.deltas, CustomValues: c.custom}
		for _, s := range c.spans {
			h1.PositiveSpans = append(h1.PositiveSpans, prompb.BucketSpan{Offset: s.offset, Length: s.length})
			h2.PositiveSpans = append(h2.PositiveSpans, writev2.BucketSpan{Offset: s.offset, Length: s.length})
		}
		for version, send := range []func() (int, string){
			func() (int, string) { return n.send1(at, h1, "__name__", "bad") },
			func() (int, string) { return n.send2(at, h2, "__name__", "bad") },
		} {
			code, text := send()
			require.Equal(t, http.StatusBadRequest, code, "%s, version %d: %s", name, version+1, text)
			require.Contains(t, text, "[bad-histogram]", name)
		}
	}
	require.Empty(t, n.read("bad"))
}

// TestUnknownTenant: where hashrings list the tenants another one is refused for good, and leaves nothing.
//
// RELIABILITY P11
func TestUnknownTenant(t *testing.T) {
	dir := t.TempDir()
	n := start(t, dir, `--receive.hashrings=[{"tenants":["known"],"endpoints":["127.0.0.1:1"]}]`, "--receive.local-endpoint=127.0.0.1:1")
	for _, c := range []struct {
		tenant, path, contentType string
		body                      []byte
		code                      int
		want                      string
	}{
		{"known", "/api/v1/write", protobuf, rw1(time.Now(), 1, "up"), http.StatusNoContent, ""},
		{"unknown", "/api/v1/write", protobuf, rw1(time.Now(), 1, "up"), http.StatusBadRequest, "[unknown-tenant]"},
		{"", "/api/v1/write", protobuf, rw1(time.Now(), 1, "up"), http.StatusBadRequest, "[unknown-tenant]"},
		{"unknown", "/v1/metrics", "application/json", otlpGauge(time.Now()), http.StatusBadRequest, "[unknown-tenant]"},
	} {
		code, text, header := n.post(c.path, c.contentType, c.body, "THANOS-TENANT", c.tenant)
		require.Equal(t, c.code, code, "%s: %s", c.tenant, text)
		require.Contains(t, text, c.want)
		require.Empty(t, header.Get("Retry-After"))
	}
	require.DirExists(t, filepath.Join(dir, "known"))
	require.NoDirExists(t, filepath.Join(dir, "unknown"))
}

// TestUnreachablePeers: a router of which no peer can be reached says which, and asks for the same again.
//
// RELIABILITY I5
func TestUnreachablePeers(t *testing.T) {
	n := start(t, t.TempDir(), `--receive.hashrings=[{"endpoints":["127.0.0.1:1"]}]`)
	for path, body := range map[string][]byte{"/api/v1/write": rw1(time.Now(), 1, "up"), "/v1/metrics": otlpGauge(time.Now())} {
		code, text, header := n.post(path, map[string]string{"/api/v1/write": protobuf, "/v1/metrics": "application/json"}[path], body)
		require.Equal(t, http.StatusServiceUnavailable, code, "%s: %s", path, text)
		require.Contains(t, text, "127.0.0.1:1")
		require.Contains(t, text, "[unavailable]")
		require.NotEmpty(t, header.Get("Retry-After"))
	}
}

func otlpGauge(at time.Time) []byte {
	return fmt.Appendf(nil, `{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"up","gauge":{"dataPoints":[{"timeUnixNano":"%d","asDouble":1}]}}]}]}]}`, at.UnixNano())
}
