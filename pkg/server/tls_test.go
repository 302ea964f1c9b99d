package server

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// certFiles writes a fresh certificate by the given name into dir.
func certFiles(t *testing.T, a *authority, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certPEM, keyPEM := a.issue(t, name)
	return write(t, filepath.Join(dir, "cert.pem"), certPEM), write(t, filepath.Join(dir, "key.pem"), keyPEM)
}

// servedName connects anew and returns the name in the server's certificate.
func servedName(t *testing.T, addr string, conf *tls.Config) string {
	t.Helper()
	conf = conf.Clone()
	conf.NextProtos = []string{"h2", "http/1.1"}
	conn, err := tls.Dial("tcp", addr, conf)
	require.NoError(t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func tlsClient(t *testing.T, conf *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

// RELIABILITY K3
func TestHTTPCertificateRotation(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	certFiles(t, a, dir, "first")
	cfg := testConfig()
	cfg.HTTP.WebConfig = write(t, filepath.Join(dir, "web.yml"), "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n")
	h := newHarness(t, cfg).start(t)
	addr := h.HTTPAddr().String()

	old := tlsClient(t, a.clientConfig(t, ""))
	status := func() (int, int) {
		resp, err := old.Get("https://" + addr + "/-/healthy")
		require.NoError(t, err)
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		require.Equal(t, "first", resp.TLS.PeerCertificates[0].Subject.CommonName, "the old connection lives on")
		return resp.StatusCode, resp.ProtoMajor
	}
	code, proto := status()
	require.Equal(t, 200, code)
	require.Equal(t, 2, proto)

	certFiles(t, a, dir, "second")
	require.Equal(t, "second", servedName(t, addr, a.clientConfig(t, "")))
	code, _ = status()
	require.Equal(t, 200, code)

	// Half a rotation: the certificate is new, its key not there yet.
	certPEM, _ := a.issue(t, "third")
	write(t, filepath.Join(dir, "cert.pem"), certPEM)
	require.Equal(t, "second", servedName(t, addr, a.clientConfig(t, "")), "the last good pair stays")
	require.Equal(t, 0.0, testutil.ToFloat64(h.metrics.reloadOK.WithLabelValues("web")))
}

// RELIABILITY K1, K3
func TestBasicAuthAndItsRotation(t *testing.T) {
	hash := func(password string) string {
		b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		require.NoError(t, err)
		return string(b)
	}
	path := filepath.Join(t.TempDir(), "web.yml")
	cfg := testConfig()
	cfg.HTTP.WebConfig = write(t, path, "basic_auth_users:\n  grafana: "+hash("one")+"\n")
	h := newHarness(t, cfg).start(t)
	login := func(user, password string) int {
		req, _ := http.NewRequest(http.MethodGet, h.url("/-/healthy"), nil)
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := client(t).Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	require.Equal(t, 401, login("", ""))
	require.Equal(t, 401, login("grafana", "two"))
	require.Equal(t, 401, login("nobody", "one"))
	require.Equal(t, 200, login("grafana", "one"))
	require.Equal(t, 200, login("grafana", "one"), "a remembered login")

	write(t, path, "basic_auth_users:\n  grafana: "+hash("two")+"\n")
	require.Equal(t, 401, login("grafana", "one"), "the old password is gone at once: %s", h.logs)
	require.Equal(t, 200, login("grafana", "two"))

	for name, bad := range map[string]string{
		"empty, as in the middle of a write": "",
		"cut":                                "basic_auth_users:\n  grafana: $2a$",
		"unknown key":                        "basic_auth_user: {}\n",
	} {
		write(t, path, bad)
		require.Equal(t, 401, login("", ""), "%s: must not open the door", name)
		require.Equal(t, 200, login("grafana", "two"), name)
		require.Equal(t, 0.0, testutil.ToFloat64(h.metrics.reloadOK.WithLabelValues("web")), name)
	}
	require.NoError(t, os.Remove(path))
	require.Equal(t, 401, login("", ""))
	write(t, path, "{}")
	require.Equal(t, 200, login("", ""), "opened on purpose")
}

func TestHTTPClientCertificates(t *testing.T) {
	a, stranger, dir := newAuthority(t), newAuthority(t), t.TempDir()
	certFiles(t, a, dir, "server")
	write(t, filepath.Join(dir, "ca.pem"), a.pem())
	cfg := testConfig()
	cfg.HTTP.WebConfig = write(t, filepath.Join(dir, "web.yml"), `
tls_server_config:
  cert_file: cert.pem
  key_file: key.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
`)
	h := newHarness(t, cfg).start(t)
	url := "https://" + h.HTTPAddr().String() + "/-/healthy"
	resp, err := tlsClient(t, a.clientConfig(t, "grafana")).Get(url)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)

	_, err = tlsClient(t, a.clientConfig(t, "")).Get(url)
	require.Error(t, err, "no certificate")
	conf := a.clientConfig(t, "")
	conf.Certificates = stranger.clientConfig(t, "grafana").Certificates
	_, err = tlsClient(t, conf).Get(url)
	require.Error(t, err, "a certificate of somebody else")
}

// RELIABILITY K3
func TestGRPCClientCertificatesAndRotation(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	cfg := testConfig()
	cfg.GRPC.TLSCert, cfg.GRPC.TLSKey = certFiles(t, a, dir, "first")
	cfg.GRPC.TLSClientCA = write(t, filepath.Join(dir, "ca.pem"), a.pem())
	h := newHarness(t, cfg).start(t)
	addr := h.GRPCAddr().String()

	check := func(conn *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	dial := func(conf *tls.Config) *grpc.ClientConn {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	old := dial(a.clientConfig(t, "query"))
	require.NoError(t, check(old))
	require.Error(t, check(dial(a.clientConfig(t, ""))), "no certificate")

	certFiles(t, a, dir, "second")
	require.Equal(t, "second", servedName(t, addr, a.clientConfig(t, "query")))
	require.NoError(t, check(old), "the old connection lives on")

	// New authority: its clients are let in, the old ones' next connection is not.
	b := newAuthority(t)
	write(t, cfg.GRPC.TLSClientCA, b.pem())
	conf := a.clientConfig(t, "")
	conf.Certificates = b.clientConfig(t, "query").Certificates
	require.NoError(t, check(dial(conf)))
	require.Error(t, check(dial(a.clientConfig(t, "query"))))

	write(t, cfg.GRPC.TLSClientCA, "torn")
	require.ErrorContains(t, h.Reload(t.Context()), "--grpc-server-tls-client-ca: "+cfg.GRPC.TLSClientCA+": no certificate in it")
	require.NoError(t, check(dial(conf)), "the last good authority stays")
}

func TestWebConfigErrors(t *testing.T) {
	for name, tc := range map[string]struct{ content, err string }{
		"unknown key":    {"tls_server_config:\n  cert_fil: x\n", `line 2: unknown key "cert_fil"`},
		"plain password": {"basic_auth_users: {u: hunter2}\n", `basic_auth_users: the password of "u" is no bcrypt hash`},
		"wrong header":   {"http_server_config: {headers: {Server: x}}\n", `header "Server" can't be set here`},
		"no key":         {"tls_server_config: {cert_file: x}\n", "tls_server_config: missing one of key or key_file"},
		"syntax":         {"a: b: c\n", "line 1: mapping values are not allowed"},
		"empty":          {"", "the file is empty"},
		"frame options":  {"http_server_config: {headers: {X-Frame-Options: x}}\n", "want deny or sameorigin"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "web.yml"), tc.content)
			_, _, err := loadWebConfig(path)
			require.ErrorContains(t, err, "--http.config: "+path)
			require.ErrorContains(t, err, tc.err)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestRateLimit(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.WebConfig = write(t, filepath.Join(t.TempDir(), "web.yml"), "rate_limit: {interval: 1h, burst: 2}\n")
	h := newHarness(t, cfg).start(t)
	for i, want := range []int{200, 200, 429} {
		code, _, _ := get(t, h.url("/-/healthy"))
		require.Equal(t, want, code, i)
	}
}

func TestUnknownUserHashIsAHash(t *testing.T) {
	cost, err := bcrypt.Cost([]byte(unknownUserHash))
	require.NoError(t, err)
	require.Equal(t, bcrypt.DefaultCost, cost)
}
