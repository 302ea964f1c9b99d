package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

func readRequest(t *testing.T, types ...prompb.ReadRequest_ResponseType) *http.Request {
	t.Helper()
	q, err := remote.ToQuery(0, 1_200_000, []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "up|nh|fh|hist|requests_total")}, nil)
	require.NoError(t, err)
	b, err := proto.Marshal(&prompb.ReadRequest{Queries: []*prompb.Query{q}, AcceptedResponseTypes: types})
	require.NoError(t, err)
	return httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(snappy.Encode(nil, b)))
}

// TestReadSamples: the same bytes as Prometheus sends.
func TestReadSamples(t *testing.T) {
	db := loadTestData(t)
	a := newTestAPI(t, db, nil)
	want := do(newReference(t, db, a.parser), readRequest(t))
	got := do(a, readRequest(t))
	require.Equal(t, 200, got.Code)
	require.Equal(t, want.Header().Get("Content-Type"), got.Header().Get("Content-Type"))
	require.Equal(t, "snappy", got.Header().Get("Content-Encoding"))
	require.Equal(t, want.Body.Bytes(), got.Body.Bytes())
	require.Greater(t, got.Body.Len(), 500)
}

// TestReadChunks: the samples of streamed chunks are those of Prometheus' chunks.
func TestReadChunks(t *testing.T) {
	db := loadTestData(t)
	a := newTestAPI(t, db, nil)
	want := do(newReference(t, db, a.parser), readRequest(t, prompb.ReadRequest_STREAMED_XOR_CHUNKS))
	got := do(a, readRequest(t, prompb.ReadRequest_STREAMED_XOR_CHUNKS))
	require.Equal(t, 200, got.Code)
	require.Equal(t, want.Header().Get("Content-Type"), got.Header().Get("Content-Type"))
	wanted := decodeStream(t, want.Body)
	require.Len(t, wanted, 9)
	require.Equal(t, wanted, decodeStream(t, got.Body))
}

// TestReadWithoutStartTimestamps: readers can't negotiate, so none gets an encoding newer than it knows.
func TestReadWithoutStartTimestamps(t *testing.T) {
	db := teststorage.New(t, func(o *tsdb.Options) {
		o.EnableSTStorage, o.FloatChunkEncoding, o.EnableHistogramSTEncoding = true, chunkenc.EncXOR2, true
	})
	app := db.AppenderV2(context.Background())
	for i := range int64(10) {
		_, err := app.Append(0, labels.FromStrings("__name__", "up"), 1+i*500, 1000+i*1000, float64(i), nil, nil, storage.AOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	w := do(newTestAPI(t, db, nil), readRequest(t, prompb.ReadRequest_STREAMED_XOR_CHUNKS))
	var frame prompb.ChunkedReadResponse
	require.NoError(t, remote.NewChunkedReader(w.Body, 1<<20, nil).NextProto(&frame))
	require.Equal(t, prompb.Chunk_XOR, frame.ChunkedSeries[0].Chunks[0].Type)
}

// decodeStream returns the samples of each series, as text.
func decodeStream(t *testing.T, body io.Reader) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	r := remote.NewChunkedReader(body, 10<<20, nil)
	for {
		var frame prompb.ChunkedReadResponse
		err := r.NextProto(&frame)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		for _, s := range frame.ChunkedSeries {
			name := fmt.Sprint(s.Labels)
			for _, c := range s.Chunks {
				require.LessOrEqual(t, c.Type, prompb.Chunk_FLOAT_HISTOGRAM)
				chk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
				require.NoError(t, err)
				it := chk.Iterator(nil)
				for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
					out[name] = append(out[name], sampleText(it, typ))
				}
				require.NoError(t, it.Err())
			}
		}
	}
}

func sampleText(it chunkenc.Iterator, typ chunkenc.ValueType) string {
	if typ == chunkenc.ValFloat {
		at, v := it.At()
		return fmt.Sprint(at, " ", v)
	}
	at, h := it.AtFloatHistogram(nil)
	return fmt.Sprint(at, " ", h)
}

// RELIABILITY P2, P12: a remote read is whole or an error, whose status says whose fault it is.
func TestReadProblems(t *testing.T) {
	for _, tc := range []struct {
		st   store
		code int
		text string
	}{
		{store{warn: []string{"store a:1 did not answer"}}, 422, "store a:1 did not answer"},
		{store{err: fmt.Errorf("store a:1: %w", storeapi.ErrLimit)}, 422, "store a:1"},
		{store{err: fmt.Errorf("store a:1: %w", storeapi.ErrUnavailable)}, 503, "store a:1"},
		{store{err: fmt.Errorf("store a:1: %w", storeapi.ErrCorrupt)}, 500, "store a:1"},
	} {
		for _, typ := range []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES, prompb.ReadRequest_STREAMED_XOR_CHUNKS} {
			w := do(newTestAPI(t, tc.st.source(), nil), readRequest(t, typ))
			require.Equal(t, tc.code, w.Code)
			require.Contains(t, w.Body.String(), tc.text)
		}
	}

	a := newTestAPI(t, loadTestData(t), func(c *Config, _ *Parts) { c.ReadSampleLimit = 5 })
	require.Equal(t, 400, do(a, readRequest(t)).Code)

	// A few bytes that say they are gigabytes.
	bomb := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0a}, make([]byte, 42)...)
	for _, body := range [][]byte{bomb, nil, []byte("no snappy"), snappy.Encode(nil, []byte("no protobuf"))} {
		w := do(a, httptest.NewRequest(http.MethodPost, "/api/v1/read", bytes.NewReader(body)))
		if len(body) > 0 {
			require.Equal(t, 400, w.Code, "%q", body)
		}
		require.Less(t, w.Code, 500)
	}
}
