package ingest

import (
	"math/rand/v2"
	"net/http"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// outcome is what became of a write request.
type outcome struct {
	samples, histograms, exemplars int // written, at quorum

	refused int   // samples and histograms
	err     error // why; nil: all was taken
}

// reason is why something was refused.
func (o outcome) reason() refuse.Reason { return refuse.ReasonOf(o.err) }

// answerRemoteWrite answers as the remote-write specification (2.0) asks: with
// the counts in any case, by which senders know a receiver of version 2, so they
// are not told for version 1; 400 for what must not be sent again, although the
// rest of the request is written.
func answerRemoteWrite(w http.ResponseWriter, counts bool, o outcome) {
	h := w.Header()
	if counts {
		h.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(o.samples))
		h.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(o.histograms))
		h.Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.Itoa(o.exemplars))
	}
	if o.err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	setRetryAfter(h, o.reason())
	http.Error(w, o.err.Error(), o.reason().Status())
}

// setRetryAfter asks senders to come back, not all at the same time.
func setRetryAfter(h http.Header, r refuse.Reason) {
	if r.Retry() {
		h.Set("Retry-After", strconv.Itoa(2+rand.IntN(5)))
	}
}

// answerOTLP answers as the OTLP specification asks: what was refused for good
// is told in a partial success, unless nothing was taken; what may pass later
// is an error that can be tried again. Source:
// opentelemetry.io/docs/specs/otlp, "OTLP/HTTP Response".
func answerOTLP(w http.ResponseWriter, asJSON bool, o outcome) {
	body, err := otlpBody(asJSON, o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	contentType := "application/x-protobuf"
	if asJSON {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	if o.failed() {
		setRetryAfter(w.Header(), o.reason())
		w.WriteHeader(o.reason().Status())
	}
	_, _ = w.Write(body) // the client is gone otherwise
}

// failed tells whether a request counts as not taken in OTLP's terms.
func (o outcome) failed() bool {
	return o.err != nil && (o.reason().Retry() || o.samples+o.histograms == 0)
}

func otlpBody(asJSON bool, o outcome) ([]byte, error) {
	if o.failed() {
		st := status.New(grpcCode(o.reason()), o.err.Error()).Proto()
		if asJSON {
			return protojson.Marshal(st)
		}
		return proto.Marshal(st)
	}
	return otlpResponse(asJSON, o)
}

// otlpResponse is an ExportMetricsServiceResponse. Where all was taken it has no partial success,
// not even one of nothing, which is what the library would write.
func otlpResponse(asJSON bool, o outcome) ([]byte, error) {
	switch {
	case o.err == nil && asJSON:
		return []byte("{}"), nil
	case o.err == nil:
		return nil, nil
	}
	resp := pmetricotlp.NewExportResponse()
	resp.PartialSuccess().SetRejectedDataPoints(int64(o.refused))
	resp.PartialSuccess().SetErrorMessage(o.err.Error())
	if asJSON {
		return resp.MarshalJSON()
	}
	return resp.MarshalProto()
}

// grpcCode is the code that makes OTLP senders do the right thing: of those of
// refusals only Unavailable is tried again by all of them.
func grpcCode(r refuse.Reason) codes.Code {
	switch {
	case r.Retry():
		return codes.Unavailable
	case r == refuse.UnsupportedType:
		return codes.Unimplemented
	}
	return codes.InvalidArgument
}
