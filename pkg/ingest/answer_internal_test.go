package ingest

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

var (
	tooOld   = refuse.Errorf(refuse.SampleTooOld, "a", "series up: too old")
	limited  = refuse.Errorf(refuse.RateLimited, "a", "too fast")
	noQuorum = refuse.Errorf(refuse.Unavailable, "a", "one of three owners answers")
)

// RELIABILITY P12, I6: what must not be sent again is 4xx, what may pass later asks for a retry.
func TestAnswersOfRemoteWrite(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     outcome
		code  int
		retry bool
	}{
		{"all taken", outcome{samples: 3, histograms: 2, exemplars: 1}, http.StatusNoContent, false},
		{"some refused", outcome{samples: 3, refused: 1, err: tooOld}, http.StatusBadRequest, false},
		{"rate", outcome{refused: 1, err: limited}, http.StatusTooManyRequests, true},
		{"no quorum", outcome{samples: 1, refused: 1, err: noQuorum}, http.StatusServiceUnavailable, true},
		{"media type", outcome{err: refuse.Errorf(refuse.UnsupportedType, "", "text/plain")}, http.StatusUnsupportedMediaType, false},
		{"large", outcome{err: refuse.Errorf(refuse.RequestTooLarge, "", "1 GB")}, http.StatusRequestEntityTooLarge, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			answerRemoteWrite(w, true, c.o)
			require.Equal(t, c.code, w.Code)
			require.Equal(t, c.retry, w.Header().Get("Retry-After") != "")
			require.Equal(t, strconv.Itoa(c.o.samples), w.Header().Get("X-Prometheus-Remote-Write-Samples-Written"))
			require.Equal(t, strconv.Itoa(c.o.histograms), w.Header().Get("X-Prometheus-Remote-Write-Histograms-Written"))
			require.Equal(t, strconv.Itoa(c.o.exemplars), w.Header().Get("X-Prometheus-Remote-Write-Exemplars-Written"))
			if c.o.err != nil {
				require.Equal(t, c.o.err.Error()+"\n", w.Body.String())
			}
			w = httptest.NewRecorder()
			answerRemoteWrite(w, false, c.o)
			require.Equal(t, c.code, w.Code)
			require.NotContains(t, w.Header(), "X-Prometheus-Remote-Write-Samples-Written", "version 1 knows no counts")
		})
	}
}

func TestAnswersOfOTLP(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		answer := func(o outcome) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			answerOTLP(w, asJSON, o)
			require.Equal(t, map[bool]string{false: "application/x-protobuf", true: "application/json"}[asJSON], w.Header().Get("Content-Type"))
			return w
		}
		response := func(o outcome) pmetricotlp.ExportPartialSuccess {
			w := answer(o)
			require.Equal(t, http.StatusOK, w.Code)
			resp := pmetricotlp.NewExportResponse()
			if asJSON {
				require.NoError(t, resp.UnmarshalJSON(w.Body.Bytes()))
			} else {
				require.NoError(t, resp.UnmarshalProto(w.Body.Bytes()))
			}
			return resp.PartialSuccess()
		}
		failure := func(o outcome, code int, retry bool) *spb.Status {
			w := answer(o)
			require.Equal(t, code, w.Code)
			require.Equal(t, retry, w.Header().Get("Retry-After") != "")
			st := new(spb.Status)
			if asJSON {
				require.NoError(t, protojson.Unmarshal(w.Body.Bytes(), st))
			} else {
				require.NoError(t, proto.Unmarshal(w.Body.Bytes(), st))
			}
			return st
		}
		require.Empty(t, response(outcome{samples: 5}).ErrorMessage())
		require.Equal(t, map[bool]string{false: "", true: "{}"}[asJSON], answer(outcome{samples: 5}).Body.String(), "no partial success")
		part := response(outcome{samples: 5, refused: 2, err: tooOld})
		require.Equal(t, int64(2), part.RejectedDataPoints())
		require.Equal(t, tooOld.Error(), part.ErrorMessage())
		require.Equal(t, int32(codes.InvalidArgument), failure(outcome{refused: 2, err: tooOld}, http.StatusBadRequest, false).GetCode())
		require.Equal(t, int32(codes.Unavailable), failure(outcome{samples: 5, refused: 2, err: noQuorum}, http.StatusServiceUnavailable, true).GetCode())
	}
}
