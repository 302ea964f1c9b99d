package sidecar

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/proctest"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

func defaults(t testing.TB) Config {
	t.Helper()
	var cfg Config
	fs := flag.NewFlagSet(t.Name(), flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse(nil))
	return cfg
}

// TestConformance runs the suite over a real Prometheus, which streams chunks.
func TestConformance(t *testing.T) {
	conformance(t, testConfig, func(url string) string { return url })
}

// TestConformanceXOR2 does so with the encodings that keep start timestamps.
func TestConformanceXOR2(t *testing.T) {
	conformance(t, testConfig+"storage: {tsdb: {chunk_encoding: {floats: xor2}}}\n",
		func(url string) string { return url }, "--enable-feature=histograms-st-encoding")
}

// TestConformanceSamples does so with a Prometheus that can't stream.
func TestConformanceSamples(t *testing.T) {
	conformance(t, testConfig, func(url string) string { return samplesOnly(t, url) })
}

func conformance(t *testing.T, config string, through func(url string) string, args ...string) {
	var once sync.Once
	var store storeapi.Store
	outer := t
	storetest.Run(t, func(_ *testing.T, in storetest.Input) storeapi.Store {
		once.Do(func() {
			p := newPrometheus(outer, config, args...).fill(in.Series).start()
			store = ready(outer, run(outer, testCfg(outer, through(p.url)))).Services().Store
		})
		require.NotNil(outer, store)
		return store
	}, storetest.RequiresMatchers())
}

// samplesOnly puts a proxy in front of a Prometheus that does not let it stream remote reads.
func samplesOnly(t *testing.T, target string) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(mustURL(t, target))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/read" {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			raw, err := snappy.Decode(nil, body)
			require.NoError(t, err)
			var req prompb.ReadRequest
			require.NoError(t, req.Unmarshal(raw))
			req.AcceptedResponseTypes = nil
			raw, err = req.Marshal()
			require.NoError(t, err)
			body = snappy.Encode(nil, raw)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return srv.URL
}

// TestRawEncodings sees that chunks come as Prometheus has them, by the TSDB's own numbers.
func TestRawEncodings(t *testing.T) {
	in := kinds()
	for _, c := range []struct {
		name, config string
		args         []string
		want         map[string]chunkenc.Encoding
	}{
		{"classic", testConfig, nil, map[string]chunkenc.Encoding{
			"float": chunkenc.EncXOR, "integer": chunkenc.EncHistogram, "custom": chunkenc.EncHistogram, "float_histogram": chunkenc.EncFloatHistogram,
		}},
		{"start timestamps", testConfig + "storage: {tsdb: {chunk_encoding: {floats: xor2}}}\n", []string{"--enable-feature=histograms-st-encoding"}, map[string]chunkenc.Encoding{
			"float": chunkenc.EncXOR2, "integer": chunkenc.EncHistogramST, "custom": chunkenc.EncHistogramST, "float_histogram": chunkenc.EncFloatHistogramST,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPrometheus(t, c.config, c.args...).fill(in).start()
			store := ready(t, run(t, testCfg(t, p.url))).Services().Store
			for metric, want := range c.want {
				set, err := store.Series(t.Context(), storeapi.Selection{Maxt: 1 << 60,
					Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", metric)}})
				require.NoError(t, err)
				n := 0
				for set.Next() {
					for _, chunk := range set.At().Chunks {
						require.Equal(t, want, chunk.Raw.Encoding, metric)
						n++
					}
				}
				require.NoError(t, set.Err())
				require.Positive(t, n, metric)
				set.Close()
			}
		})
	}
}

// kinds returns a series of each kind of sample, named after it.
func kinds() []storetest.Series {
	out := make([]storetest.Series, 4)
	for i, name := range []string{"float", "integer", "custom", "float_histogram"} {
		out[i].Labels = labels.FromStrings("__name__", name)
	}
	integers, custom, floats := tsdbutil.GenerateTestHistograms(20), tsdbutil.GenerateTestCustomBucketsHistograms(20), tsdbutil.GenerateTestFloatHistograms(20)
	for i := range 20 {
		at := int64(1_700_000_000_000 + i*15_000)
		out[0].Samples = append(out[0].Samples, storetest.Sample{T: at, V: float64(i)})
		out[1].Samples = append(out[1].Samples, storetest.Sample{T: at, H: integers[i]})
		out[2].Samples = append(out[2].Samples, storetest.Sample{T: at, H: custom[i]})
		out[3].Samples = append(out[3].Samples, storetest.Sample{T: at, FH: floats[i]})
	}
	return out
}
