package ingest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/firnline/firnline/pkg/storeapi"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	require.NoError(a.t, err)
	out, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return out, key
}

// config is that of a server, and of a client who is called name.
func (a *authority) config(name string, dns ...string) *tls.Config {
	cert, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: dns, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

// codesOf calls each method of a server with an empty message.
func codesOf(t *testing.T, srv *grpc.Server, addr string, creds credentials.TransportCredentials) map[string]codes.Code {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	require.NoError(t, err)
	defer conn.Close()
	out := map[string]codes.Code{}
	for name, info := range srv.GetServiceInfo() {
		for _, m := range info.Methods {
			method := "/" + name + "/" + m.Name
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
			require.NoError(t, err)
			var answer []byte
			err = stream.SendMsg(new([]byte))
			if err == nil {
				err = stream.RecvMsg(&answer)
			}
			out[method] = status.Code(err)
		}
	}
	return out
}

const (
	otlpExport  = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
	ownerAppend = "/firnline.ingest.Owner/Append"
	thanosWrite = "/thanos.WriteableStore/RemoteWrite"
	storeSeries = "/thanos.Store/Series"
)

func serveAll(t *testing.T, in *Ingester, opts ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	srv := grpc.NewServer(append(storeapi.ServerOptions(), opts...)...)
	storeapi.Register(in.ForPeers(srv), in.Services(), slog.New(slog.DiscardHandler))
	in.Register(srv)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return srv, l.Addr().String()
}

// RELIABILITY P11: where its certificate names a client's tenant, the client can't name another one by
// the services of nodes and of reading; those whom the operator names can.
func TestTenantsAreNoPeers(t *testing.T) {
	a := newAuthority(t)
	tlsOf := func(name string, dns ...string) credentials.TransportCredentials {
		return credentials.NewTLS(a.config(name, dns...))
	}
	in := idle(t, "--receive.tenant-certificate-field=commonName", "--receive.peer-certificate-name=node", "--receive.peer-certificate-name=querier.local")
	srv, addr := serveAll(t, in, grpc.Creds(tlsOf("server")))

	got := codesOf(t, srv, addr, tlsOf("team-a", "team-a.local"))
	for _, m := range []string{ownerAppend, thanosWrite, storeSeries, otlpExport} {
		require.Contains(t, got, m)
	}
	for method, code := range got {
		require.Equal(t, method == otlpExport, code != codes.PermissionDenied, "%s: %s", method, code)
	}
	for _, peer := range []credentials.TransportCredentials{tlsOf("node"), tlsOf("any", "other.local", "querier.local")} {
		for method, code := range codesOf(t, srv, addr, peer) {
			require.NotEqual(t, codes.PermissionDenied, code, method)
		}
	}
}

// Where nothing tells callers apart, or tenants come by headers, all is as with Thanos.
func TestPeersWithoutCertificates(t *testing.T) {
	a := newAuthority(t)
	srv, addr := serveAll(t, idle(t, "--receive.tenant-certificate-field=commonName"))
	for method, code := range codesOf(t, srv, addr, insecure.NewCredentials()) {
		require.NotEqual(t, codes.PermissionDenied, code, method)
	}
	srv, addr = serveAll(t, idle(t), grpc.Creds(credentials.NewTLS(a.config("server"))))
	for method, code := range codesOf(t, srv, addr, credentials.NewTLS(a.config("team-a"))) {
		require.NotEqual(t, codes.PermissionDenied, code, method)
	}
}

// RELIABILITY P11: nor does a tenant's certificate show what is about all tenants.
func TestAllTenantsAreForPeers(t *testing.T) {
	a := newAuthority(t)
	ask := func(in *Ingester, path string, state *tls.ConnectionState) int {
		r := httptest.NewRequest(http.MethodGet, path+"?all_tenants=true", nil)
		r.TLS = state
		w := httptest.NewRecorder()
		in.Handler().ServeHTTP(w, r)
		return w.Code
	}
	as := func(name string) *tls.ConnectionState {
		leaf, _ := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}})
		return &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf, a.cert}}}
	}
	in := idle(t, "--receive.tenant-certificate-field=commonName", "--receive.peer-certificate-name=node")
	for _, path := range []string{"/api/v1/ingest/tenants", "/api/v1/status/tsdb", "/api/v1/ingest/ha", "/api/v1/ingest/forward"} {
		require.Equal(t, http.StatusForbidden, ask(in, path, as("team-a")), path)
		require.Equal(t, http.StatusForbidden, ask(in, path, nil), path)
		require.NotEqual(t, http.StatusForbidden, ask(in, path, as("node")), path)
		require.NotEqual(t, http.StatusForbidden, ask(idle(t), path, nil), path)
	}
}
