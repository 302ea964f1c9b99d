package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
)

// loadGRPCTLS reads the certificates of the gRPC server and returns their paths
// as well. Without a certificate the configuration is nil: plain text.
func loadGRPCTLS(c GRPCConfig) (*tls.Config, []string, error) {
	if c.TLSCert == "" && c.TLSKey == "" {
		if c.TLSClientCA != "" {
			return nil, nil, errors.New("--grpc-server-tls-client-ca: needs --grpc-server-tls-cert and --grpc-server-tls-key")
		}
		return nil, nil, nil
	}
	if c.TLSCert == "" || c.TLSKey == "" {
		return nil, nil, errors.New("--grpc-server-tls-cert and --grpc-server-tls-key: give both")
	}
	conf, err := grpcTLSOptions(c)
	if err != nil {
		return nil, nil, err
	}
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, nil, fmt.Errorf("--grpc-server-tls-cert %s, --grpc-server-tls-key %s: %w", c.TLSCert, c.TLSKey, err)
	}
	conf.Certificates = []tls.Certificate{cert}
	files := []string{c.TLSCert, c.TLSKey}
	if c.TLSClientCA == "" {
		return conf, files, nil
	}
	pem, err := os.ReadFile(c.TLSClientCA)
	if err != nil {
		return nil, nil, fmt.Errorf("--grpc-server-tls-client-ca: %w", err)
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("--grpc-server-tls-client-ca: %s: no certificate in it", c.TLSClientCA)
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	return conf, append(files, c.TLSClientCA), nil
}

// grpcTLSOptions turns names of versions, suites and curves into numbers.
func grpcTLSOptions(c GRPCConfig) (*tls.Config, error) {
	versions := map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	curves := map[string]tls.CurveID{"CurveP256": tls.CurveP256, "CurveP384": tls.CurveP384, "CurveP521": tls.CurveP521, "X25519": tls.X25519}

	version, ok := versions[c.TLSMinVersion]
	if !ok {
		return nil, fmt.Errorf("--grpc-server-tls-min-version: want 1.0, 1.1, 1.2 or 1.3, got %q", c.TLSMinVersion)
	}
	conf := &tls.Config{MinVersion: version, NextProtos: []string{"h2"}}
	for _, name := range c.TLSCiphers {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("--grpc-server-tls-ciphers: no such suite %q", name)
		}
		conf.CipherSuites = append(conf.CipherSuites, tls.CipherSuites()[i].ID)
	}
	for _, name := range c.TLSCurves {
		id, ok := curves[name]
		if !ok {
			return nil, fmt.Errorf("--grpc-server-tls-curves: want CurveP256, CurveP384, CurveP521 or X25519, got %q", name)
		}
		conf.CurvePreferences = append(conf.CurvePreferences, id)
	}
	return conf, nil
}

// following makes a TLS configuration that asks current for each handshake.
func following(current func() *tls.Config) *tls.Config {
	first := current()
	return &tls.Config{
		MinVersion:   first.MinVersion,
		NextProtos:   first.NextProtos,
		Certificates: first.Certificates,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return current(), nil
		},
	}
}
