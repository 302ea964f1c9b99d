package tenant

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// DefaultHeader names the tenant of a request, as in Thanos.
const DefaultHeader = "THANOS-TENANT"

// scopeHeader is how Cortex, Mimir and Loki name it.
const scopeHeader = "X-Scope-OrgID"

// Config says where a request names its tenant.
type Config struct {
	Header           string `yaml:"tenant_header"`
	ScopeHeader      bool   `yaml:"tenant_scope_header"`
	CertificateField string `yaml:"tenant_certificate_field"` // of the client's TLS certificate; "": headers count
	Default          string `yaml:"default_tenant_id"`
}

// RegisterFlags fills in the defaults.
func (c *Config) RegisterFlags(prefix string, fs *flag.FlagSet) {
	fs.StringVar(&c.Header, prefix+"tenant-header", DefaultHeader, "HTTP header, and gRPC metadata in lower case, that names the tenant of a request.")
	fs.BoolVar(&c.ScopeHeader, prefix+"tenant-scope-header", true, "Take the tenant from "+scopeHeader+" as well. Two headers that differ are refused.")
	fs.StringVar(&c.CertificateField, prefix+"tenant-certificate-field", "",
		"Field of the client's verified TLS certificate that names the tenant, instead of headers: organization, organizationalUnit or commonName.")
	fs.StringVar(&c.Default, prefix+"default-tenant-id", string(Default), "Tenant of requests that name none.")
}

// Validate names what can't be right.
func (c *Config) Validate() error {
	var errs []error
	if c.Header == "" {
		errs = append(errs, errors.New("the tenant's header has no name"))
	}
	if c.CertificateField != "" && !slices.Contains([]string{"organization", "organizationalUnit", "commonName"}, c.CertificateField) {
		errs = append(errs, fmt.Errorf("tenant's certificate field %q: give organization, organizationalUnit or commonName", c.CertificateField))
	}
	if _, err := Parse(c.Default); err != nil {
		errs = append(errs, fmt.Errorf("default tenant: %w", err))
	}
	return errors.Join(errs...)
}

// OfRequest finds the tenant of an HTTP request. All its errors are ErrInvalid,
// fit for the client to read.
func (c *Config) OfRequest(r *http.Request) (ID, error) {
	if c.CertificateField != "" {
		return c.ofCertificate(r.TLS)
	}
	return c.ofHeaders(r.Header.Values)
}

// OfCall finds the tenant of a gRPC call, as OfRequest does.
func (c *Config) OfCall(ctx context.Context) (ID, error) {
	if c.CertificateField != "" {
		var state *tls.ConnectionState
		if p, ok := peer.FromContext(ctx); ok {
			if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
				state = &info.State
			}
		}
		return c.ofCertificate(state)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return c.ofHeaders(md.Get)
}

// ofHeaders takes the one value that all headers agree on.
func (c *Config) ofHeaders(values func(name string) []string) (ID, error) {
	found, where := "", ""
	look := func(header string) error {
		for _, v := range values(header) {
			if v == "" || v == found {
				continue
			}
			if found != "" {
				return fmt.Errorf("%w: %s says %q and %s says %q; send one tenant", ErrInvalid, where, found, header, v)
			}
			found, where = v, header
		}
		return nil
	}
	if err := look(c.Header); err != nil {
		return "", err
	}
	if c.ScopeHeader && !strings.EqualFold(c.Header, scopeHeader) {
		if err := look(scopeHeader); err != nil {
			return "", err
		}
	}
	if found == "" {
		found = c.Default
	}
	return Parse(found)
}

// ofCertificate trusts a certificate only if the listener has verified it.
func (c *Config) ofCertificate(state *tls.ConnectionState) (ID, error) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return "", fmt.Errorf("%w: it stands in the field %s of a client certificate, and the connection has none that was verified", ErrInvalid, c.CertificateField)
	}
	subject := state.VerifiedChains[0][0].Subject
	values := []string{subject.CommonName}
	switch c.CertificateField {
	case "organization":
		values = subject.Organization
	case "organizationalUnit":
		values = subject.OrganizationalUnit
	}
	if len(values) == 0 || values[0] == "" {
		return "", fmt.Errorf("%w: the client certificate has no %s", ErrInvalid, c.CertificateField)
	}
	return Parse(values[0])
}
