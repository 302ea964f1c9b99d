package server

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// RELIABILITY P11: an address that is for some services answers no others, with and without TLS.
func TestAddressOfSomeServices(t *testing.T) {
	a := newAuthority(t)
	for _, tls := range []bool{false, true} {
		cfg := testConfig()
		creds := insecure.NewCredentials()
		if tls {
			dir := t.TempDir()
			cfg.GRPC.TLSCert, cfg.GRPC.TLSKey = certFiles(t, a, dir, "server")
			cfg.GRPC.TLSClientCA = write(t, filepath.Join(dir, "ca.pem"), a.pem())
			creds = credentials.NewTLS(a.clientConfig(t, "client"))
		}
		cfg.MoreGRPC = []MoreAddress{
			{Flag: "same", Address: "127.0.0.1:0", Services: []string{"test.Echo"}}, {Flag: "none", Address: "127.0.0.1:0", Services: []string{"test.Other"}},
		}
		h := newHarness(t, cfg)
		h.GRPC().RegisterService(echo(func(context.Context) error { return nil }), nil)
		h.start(t)
		for i, want := range []codes.Code{codes.OK, codes.OK, codes.Unimplemented} {
			conn, err := grpc.NewClient(h.grpcListeners[i].Addr().String(), grpc.WithTransportCredentials(creds))
			require.NoError(t, err)
			defer conn.Close()
			require.Equal(t, want, status.Code(unary(t.Context(), conn)))
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Stream")
			require.NoError(t, err)
			require.NoError(t, stream.CloseSend())
			if err := stream.RecvMsg(&emptypb.Empty{}); want == codes.Unimplemented {
				require.Equal(t, want, status.Code(err))
			}
			_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
			require.NoError(t, err)
		}
		h.stop()
		require.NoError(t, h.wait(t))
	}
}
