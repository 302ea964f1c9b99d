package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/firnline/firnline/pkg/proctest"
)

// echo is a service with one unary and one streaming call, both run by a function.
func echo(run func(context.Context) error) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Unary",
			Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
				req := new(emptypb.Empty)
				if err := dec(req); err != nil {
					return nil, err
				}
				return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Echo/Unary"}, func(ctx context.Context, _ any) (any, error) {
					return new(emptypb.Empty), run(ctx)
				})
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName: "Stream", ServerStreams: true,
			Handler: func(_ any, ss grpc.ServerStream) error { return run(ss.Context()) },
		}},
	}
}

func dialEcho(t *testing.T, h *harness) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(h.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func unary(ctx context.Context, conn *grpc.ClientConn) error {
	return conn.Invoke(ctx, "/test.Echo/Unary", &emptypb.Empty{}, &emptypb.Empty{})
}

// RELIABILITY K2
func TestStopIsNotReadyFirstThenDrains(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.Address = proctest.Addr(t) // nobody else listens there afterwards
	h := newHarness(t, cfg)
	delayed, entered, leave := make(chan struct{}), make(chan struct{}, 2), make(chan struct{})
	h.sleep = func(time.Duration) { <-delayed }
	h.Handle("/slow", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-leave
		fmt.Fprint(w, "whole")
	}))
	h.GRPC().RegisterService(echo(func(context.Context) error {
		entered <- struct{}{}
		<-leave
		return nil
	}), nil)
	h.start(t)
	conn := dialEcho(t, h)

	overHTTP, overGRPC := make(chan string, 1), make(chan error, 1)
	go func() {
		_, body, _ := get(t, h.url("/slow"))
		overHTTP <- body
	}()
	go func() { overGRPC <- unary(context.Background(), conn) }()
	<-entered
	<-entered
	require.Eventually(t, func() bool { code, _, _ := get(t, h.url("/-/ready")); return code == 200 }, 2*time.Minute, 10*time.Millisecond)

	h.stop()
	// Still listening, no longer ready.
	require.Eventually(t, func() bool {
		code, body, _ := get(t, h.url("/-/ready"))
		return code == 503 && body == "not ready, waiting for\nserver: stopping\n"
	}, 2*time.Minute, 5*time.Millisecond)
	answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, answer.Status)

	// Then nothing new is taken, while what runs goes on.
	close(delayed)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", h.HTTPAddr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	}, 2*time.Minute, 10*time.Millisecond)
	select {
	case err := <-h.done:
		t.Fatalf("Run returned %v with requests running", err)
	default:
	}
	close(leave)
	require.Equal(t, "whole", <-overHTTP)
	require.NoError(t, <-overGRPC)
	require.NoError(t, h.wait(t))
	require.Contains(t, h.logs.String(), "all requests finished")
}

// RELIABILITY K2
func TestStopCutsWhatOutlivesTheGracePeriod(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.GracePeriod, cfg.GRPC.GracePeriod = model.Duration(50*time.Millisecond), model.Duration(50*time.Millisecond)
	h := newHarness(t, cfg)
	entered := make(chan struct{}, 2)
	h.Handle("/endless", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-r.Context().Done()
	}))
	h.GRPC().RegisterService(echo(func(ctx context.Context) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}), nil)
	h.start(t)
	conn := dialEcho(t, h)
	overHTTP, overGRPC := make(chan error, 1), make(chan error, 1)
	go func() {
		resp, err := client(t).Get(h.url("/endless"))
		if err == nil {
			resp.Body.Close()
		}
		overHTTP <- err
	}()
	go func() { overGRPC <- unary(context.Background(), conn) }()
	<-entered
	<-entered

	h.stop()
	require.Error(t, <-overHTTP)
	require.Error(t, <-overGRPC)
	require.NoError(t, h.wait(t))
	require.Contains(t, h.logs.String(), "grace period is over")
}

func TestListenerThatFailsEndsRun(t *testing.T) {
	h := newHarness(t, testConfig()).start(t)
	require.Eventually(t, func() bool { code, _, _ := get(t, h.url("/-/ready")); return code == 200 }, 2*time.Minute, 10*time.Millisecond)
	h.grpcListeners[0].Close()
	require.ErrorContains(t, h.wait(t), "serve gRPC")
}

func TestGRPCPanicsLimitsAndIDs(t *testing.T) {
	cfg := testConfig()
	cfg.GRPC.MaxRequests = 1
	h := newHarness(t, cfg)
	calls := make(chan func(context.Context) error, 4)
	h.GRPC().RegisterService(echo(func(ctx context.Context) error { return (<-calls)(ctx) }), nil)
	h.start(t)
	conn := dialEcho(t, h)

	calls <- func(context.Context) error { panic("boom") }
	err := unary(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "mine"), conn)
	require.Equal(t, codes.Internal, status.Code(err))
	require.ErrorContains(t, err, "see the log for request mine")

	// The id goes on to the calls that a handler makes.
	calls <- func(ctx context.Context) error {
		out, _ := metadata.FromOutgoingContext(ctx)
		return status.Error(codes.NotFound, fmt.Sprint(RequestID(ctx), out.Get("x-request-id")))
	}
	stream, err := conn.NewStream(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "yours"),
		&grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Stream")
	require.NoError(t, err)
	require.NoError(t, stream.CloseSend())
	require.ErrorContains(t, stream.RecvMsg(&emptypb.Empty{}), "yours[yours]")

	entered, leave := make(chan struct{}), make(chan struct{})
	calls <- func(context.Context) error { close(entered); <-leave; return nil }
	first := make(chan error, 1)
	go func() { first <- unary(context.Background(), conn) }()
	<-entered
	err = unary(t.Context(), conn)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "limit 1 (--grpc-server-max-concurrent-requests)")
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err, "probes don't count")
	close(leave)
	require.NoError(t, <-first)
}

// What listens on one more address serves the same there, and empty ones are left out.
func TestMoreAddresses(t *testing.T) {
	cfg := testConfig()
	cfg.MoreHTTP = []MoreAddress{{Flag: "more-http", Address: "127.0.0.1:0"}, {Flag: "none"}}
	cfg.MoreGRPC = []MoreAddress{{Flag: "more-grpc", Address: "127.0.0.1:0"}}
	h := newHarness(t, cfg).start(t)
	require.Len(t, h.httpListeners, 2)
	for _, l := range h.httpListeners {
		require.Eventually(t, func() bool { code, _, _ := get(t, "http://"+l.Addr().String()+"/-/ready"); return code == 200 }, 2*time.Minute, 10*time.Millisecond)
	}
	require.Len(t, h.grpcListeners, 2)
	for _, l := range h.grpcListeners {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
	}
	h.stop()
	require.NoError(t, h.wait(t))
}
