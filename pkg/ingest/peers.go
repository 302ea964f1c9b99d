package ingest

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// peers tells who may call the services by which nodes, routers and queriers
// write and read for every tenant: they name the tenant themselves. Where a client's
// certificate is what says its tenant, such a client must not.
type peers struct {
	certificates bool     // are what names tenants
	names        []string // of those that are other nodes' or queriers'
	log          *slog.Logger
	open         sync.Once // for the warning that anybody may call
}

// allow is a status if the caller has a certificate, and that is not a peer's.
// Where the listener asks for none there is nothing to tell callers apart by: whoever reaches it is a peer.
func (p *peers) allow(ctx context.Context) error {
	if !p.certificates {
		return nil
	}
	leaf := verified(ctx)
	if leaf == nil {
		p.open.Do(func() {
			p.log.Warn("tenants are named by certificates, and gRPC asks for none: whoever reaches --grpc-address may write and read for every tenant; set --grpc-server-tls-client-ca and --receive.peer-certificate-name")
		})
		return nil
	}
	if p.named(leaf) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "the certificate of %q is no peer's, and only peers may call this service: it is for all tenants (--receive.peer-certificate-name)", leaf.Subject.CommonName)
}

// named tells whether a certificate is a peer's.
func (p *peers) named(leaf *x509.Certificate) bool {
	return slices.Contains(p.names, leaf.Subject.CommonName) || slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return slices.Contains(p.names, n) })
}

// mayAskForAll tells whether a request may be about all tenants. By HTTP it is a
// tenant's certificate that names it, so only a peer's may.
func (p *peers) mayAskForAll(r *http.Request) bool {
	if !p.certificates {
		return true
	}
	return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.VerifiedChains[0]) > 0 && p.named(r.TLS.VerifiedChains[0][0])
}

// verified is the certificate of a call's client, if the listener has verified one.
func verified(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}

// ForPeers returns where services are registered that only other nodes, Thanos'
// routers and queriers may call.
func (in *Ingester) ForPeers(to grpc.ServiceRegistrar) grpc.ServiceRegistrar {
	return guardedRegistrar{to, in.peers}
}

// guardedRegistrar puts a check before each method of a service.
type guardedRegistrar struct {
	to    grpc.ServiceRegistrar
	peers *peers
}

// RegisterService implements grpc.ServiceRegistrar.
func (g guardedRegistrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = slices.Clone(d.Methods), slices.Clone(d.Streams)
	for i := range d.Methods {
		handle := d.Methods[i].Handler
		d.Methods[i].Handler = func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC's order of arguments
			return handle(srv, ctx, decode, g.behind(intercept))
		}
	}
	for i := range d.Streams {
		handle := d.Streams[i].Handler
		d.Streams[i].Handler = func(srv any, stream grpc.ServerStream) error {
			if err := g.peers.allow(stream.Context()); err != nil {
				return err
			}
			return handle(srv, stream)
		}
	}
	g.to.RegisterService(&d, impl)
}

// behind checks behind the server's interceptor, which counts and logs calls.
func (g guardedRegistrar) behind(intercept grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		checked := func(ctx context.Context, req any) (any, error) {
			if err := g.peers.allow(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}
		if intercept == nil {
			return checked(ctx, req)
		}
		return intercept(ctx, req, info, checked)
	}
}
