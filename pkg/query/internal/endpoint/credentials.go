package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// transportCredentials returns how connections are secured.
func (c ClientConfig) transportCredentials() credentials.TransportCredentials {
	if !c.Secure {
		return insecure.NewCredentials()
	}
	return &rotating{cfg: c}
}

// rotating are TLS credentials that read certificate, key and CA anew for each
// connection, so that a rotated file is used by the next one. Connections are
// few and long, so nothing is cached.
type rotating struct{ cfg ClientConfig }

// ClientHandshake implements credentials.TransportCredentials.
func (r *rotating) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := r.cfg.tlsConfig()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(cfg).ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials. It refuses: these are for clients.
func (r *rotating) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("endpoint credentials are for clients only")
}

// Info implements credentials.TransportCredentials.
func (r *rotating) Info() credentials.ProtocolInfo {
	//nolint:staticcheck // Deprecated for one authority a channel, but gRPC still asks credentials for it, and ours can name one.
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: r.cfg.ServerName}
}

// Clone implements credentials.TransportCredentials.
func (r *rotating) Clone() credentials.TransportCredentials { return &rotating{cfg: r.cfg} }

// OverrideServerName implements credentials.TransportCredentials.
func (r *rotating) OverrideServerName(name string) error {
	r.cfg.ServerName = name
	return nil
}

// tlsConfig reads the files and returns the settings of one connection.
func (c ClientConfig) tlsConfig() (*tls.Config, error) {
	versions := map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	cfg := &tls.Config{
		MinVersion:         versions[c.MinVersion],
		ServerName:         c.ServerName,
		InsecureSkipVerify: c.SkipVerify,
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA certificates: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA certificates: %s has no certificate in PEM", c.CAFile)
		}
	}
	return cfg, nil
}
