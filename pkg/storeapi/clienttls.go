package storeapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// ClientTLS is how connections to gRPC servers are secured.
type ClientTLS struct {
	Secure     bool
	SkipVerify bool
	CertFile   string
	KeyFile    string
	CAFile     string
	MinVersion string // 1.0 to 1.3
	ServerName string
}

// RegisterFlags registers the flags --<prefix>tls-… and --<prefix>server-name
// and fills in their defaults. peers is what help calls the servers: "endpoints".
func (c *ClientTLS) RegisterFlags(prefix, peers string, fs *flag.FlagSet) {
	fs.BoolVar(&c.Secure, prefix+"tls-secure", false, "Speak TLS to "+peers+".")
	fs.BoolVar(&c.SkipVerify, prefix+"tls-skip-verify", false, "Accept any certificate of "+peers+". Insecure.")
	fs.StringVar(&c.CertFile, prefix+"tls-cert", "", "File with the certificate shown to "+peers+" (mTLS). A rotated one is used from the next connection on.")
	fs.StringVar(&c.KeyFile, prefix+"tls-key", "", "File with the key of --"+prefix+"tls-cert.")
	fs.StringVar(&c.CAFile, prefix+"tls-ca", "", "File with the certificates that "+peers+" are verified by. Default: the system's.")
	fs.StringVar(&c.MinVersion, prefix+"tls-min-version", "1.3", "Lowest TLS version spoken to "+peers+": 1.0, 1.1, 1.2 or 1.3.")
	fs.StringVar(&c.ServerName, prefix+"server-name", "", "Name that the certificates of "+peers+" must have. Default: the host of the address.")
}

// tlsVersions are the names of versions, oldest first.
var tlsVersions = []string{"1.0", "1.1", "1.2", "1.3"}

// Validate names what can't be right.
func (c ClientTLS) Validate() error {
	if !slices.Contains(tlsVersions, c.MinVersion) {
		return fmt.Errorf("TLS min version %q: must be one of %s", c.MinVersion, strings.Join(tlsVersions, ", "))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("certificate and key must be given together")
	}
	return nil
}

// Credentials returns what a connection is secured by.
func (c ClientTLS) Credentials() credentials.TransportCredentials {
	if !c.Secure {
		return insecure.NewCredentials()
	}
	return &rotating{cfg: c}
}

// rotating are TLS credentials that read certificate, key and CA anew for each
// connection, so that a rotated file is used by the next one. Connections are
// few and long, so nothing is cached.
type rotating struct{ cfg ClientTLS }

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
	return nil, nil, errors.New("these credentials are for clients only")
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
func (c ClientTLS) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS10 + uint16(slices.Index(tlsVersions, c.MinVersion)),
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
