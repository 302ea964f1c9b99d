package ingest

import (
	"context"
	"sync/atomic"
	"time"

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
}

// write decodes a request and waits until it is known what becomes of its
// samples. It takes the body over.
func (p *pipeline) write(ctx context.Context, req request) outcome {
	began := time.Now()
	b := p.batches.Get()
	if err := p.decoder.Decode(req.format, req.body, b, wire.Sender{Tenant: req.tenant, OTLP: req.otlp}); err != nil {
		p.batches.Put(b)
		return p.refused(outcome{err: err})
	}
	o := p.distribute(ctx, req.tenant, b, p.replicas.Write)
	p.metrics.duration.WithLabelValues(req.format.String()).Observe(time.Since(began).Seconds())
	return o
}

// appendTo writes to owners of series: all of them, or this process alone.
type appendTo func(ctx context.Context, w *batch.Write, t *refuse.Tally, release func())

// distribute takes a batch to the owners of its series. It takes the batch over.
func (p *pipeline) distribute(ctx context.Context, id tenant.ID, b *batch.Batch, to appendTo) outcome {
	var readers atomic.Int32 // of the batch: this function, and each part until its last owner is done
	readers.Add(1)
	release := func() {
		if readers.Add(-1) == 0 {
			p.batches.Put(b)
		}
	}
	defer release()
	o := outcome{samples: len(b.Floats), histograms: len(b.Histograms), exemplars: len(b.Exemplars)}
	var t refuse.Tally
	parts, err := p.intake.Take(ctx, id, b, &t)
	if err != nil {
		return p.refused(outcome{refused: b.Samples(), err: err})
	}
	for _, part := range parts {
		w := &batch.Write{Tenant: part.Tenant, Session: part.Session, Batch: b, Only: part.Series}
		readers.Add(1)
		to(ctx, w, &t, release)
		if r := refuse.ReasonOf(t.Err()); t.Samples() == 0 || !r.Retry() { // else it is sent, and forwarded, once more
			p.forwarder.Offer(w)
		}
	}
	o.err, o.refused = t.Err(), t.Samples()
	floats := max(0, o.samples-o.refused) // the few refused histograms of a mixed request are counted as samples
	o.histograms, o.samples = o.histograms-max(0, o.refused-o.samples), floats
	return p.refused(o)
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
