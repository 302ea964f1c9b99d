package ingest

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/firnline/firnline/pkg/ingest/internal/admit"
	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/forward"
	"github.com/firnline/firnline/pkg/ingest/internal/intake"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/replicate"
	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/tenant"
)

// pipeline takes requests to the owners of their series.
type pipeline struct {
	decoder   *wire.Decoder
	intake    *intake.Intake
	replicas  *replicate.Replicator
	forwarder *forward.Forwarder
	batches   batch.Pool
	metrics   *metrics
}

// request is a write request whose body has been read.
type request struct {
	tenant tenant.ID
	format wire.Format
	body   *wire.Body
	otlp   *wire.OTLP // nil unless the format is OTLP's
	place  *admit.Place
}

// write decodes a request and waits until it is known what becomes of its
// samples. It takes the body over, and leaves the place when nobody holds the
// request's memory any more: that may be after it has returned.
func (p *pipeline) write(ctx context.Context, req request) outcome {
	began := time.Now()
	b := p.batches.Get()
	if err := p.decoder.Decode(req.format, req.body, b, wire.Sender{Tenant: req.tenant, OTLP: req.otlp}); err != nil {
		p.batches.Put(b)
		req.place.Leave()
		return p.refused(outcome{err: err})
	}
	o := p.distribute(ctx, req.tenant, shared(b, func() { p.batches.Put(b); req.place.Leave() }), p.replicas.Write)
	p.metrics.duration.WithLabelValues(req.format.String()).Observe(time.Since(began).Seconds())
	return o
}

// appendTo writes to owners of series: all of them, or this process alone.
type appendTo func(ctx context.Context, w *batch.Write, t *refuse.Tally, release func())

// held is a batch that several read; what frees it is called when the last is done.
type held struct {
	*batch.Batch
	readers atomic.Int32
	free    func()
}

func shared(b *batch.Batch, free func()) *held {
	h := &held{Batch: b, free: free}
	h.readers.Store(1)
	return h
}

func (h *held) release() {
	if h.readers.Add(-1) == 0 {
		h.free()
	}
}

// distribute takes a batch to the owners of its series. It takes the batch over.
func (p *pipeline) distribute(ctx context.Context, id tenant.ID, b *held, to appendTo) outcome {
	defer b.release()
	o := outcome{samples: len(b.Floats), histograms: len(b.Histograms), exemplars: len(b.Exemplars)}
	t := b.Refused.Clone() // by the decoder
	parts, err := p.intake.Take(ctx, id, b.Batch, t)
	if err != nil {
		return p.refused(outcome{refused: b.Samples(), err: err})
	}
	if len(b.Series) == 0 && len(b.Families) > 0 { // metadata alone
		parts = []intake.Part{{Tenant: id, Families: b.Families}}
	}
	for _, part := range parts {
		w := &batch.Write{Tenant: part.Tenant, Session: part.Session, Batch: part.Batch(b.Batch), Only: part.Series}
		b.readers.Add(1)
		failed := unavailable(t)
		to(ctx, w, t, b.release)
		if unavailable(t) == failed { // else it is sent, and forwarded, once more
			p.forwarder.Offer(w)
		}
	}
	o.err, o.refused = t.Err(), t.Samples()
	left := o.refused - b.Refused.Samples() // out of what was decoded; of a mixed request samples count first
	o.samples, o.histograms = max(0, o.samples-left), o.histograms-max(0, left-o.samples)
	return p.refused(o)
}

// unavailable is how many samples were refused that every sender sends again.
func unavailable(t *refuse.Tally) (n int) {
	t.Each(func(r refuse.Reason, samples int, _ *refuse.Error) {
		if r.Status() == http.StatusServiceUnavailable {
			n += samples
		}
	})
	return n
}

// refused counts what an outcome tells of.
func (p *pipeline) refused(o outcome) outcome {
	if o.err != nil {
		r := string(o.reason())
		p.metrics.requests.WithLabelValues(r).Inc()
		p.metrics.refused.WithLabelValues(r).Add(float64(o.refused))
	}
	return o
}
