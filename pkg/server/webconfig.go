package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/crypto/bcrypt"

	"github.com/firnline/firnline/pkg/content"
)

// webConfig is what a web configuration file asks for, ready for use.
type webConfig struct {
	tls     *tls.Config // nil: plain HTTP
	http2   bool
	users   map[string]string // name to bcrypt hash; none: no authentication
	headers map[string]string

	burst    int
	interval time.Duration // 0: no rate limit
}

// errEmptyWebConfig refuses a file without content: it is more often one that
// is being written than one that means to turn security off.
var errEmptyWebConfig = errors.New("the file is empty; write {} to turn everything off")

// loadWebConfig reads a web configuration and all the files that it names. It
// also returns their paths, that of the configuration first. No path: an empty configuration.
func loadWebConfig(path string) (*webConfig, []string, error) {
	if path == "" {
		return &webConfig{http2: true}, nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--http.config: %w", err)
	}
	cfg, files, err := parseWebConfig(data, filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("--http.config: %s: %w", path, err)
	}
	return cfg, append([]string{path}, files...), nil
}

func parseWebConfig(data []byte, dir string) (*webConfig, []string, error) {
	c := web.Config{
		TLSConfig:  web.TLSConfig{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13},
		HTTPConfig: web.HTTPConfig{HTTP2: true},
	}
	switch err := content.DecodeYAML(data, &c); {
	case errors.Is(err, io.EOF):
		return nil, nil, errEmptyWebConfig
	case err != nil:
		return nil, nil, err
	}
	c.TLSConfig.SetDirectory(dir)

	out := &webConfig{
		http2:    c.HTTPConfig.HTTP2,
		headers:  c.HTTPConfig.Header,
		users:    make(map[string]string, len(c.Users)),
		burst:    c.RateLimiterConfig.Burst,
		interval: c.RateLimiterConfig.Interval,
	}
	for name, hash := range c.Users {
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, nil, fmt.Errorf("basic_auth_users: the password of %q is no bcrypt hash", name)
		}
		out.users[name] = string(hash)
	}
	if err := checkHeaders(c.HTTPConfig.Header); err != nil {
		return nil, nil, err
	}
	if !c.TLSConfig.IsEnabled() {
		return out, nil, nil
	}
	conf, err := webTLS(&c.TLSConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("tls_server_config: %w", err)
	}
	conf.NextProtos = []string{"http/1.1"}
	if out.http2 {
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	out.tls = conf
	return out, tlsFiles(&c.TLSConfig), nil
}

// webTLS makes a TLS configuration that holds its certificate in memory, so that
// a certificate half-way through its rotation is never served.
func webTLS(c *web.TLSConfig) (*tls.Config, error) {
	conf, err := web.ConfigToTLSConfig(c)
	if err != nil {
		return nil, err
	}
	cert, err := conf.GetCertificate(nil)
	if err != nil {
		return nil, err
	}
	conf.GetCertificate = nil
	conf.Certificates = []tls.Certificate{*cert}
	return conf, nil
}

func tlsFiles(c *web.TLSConfig) []string {
	var files []string
	for _, f := range []string{c.TLSCertPath, c.TLSKeyPath, c.ClientCAs} {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

// checkHeaders accepts the headers that the format allows to be set.
func checkHeaders(headers map[string]string) error {
	for name, value := range headers {
		switch name {
		case "Strict-Transport-Security", "X-XSS-Protection", "Content-Security-Policy":
		case "X-Content-Type-Options":
			if value != "nosniff" {
				return fmt.Errorf("http_server_config: header %s: want nosniff, got %q", name, value)
			}
		case "X-Frame-Options":
			if value != "deny" && value != "sameorigin" {
				return fmt.Errorf("http_server_config: header %s: want deny or sameorigin, got %q", name, value)
			}
		default:
			return fmt.Errorf("http_server_config: header %q can't be set here", name)
		}
	}
	return nil
}
