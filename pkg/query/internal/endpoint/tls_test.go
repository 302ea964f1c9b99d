package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// authority is a CA for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate for name with its key, both in PEM.
func (a authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &priv.PublicKey, a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(priv)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// RELIABILITY K3: the next connection uses rotated files; mTLS both ways.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ours := newAuthority(t)
	var seen atomic.Value // common name of the client
	serverCert, serverKey := ours.issue(t, "store")
	pair, err := tls.X509KeyPair(serverCert, serverKey)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	server := grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		VerifyConnection: func(cs tls.ConnectionState) error {
			seen.Store(cs.PeerCertificates[0].Subject.CommonName)
			return nil
		},
	}))
	install := func(a authority, name string) {
		cert, key := a.issue(t, name)
		require.NoError(t, os.WriteFile(path("ca.pem"), ours.pem, 0o600))
		require.NoError(t, os.WriteFile(path("cert.pem"), cert, 0o600))
		require.NoError(t, os.WriteFile(path("key.pem"), key, 0o600))
	}
	install(ours, "first")
	store := storetest.NewFake(nil, infoOf("store"))
	address, stop := serve(t, store, server)
	s := start(t, func(c *Config) {
		c.Addresses = []string{address}
		c.Client.Secure, c.Client.CAFile, c.Client.CertFile, c.Client.KeyFile = true, path("ca.pem"), path("cert.pem"), path("key.pem")
		c.Client.ServerName = "store"
	})
	require.NoError(t, s.Peers()[0].Down)
	require.Equal(t, "first", seen.Load())

	install(ours, "second")
	require.NoError(t, s.Peers()[0].Down, "the old connection lives on")
	stop()
	eventually(t, "down", func() bool { return s.Peers()[0].Down != nil })
	stop = serveAt(t, address, store, server)
	eventually(t, "up", func() bool { return s.Peers()[0].Down == nil })
	require.Equal(t, "second", seen.Load())

	// A CA that did not sign the server's certificate, and files that are gone, are told of.
	require.NoError(t, os.WriteFile(path("ca.pem"), newAuthority(t).pem, 0o600))
	stop()
	serveAt(t, address, store, server)
	eventually(t, "unknown authority", func() bool { return contains(s, "x509: certificate signed by unknown authority") })
	require.NoError(t, os.Remove(path("ca.pem")))
	eventually(t, "no file", func() bool { return contains(s, "ca.pem") })
	install(ours, "third")
	eventually(t, "up", func() bool { return s.Peers()[0].Down == nil })
}

func contains(s *Set, text string) bool {
	err := s.Peers()[0].Down
	return err != nil && strings.Contains(err.Error(), text)
}
