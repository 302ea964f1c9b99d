package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// newGRPC builds the gRPC server with health and reflection.
func (s *Server) newGRPC(extra []grpc.ServerOption) (*grpc.Server, error) {
	c := s.cfg.GRPC
	opts := []grpc.ServerOption{
		grpc.ConnectionTimeout(20 * time.Second), // handshakes
		grpc.MaxConcurrentStreams(uint32(c.MaxStreams)),
		grpc.MaxRecvMsgSize(int(c.MaxMessage)),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      time.Duration(c.MaxConnectionAge),
			MaxConnectionAgeGrace: time.Duration(c.MaxConnectionAgeGrace),
			Time:                  time.Minute, // finds clients that are gone
			Timeout:               20 * time.Second,
		}),
		// Thanos' clients ping every 10 s, with and without calls.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(s.tracing.Provider),
			otelgrpc.WithPropagators(s.tracing.Propagator),
			otelgrpc.WithFilter(func(i *stats.RPCTagInfo) bool { return !strings.HasPrefix(i.FullMethodName, "/grpc.") }),
		)),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	}
	first, _, err := loadGRPCTLS(c)
	if err != nil {
		return nil, err
	}
	if first != nil {
		current, err := newLastGood("grpc-tls", func() (*tls.Config, []string, error) { return loadGRPCTLS(c) }, s.log, s.metrics)
		if err != nil {
			return nil, err
		}
		s.AddReloader("gRPC certificates", func(context.Context) error { return current.reload() })
		opts = append(opts, grpc.Creds(credentials.NewTLS(following(current.get))))
	}
	srv := grpc.NewServer(append(slices.Clone(extra), opts...)...) // of two that set the same the last counts: an operator's
	healthpb.RegisterHealthServer(srv, s.health)
	reflection.Register(srv)
	return srv, nil
}

func (s *Server) serveGRPC(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

func (s *Server) drainGRPC(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.cfg.GRPC.GracePeriod))
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.grpc.Stop() // makes GracefulStop return
		<-done
		return fmt.Errorf("gRPC: --grpc-grace-period=%s: %w", s.cfg.GRPC.GracePeriod, ctx.Err())
	}
}

// watchHealth says by gRPC health what /-/ready says by HTTP, a second later at most.
func (s *Server) watchHealth(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		state := healthpb.HealthCheckResponse_NOT_SERVING
		if len(s.ready.waiting()) == 0 {
			state = healthpb.HealthCheckResponse_SERVING
		}
		s.health.SetServingStatus("", state) // nothing once it is shut down
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	err = s.call(ctx, info.FullMethod, func(ctx context.Context) error {
		answer, err = next(ctx, req)
		return err
	})
	return answer, err
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.call(ss.Context(), info.FullMethod, func(ctx context.Context) error {
		return next(srv, streamWithContext{ss, ctx})
	})
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s streamWithContext) Context() context.Context { return s.ctx }

// call runs one call with all that surrounds it: id, limit, metrics, log, panics.
func (s *Server) call(ctx context.Context, fullMethod string, run func(context.Context) error) (err error) {
	service, method := strings.Trim(path.Dir(fullMethod), "/"), path.Base(fullMethod)
	if !servedHere(ctx, service) {
		return status.Errorf(codes.Unimplemented, "service %s is not served at this address", service)
	}
	ctx = withRequestID(ctx, requestID(firstMetadata(ctx, requestIDMetadata)))

	logs := s.logged.grpc.applies(service + "/" + method)
	if logs && s.logged.grpc.start {
		s.logGRPC(ctx, slog.LevelDebug, "request started", "service", service, "method", method)
	}
	s.metrics.grpcInflight.Inc()
	defer s.metrics.grpcInflight.Dec()
	start := time.Now()
	defer func() {
		took, code := time.Since(start), status.Code(err)
		s.metrics.grpcRequests.WithLabelValues(service, method, code.String()).Inc()
		observe(ctx, s.metrics.grpcDuration.WithLabelValues(service, method), took)
		if logs {
			s.logGRPC(ctx, grpcLevel(code), "request finished", "service", service, "method", method, "code", code.String(), "duration", took)
		}
	}()
	return s.guarded(ctx, service, fullMethod, run)
}

// guarded bounds calls, probes apart, and turns panics into errors.
func (s *Server) guarded(ctx context.Context, service, fullMethod string, run func(context.Context) error) (err error) {
	if !strings.HasPrefix(service, "grpc.") {
		if !s.grpcGate.enter() {
			s.metrics.refused.WithLabelValues("grpc").Inc()
			return status.Errorf(codes.Unavailable, "too many calls at once, limit %d (--grpc-server-max-concurrent-requests)", cap(s.grpcGate))
		}
		defer s.grpcGate.leave()
	}
	defer func() {
		if cause := recover(); cause != nil {
			s.metrics.panics.WithLabelValues("grpc").Inc()
			s.log.ErrorContext(ctx, "panic in a gRPC handler", "method", fullMethod, "panic", cause, "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "internal error, see the log for request %s", RequestID(ctx))
		}
	}()
	return run(ctx)
}

func (s *Server) logGRPC(ctx context.Context, level slog.Level, msg string, more ...any) {
	if level >= s.logged.grpc.level {
		s.log.Log(ctx, level, msg, append([]any{"protocol", "grpc"}, more...)...)
	}
}

// grpcLevel is the level at which a call that ended with code is logged.
func grpcLevel(code codes.Code) slog.Level {
	switch code {
	case codes.Unknown, codes.Unimplemented, codes.Internal, codes.DataLoss:
		return slog.LevelError
	}
	return slog.LevelDebug
}

func firstMetadata(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
		return v[0]
	}
	return ""
}
