package tenant

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

func testConfig() Config {
	var c Config
	c.RegisterFlags("receive.", flag.NewFlagSet("", flag.PanicOnError))
	return c
}

func TestResolveHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		headers []string // names and values
		change  func(*Config)
		want    ID
		err     string
	}{
		"none":       {want: "default-tenant"},
		"ours":       {headers: []string{"THANOS-TENANT", "a"}, want: "a"},
		"any case":   {headers: []string{"thanos-tenant", "a"}, want: "a"},
		"alias":      {headers: []string{"X-Scope-OrgID", "a"}, want: "a"},
		"both agree": {headers: []string{"X-Scope-OrgID", "a", "THANOS-TENANT", "a"}, want: "a"},
		"both differ": {headers: []string{"X-Scope-OrgID", "a", "THANOS-TENANT", "b"},
			err: `invalid tenant: THANOS-TENANT says "b" and X-Scope-OrgID says "a"; send one tenant`},
		"twice":     {headers: []string{"THANOS-TENANT", "a", "THANOS-TENANT", "b"}, err: `invalid tenant: THANOS-TENANT says "a" and THANOS-TENANT says "b"; send one tenant`},
		"alias off": {headers: []string{"X-Scope-OrgID", "a"}, change: func(c *Config) { c.ScopeHeader = false }, want: "default-tenant"},
		"renamed":   {headers: []string{"X-Team", "a"}, change: func(c *Config) { c.Header = "x-team" }, want: "a"},
		"traversal": {headers: []string{"THANOS-TENANT", "../a"}, err: `invalid tenant: "../a" has '/' at position 2; letters, digits and !_.*'()- are allowed`},
		"several":   {headers: []string{"THANOS-TENANT", "a|b"}, err: `invalid tenant: "a|b" has '|' at position 1; letters, digits and !_.*'()- are allowed`},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig()
			if tc.change != nil {
				tc.change(&c)
			}
			require.NoError(t, c.Validate())
			r := httptest.NewRequest("POST", "/", nil)
			md := metadata.MD{}
			for i := 0; i < len(tc.headers); i += 2 {
				r.Header.Add(tc.headers[i], tc.headers[i+1])
				md.Append(tc.headers[i], tc.headers[i+1])
			}
			got, err := c.OfRequest(r)
			called, callErr := c.OfCall(metadata.NewIncomingContext(t.Context(), md))
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				require.EqualError(t, callErr, tc.err)
				require.ErrorIs(t, err, ErrInvalid)
				return
			}
			require.NoError(t, err)
			require.NoError(t, callErr)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.want, called)
		})
	}
}

// TestResolveCertificate: a header can't change what a certificate says, and an unverified one says nothing.
func TestResolveCertificate(t *testing.T) {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "cn", Organization: []string{"org"}, OrganizationalUnit: []string{"unit"}}}
	for field, want := range map[string]ID{"commonName": "cn", "organization": "org", "organizationalUnit": "unit"} {
		c := testConfig()
		c.CertificateField = field
		require.NoError(t, c.Validate())
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set(DefaultHeader, "other")
		_, err := c.OfRequest(r)
		require.ErrorIs(t, err, ErrInvalid, "no TLS")

		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		_, err = c.OfRequest(r)
		require.ErrorIs(t, err, ErrInvalid, "not verified")

		r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
		got, err := c.OfRequest(r)
		require.NoError(t, err)
		require.Equal(t, want, got)

		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: *r.TLS}})
		got, err = c.OfCall(ctx)
		require.NoError(t, err)
		require.Equal(t, want, got)

		r.TLS.VerifiedChains = [][]*x509.Certificate{{{}}}
		_, err = c.OfRequest(r)
		require.ErrorIs(t, err, ErrInvalid, "an empty subject")
	}
}

func TestResolveConfig(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"header": func(c *Config) { c.Header = "" }, "field": func(c *Config) { c.CertificateField = "serial" }, "default": func(c *Config) { c.Default = ".." },
	} {
		c := testConfig()
		change(&c)
		require.Error(t, c.Validate(), name)
	}
}

// FuzzFolder: a tenant is the name of its folder, of one that stays where it
// is put, and the folder's name is the tenant again (RELIABILITY section 5).
func FuzzFolder(f *testing.F) {
	for _, s := range []string{"a", "default-tenant", "..", ".", "a/b", "../x", "a\\b", "__x", "debug", "a.", ".a", "(*!')", "ä", "", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		folder := filepath.Join("data", string(id))
		require.Equal(t, "data", filepath.Dir(folder))
		require.Equal(t, string(id), filepath.Base(folder))
		require.True(t, filepath.IsLocal(string(id)))
		again, err := Parse(filepath.Base(folder))
		require.NoError(t, err)
		require.Equal(t, id, again)
	})
}
