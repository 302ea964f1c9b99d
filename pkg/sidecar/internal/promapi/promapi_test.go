package promapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

func client(t testing.TB, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	base, err := url.Parse(srv.URL + "/prefix")
	require.NoError(t, err)
	return New(base, srv.Client(), Limits{ResponseBytes: 1000, FrameBytes: 1000})
}

func TestSeconds(t *testing.T) {
	for ms, want := range map[int64]string{0: "0.000", 1: "0.001", 1_700_000_000_123: "1700000000.123", -1: "-0.001", -1500: "-1.500"} {
		require.Equal(t, want, seconds(ms))
	}
	require.Empty(t, AllTime().params(), "no bounds are best said by leaving them out")
	require.Equal(t, "end=2.000&limit=5&match%5B%5D=%7Ba%3D%22b%22%7D&start=1.000", Range{
		Mint: 1000, Maxt: 2000, Limit: 5, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")},
	}.params().Encode())
}

func TestSelector(t *testing.T) {
	m := labels.MustNewMatcher
	for want, ms := range map[string][]*labels.Matcher{
		`{a="b"}`:                {m(labels.MatchEqual, "a", "b")},
		`{a="b",c!~"d|\"e\\."}`:  {m(labels.MatchEqual, "a", "b"), m(labels.MatchNotRegexp, "c", `d|"e\.`)},
		`{"with.dot"=~".+"}`:     {m(labels.MatchRegexp, "with.dot", ".+")},
		`{a="",__name__!=""}`:    {m(labels.MatchEqual, "a", "")},
		`{a=~".*",__name__!=""}`: {m(labels.MatchRegexp, "a", ".*")},
		`{a="",b="c"}`:           {m(labels.MatchEqual, "a", ""), m(labels.MatchEqual, "b", "c")},
	} {
		require.Equal(t, want, Selector(ms))
	}
}

// TestSeries reads the list one by one, and knows a list that was cut.
func TestSeries(t *testing.T) {
	var body string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/prefix/api/v1/series", r.URL.Path)
		_, _ = io.WriteString(w, body)
	})
	read := func() (n int, err error) {
		err = c.Series(t.Context(), AllTime(), func(labels.Labels) error { n++; return nil })
		return n, err
	}
	const whole = `{"status":"success","infos":["x",{"y":[1]}],"data":[{"a":"1"},{"a":"2"}]}`
	body = whole
	n, err := read()
	require.NoError(t, err)
	require.Equal(t, 2, n)
	for i := range strings.LastIndex(whole, "]") {
		body = whole[:i]
		_, err := read()
		require.ErrorIs(t, err, storeapi.ErrUnavailable, body)
	}
	body = `{"data":[` + strings.Repeat(`{"a":"1"},`, 200) + `{}]}`
	_, err = read()
	require.ErrorIs(t, err, storeapi.ErrLimit)
	require.ErrorContains(t, err, FlagResponseBytes)

	body = whole
	stop := errors.New("stop")
	require.ErrorIs(t, c.Series(t.Context(), AllTime(), func(labels.Labels) error { return stop }), stop)
}

func TestLowestTimestamp(t *testing.T) {
	for body, want := range map[string]int64{
		"a 1\nprometheus_tsdb_lowest_timestamp_seconds 1.7e+09\nb 2\n":     1_700_000_000_000,
		"prometheus_tsdb_lowest_timestamp_seconds 9.223372036854776e+15\n": 0,
		"prometheus_tsdb_lowest_timestamp_seconds_other 5\n":               0,
		"": 0,
	} {
		got, err := client(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }).LowestTimestamp(t.Context())
		if want == 0 {
			require.ErrorIs(t, err, ErrNoTimestamp, body)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// TestStatusErrors maps what Prometheus says to what a caller can act on.
func TestStatusErrors(t *testing.T) {
	for _, c := range []struct {
		code int
		body string
		is   error
		want string
	}{
		{400, `{"status":"error","errorType":"bad_data","error":"1:3: parse error"}`, storeapi.ErrBadRequest, "parse error"},
		{400, "exceeded sample limit (5)", storeapi.ErrLimit, "--storage.remote.read-sample-limit"},
		{503, "starting up", storeapi.ErrUnavailable, "starting up"},
		{500, "", storeapi.ErrUnavailable, "Internal Server Error"},
		{403, "no", storeapi.ErrUnavailable, "--prometheus.http-client"},
		{404, "404 page not found", storeapi.ErrUnavailable, "--web.route-prefix"},
	} {
		cl := client(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, c.body, c.code) })
		_, err := cl.Version(t.Context())
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, cl.URL())
		_, err = cl.Read(t.Context(), AllTime())
		require.ErrorIs(t, err, c.is)
	}
}

// TestReadSamples bounds the answer that isn't streamed, packed and unpacked.
func TestReadSamples(t *testing.T) {
	var body []byte
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(body)
	})
	for name, b := range map[string][]byte{"too long": make([]byte, 2000), "unpacks to too much": {0xff, 0xff, 0xff, 0x7f, 0}} {
		body = b
		_, err := c.Read(t.Context(), Range{Maxt: math.MaxInt64})
		require.ErrorIs(t, err, storeapi.ErrLimit, name)
	}
	body = []byte("garbage")
	_, err := c.Read(t.Context(), AllTime())
	require.ErrorIs(t, err, storeapi.ErrUnavailable)
}

// FuzzFrames: no bytes crash the reader or make it take memory they don't have;
// what it accepts, Prometheus' own decoder accepts too.
func FuzzFrames(f *testing.F) {
	raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{
		Labels: []prompb.Label{{Name: "a", Value: "b"}},
		Chunks: []prompb.Chunk{{MinTimeMs: 1, MaxTimeMs: 2, Type: prompb.Chunk_XOR2, Data: []byte{0, 1, 2, 3, 4}}},
	}}}).Marshal()
	require.NoError(f, err)
	f.Add(raw)
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	base := &url.URL{Scheme: "http", Host: "localhost"}
	f.Fuzz(func(t *testing.T, msg []byte) {
		frames := New(base, http.DefaultClient, Limits{FrameBytes: 1 << 20}).newFrames(bytes.NewReader(nil))
		parts, err := frames.decode(msg)
		if err != nil {
			require.ErrorIs(t, err, storeapi.ErrCorrupt)
			return
		}
		var want prompb.ChunkedReadResponse
		if want.Unmarshal(msg) == nil {
			require.Len(t, parts, len(want.ChunkedSeries))
			for i, s := range want.ChunkedSeries {
				require.Len(t, parts[i].Chunks, len(s.Chunks))
				for j, c := range s.Chunks {
					require.Equal(t, c.Data, append([]byte{}, parts[i].Chunks[j].Raw.Bytes...))
				}
			}
		}
		raw := New(base, http.DefaultClient, Limits{FrameBytes: 1 << 20}).newFrames(bytes.NewReader(msg))
		for range 10 {
			if _, err := raw.Next(context.Background()); err != nil {
				break
			}
		}
	})
}
