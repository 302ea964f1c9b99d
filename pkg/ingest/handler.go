package ingest

import (
	"errors"
	"io"
	"net/http"

	"github.com/firnline/firnline/pkg/ingest/internal/admit"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/tenant"
)

// remoteWritePaths are where remote write is sent to: our own and Prometheus'
// path, Thanos', Mimir's and Cortex'.
var remoteWritePaths = []string{"/api/v1/write", "/api/v1/receive", "/api/v1/push"}

// otlpPaths are where OTLP metrics are sent to: Prometheus' path, Thanos',
// Mimir's, what SDKs append to an endpoint, and VictoriaMetrics'.
var otlpPaths = []string{
	"/api/v1/otlp/v1/metrics", "/api/v1/otlp", "/otlp/v1/metrics", "/v1/metrics", "/opentelemetry/v1/metrics",
}

// writeHandler takes write requests over HTTP.
type writeHandler struct {
	tenants  tenant.Config
	gate     *admit.Gate
	pipeline *pipeline
	otlp     func(tenant.ID) *wire.OTLP
	maxBody  func(tenant.ID) int64 // bytes as sent; 0: no limit of the tenant's
}

// register adds the write paths to a mux.
func (h *writeHandler) register(mux *http.ServeMux) {
	for _, p := range remoteWritePaths {
		mux.HandleFunc("POST "+p, func(w http.ResponseWriter, r *http.Request) {
			f, _ := wire.Negotiate(r.Header.Get("Content-Type"), false) // write refuses what it can't read
			answerRemoteWrite(w, f == wire.RW2, h.write(r, false))
		})
	}
	for _, p := range otlpPaths {
		mux.HandleFunc("POST "+p, func(w http.ResponseWriter, r *http.Request) {
			f, err := wire.Negotiate(r.Header.Get("Content-Type"), true)
			if err != nil {
				answerRemoteWrite(w, false, h.pipeline.refused(outcome{err: err})) // there is no format to answer in
				return
			}
			answerOTLP(w, f == wire.OTLPJSON, h.write(r, true))
		})
	}
}

// write reads a request and carries it out.
func (h *writeHandler) write(r *http.Request, otlp bool) outcome {
	id, err := h.tenants.OfRequest(r)
	if err != nil {
		return h.pipeline.refused(outcome{err: &refuse.Error{Reason: refuse.BadTenant, Detail: err.Error()}})
	}
	sent := &limitedBody{from: r.Body, tenant: id, most: h.maxBody(id)}
	if err := sent.check(r.ContentLength); err != nil {
		return h.pipeline.refused(outcome{err: err})
	}
	format, err := wire.Negotiate(r.Header.Get("Content-Type"), otlp)
	if err != nil {
		return h.pipeline.refused(outcome{err: err})
	}
	encoding, err := format.Encoding(r.Header.Get("Content-Encoding"))
	if err != nil {
		return h.pipeline.refused(outcome{err: err})
	}
	if err := h.pipeline.decoder.Declared(r.ContentLength); err != nil {
		return h.pipeline.refused(outcome{err: err})
	}
	place, err := h.gate.Enter(0)
	if err != nil {
		return h.pipeline.refused(outcome{err: err})
	}
	body, err := h.pipeline.decoder.Body(sent, encoding, r.ContentLength, place.Grow)
	if err != nil {
		place.Leave()
		return h.pipeline.refused(outcome{err: h.blame(r, err)})
	}
	req := request{tenant: id, format: format, body: body, place: place}
	if otlp {
		req.otlp = h.otlp(id)
	}
	return h.pipeline.write(tenant.NewContext(r.Context(), id), req)
}

// limitedBody is a body that may have so many bytes, a tenant's limit.
type limitedBody struct {
	from   io.Reader
	tenant tenant.ID
	most   int64 // 0: no limit
	read   int64
}

// check is a *refuse.Error if so many bytes are too many.
func (b *limitedBody) check(n int64) error {
	if b.most == 0 || n <= b.most {
		return nil
	}
	return refuse.Errorf(refuse.RequestTooLarge, b.tenant, "the request has a body of %d bytes or more, limit %d (request.size_bytes_limit of tenant %s); send smaller ones", n, b.most, b.tenant)
}

// Read implements io.Reader.
func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	b.read += int64(n)
	if over := b.check(b.read); over != nil {
		return n, over
	}
	return n, err
}

// blame says that a body could not be read because its sender is gone: nobody
// hears the answer, but the metrics do.
func (h *writeHandler) blame(r *http.Request, err error) error {
	if r.Context().Err() != nil && !errors.As(err, new(*refuse.Error)) {
		return &refuse.Error{Reason: refuse.BadRequest, Detail: "the sender ended the request before its body was read"}
	}
	return err
}
