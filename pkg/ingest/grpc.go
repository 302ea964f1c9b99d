package ingest

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/replicate"
	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/tenant"
)

// OTLPService is the gRPC service that OpenTelemetry's senders call.
const OTLPService = "opentelemetry.proto.collector.metrics.v1.MetricsService"

// Register offers what senders and other nodes call over gRPC.
func (in *Ingester) Register(r grpc.ServiceRegistrar) {
	forPeers := in.ForPeers(r)
	if in.owned != nil {
		replicate.NewServer(in.cfg.Owners, in.owner, func(bytes int64) (replicate.Place, error) { return in.gate.EnterFrame(bytes) }).Register(forPeers)
	}
	replicate.RegisterWriteable(forPeers, in.mayRead, in.writeThanos)
	if in.cfg.routes() {
		replicate.RegisterUnary(r, replicate.Unary{Service: OTLPService, Method: "Export"}, in.mayReadOTLP, in.exportOTLP)
	}
}

// mayRead waits until a message of OTLP or of a Thanos router may be read: its size is not known before.
func (in *Ingester) mayRead(ctx context.Context) (done func(), err error) {
	done, err = in.gate.AwaitRead(ctx, in.maxMessage)
	if err != nil {
		in.path.refused(outcome{err: err})
	}
	return done, err
}

func (in *Ingester) mayReadOTLP(ctx context.Context) (done func(), err error) {
	if done, err = in.mayRead(ctx); err != nil {
		return nil, grpcError(err)
	}
	return done, nil
}

// exportOTLP carries out an ExportMetricsServiceRequest.
func (in *Ingester) exportOTLP(ctx context.Context, body []byte) ([]byte, error) {
	id, err := in.cfg.Tenant.OfCall(ctx)
	if err != nil {
		return nil, grpcError(in.path.refused(outcome{err: &refuse.Error{Reason: refuse.BadTenant, Detail: err.Error()}}).err)
	}
	if err := (&limitedBody{tenant: id, most: in.maxBody(id)}).check(int64(len(body))); err != nil {
		return nil, grpcError(in.path.refused(outcome{err: err}).err)
	}
	place, err := in.gate.Enter(int64(len(body)))
	if err != nil {
		return nil, grpcError(in.path.refused(outcome{err: err}).err)
	}
	b, err := in.path.decoder.Wrap(body)
	if err != nil {
		place.Leave()
		return nil, grpcError(in.path.refused(outcome{err: err}).err)
	}
	o := in.path.write(tenant.NewContext(ctx, id), request{tenant: id, format: wire.OTLPProto, body: b, otlp: in.otlp(id), place: place})
	if o.failed() {
		return nil, grpcError(o.err)
	}
	return otlpResponse(false, o)
}

// writeThanos carries out a RemoteWrite of a Thanos router: what comes with a
// replica number is meant for this node, the rest is to be distributed. Only
// the latter waits for other nodes, and so has a place among requests.
func (in *Ingester) writeThanos(ctx context.Context, raw []byte) error {
	enter := in.gate.Enter
	if wire.ReplicaOf(raw) > 0 {
		enter = in.gate.EnterFrame
	}
	place, err := enter(int64(len(raw)))
	if err != nil {
		return in.path.refused(outcome{err: err}).err
	}
	body, err := in.path.decoder.Wrap(raw)
	if err != nil {
		place.Leave()
		return in.path.refused(outcome{err: err}).err
	}
	parts, replica, err := in.path.decoder.Thanos(body, &in.path.batches)
	if err != nil {
		place.Leave()
		return in.path.refused(outcome{err: err}).err
	}
	to := in.path.replicas.Write
	if replica > 0 {
		to = in.path.replicas.Local
	}
	all := shared(nil, place.Leave) // the batches share the place
	defer all.release()
	var errs []error
	for _, part := range parts {
		id, err := tenantOf(part.Tenant, in.cfg.Tenant)
		if err != nil {
			in.path.batches.Put(part.Batch)
			errs = append(errs, err)
			continue
		}
		all.readers.Add(1)
		b := shared(part.Batch, func() { in.path.batches.Put(part.Batch); all.release() })
		errs = append(errs, in.path.distribute(tenant.NewContext(ctx, id), id, b, to).err)
	}
	return worst(errs)
}

// tenantOf is the tenant that a Thanos router names.
func tenantOf(name string, cfg tenant.Config) (tenant.ID, error) {
	if name == "" {
		name = cfg.Default
	}
	id, err := tenant.Parse(name)
	if err != nil {
		return "", &refuse.Error{Reason: refuse.BadTenant, Detail: err.Error()}
	}
	return id, nil
}

// worst is the error that can be tried again, if there is one.
func worst(errs []error) error {
	for _, err := range errs {
		if err != nil && refuse.ReasonOf(err).Retry() {
			return err
		}
	}
	return errors.Join(errs...)
}

// grpcError is the answer of a call that failed.
func grpcError(err error) error {
	return status.Error(grpcCode(refuse.ReasonOf(err)), err.Error())
}
