package wire

import (
	"context"
	"sync"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/processor/deltatocumulativeprocessor"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// deltas sums up delta points to cumulative ones, by the collector's processor
// as Prometheus does: a processor a tenant, made when it is needed first.
type deltas struct {
	maxStreams int           // a tenant
	maxStale   time.Duration // a stream that is silent for so long begins anew
	now        func() time.Time

	mu struct {
		sync.Mutex
		tenants map[tenant.ID]*deltaTenant
		swept   time.Time
		closed  bool
	}
}

type deltaTenant struct {
	processor.Metrics
	used time.Time
}

// convert changes delta points to cumulative ones, in place. Points that don't
// continue their stream, or are of more streams than may be, are left out and counted.
func (d *deltas) convert(id tenant.ID, md pmetric.Metrics, into *batch.Batch) error {
	p, err := d.of(id)
	if err != nil {
		return err
	}
	before := md.DataPointCount()
	if err := p.ConsumeMetrics(context.Background(), md); err != nil {
		return refuse.Errorf(refuse.BadRequest, id, "convert delta to cumulative: %v", err)
	}
	if lost := before - md.DataPointCount(); lost > 0 {
		into.Refused.Add(refuse.SampleOutOfOrder, lost, func() *refuse.Error {
			return refuse.Errorf(refuse.SampleOutOfOrder, id,
				"delta points older than the last of their stream, or of a new stream where %d are the limit (delta_max_streams)", d.maxStreams)
		})
	}
	return nil
}

// of is the tenant's processor.
func (d *deltas) of(id tenant.ID) (processor.Metrics, error) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep(now)
	t, ok := d.mu.tenants[id]
	if !ok && d.mu.closed {
		return nil, refuse.Errorf(refuse.NotReady, id, "convert delta to cumulative: stopping")
	}
	if !ok {
		p, err := d.start()
		if err != nil {
			return nil, refuse.Errorf(refuse.NotReady, id, "convert delta to cumulative: %v", err)
		}
		t = &deltaTenant{Metrics: p}
		if d.mu.tenants == nil {
			d.mu.tenants = map[tenant.ID]*deltaTenant{}
		}
		d.mu.tenants[id] = t
	}
	t.used = now
	return t.Metrics, nil
}

// start makes a processor. It forgets silent streams in a goroutine that ends with its Shutdown.
func (d *deltas) start() (processor.Metrics, error) {
	factory := deltatocumulativeprocessor.NewFactory()
	cfg := &deltatocumulativeprocessor.Config{MaxStale: d.maxStale, MaxStreams: d.maxStreams}
	set := processor.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: component.TelemetrySettings{MeterProvider: noop.NewMeterProvider()},
	}
	// It works in place, so that nothing has to happen behind it.
	sink, err := consumer.NewMetrics(func(context.Context, pmetric.Metrics) error { return nil })
	if err != nil {
		return nil, err
	}
	p, err := factory.CreateMetrics(context.Background(), set, cfg, sink)
	if err != nil {
		return nil, err
	}
	return p, p.Start(context.Background(), nil)
}

// sweep forgets tenants all of whose streams are silent for long.
func (d *deltas) sweep(now time.Time) {
	if now.Sub(d.mu.swept) < time.Minute {
		return
	}
	d.mu.swept = now
	for id, t := range d.mu.tenants {
		if now.Sub(t.used) > 2*d.maxStale {
			_ = t.Shutdown(context.Background())
			delete(d.mu.tenants, id)
		}
	}
}

func (d *deltas) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.closed = true
	for _, t := range d.mu.tenants {
		_ = t.Shutdown(context.Background())
	}
	clear(d.mu.tenants)
}
