package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/credentials"

	"github.com/firnline/firnline/pkg/content"
)

// otlpConfig is the part of the tracing YAML under "config", as Thanos has it.
type otlpConfig struct {
	ClientType         string            `yaml:"client_type"` // grpc or http
	ServiceName        string            `yaml:"service_name"`
	ResourceAttributes map[string]string `yaml:"resource_attributes"`
	ReconnectionPeriod time.Duration     `yaml:"reconnection_period"`
	Compression        string            `yaml:"compression"` // "" or gzip
	Insecure           bool              `yaml:"insecure"`
	Endpoint           string            `yaml:"endpoint"` // host:port; empty: OTEL_EXPORTER_OTLP_ENDPOINT or localhost
	URLPath            string            `yaml:"url_path"`
	Timeout            time.Duration     `yaml:"timeout"`
	Retry              otlpRetry         `yaml:"retry_config"`
	Headers            map[string]string `yaml:"headers"`
	TLS                otlpTLS           `yaml:"tls_config"`
	SamplerType        string            `yaml:"sampler_type"`
	SamplerParam       string            `yaml:"sampler_param"`
}

type otlpRetry struct {
	Enabled         bool          `yaml:"retry_enabled"`
	InitialInterval time.Duration `yaml:"retry_initial_interval"`
	MaxInterval     time.Duration `yaml:"retry_max_interval"`
	MaxElapsedTime  time.Duration `yaml:"retry_max_elapsed_time"`
}

// orDefaults fills in what is not set with the values that OpenTelemetry uses.
func (r otlpRetry) orDefaults() otlpRetry {
	r.InitialInterval = cmp.Or(r.InitialInterval, 5*time.Second)
	r.MaxInterval = cmp.Or(r.MaxInterval, 30*time.Second)
	r.MaxElapsedTime = cmp.Or(r.MaxElapsedTime, time.Minute)
	return r
}

type otlpTLS struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// parseTracing reads the tracing YAML; nil when it is empty.
func parseTracing(data []byte) (*otlpConfig, error) {
	var f struct {
		Type   string    `yaml:"type"`
		Config yaml.Node `yaml:"config"`
	}
	switch err := content.DecodeYAML(data, &f); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if !strings.EqualFold(f.Type, "OTLP") {
		return nil, fmt.Errorf("type: want OTLP, the only one supported, got %q; Jaeger, Tempo and the clouds' collectors take OTLP too", f.Type)
	}
	var c otlpConfig
	if !f.Config.IsZero() {
		// Decoded from the whole document, so that errors have its lines.
		whole := struct {
			Type   string      `yaml:"type"`
			Config *otlpConfig `yaml:"config"`
		}{Config: &c}
		if err := content.DecodeYAML(data, &whole); err != nil {
			return nil, err
		}
	}
	if c.ClientType != "grpc" && c.ClientType != "http" {
		return nil, fmt.Errorf("config.client_type: want grpc or http, got %q", c.ClientType)
	}
	if c.Compression != "" && c.Compression != "gzip" {
		return nil, fmt.Errorf("config.compression: want gzip or nothing, got %q", c.Compression)
	}
	if _, err := c.sampler(); err != nil {
		return nil, err
	}
	_, err := c.TLS.config()
	return &c, err
}

func (c *otlpConfig) sampler() (sdktrace.Sampler, error) {
	kind := strings.ToLower(c.SamplerType)
	base, isChild := strings.CutPrefix(kind, "parentbased")
	var s sdktrace.Sampler
	switch base {
	case "":
		return sdktrace.ParentBased(sdktrace.AlwaysSample()), nil
	case "alwayssample":
		s = sdktrace.AlwaysSample()
	case "neversample":
		s = sdktrace.NeverSample()
	case "traceidratiobased":
		ratio, err := strconv.ParseFloat(c.SamplerParam, 64)
		if err != nil || ratio < 0 || ratio > 1 {
			return nil, fmt.Errorf("config.sampler_param: want a share from 0 to 1, got %q", c.SamplerParam)
		}
		s = sdktrace.TraceIDRatioBased(ratio)
	default:
		return nil, fmt.Errorf("config.sampler_type: want alwayssample, neversample, traceidratiobased or one of them after parentbased, got %q", c.SamplerType)
	}
	if isChild {
		s = sdktrace.ParentBased(s)
	}
	return s, nil
}

func (c *otlpConfig) exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	conf, err := c.TLS.config()
	if err != nil {
		return nil, err
	}
	if c.ClientType == "http" {
		return otlptracehttp.New(ctx, c.httpOptions(conf)...)
	}
	return otlptracegrpc.New(ctx, c.grpcOptions(conf)...)
}

func (c *otlpConfig) grpcOptions(conf *tls.Config) []otlptracegrpc.Option {
	var opts []otlptracegrpc.Option
	if c.Retry.Enabled {
		opts = append(opts, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(c.Retry.orDefaults())))
	}
	if c.Endpoint != "" {
		opts = append(opts, otlptracegrpc.WithEndpoint(c.Endpoint))
	}
	if c.Insecure {
		opts = append(opts, otlptracegrpc.WithInsecure())
	} else {
		opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(conf)))
	}
	if c.ReconnectionPeriod > 0 {
		opts = append(opts, otlptracegrpc.WithReconnectionPeriod(c.ReconnectionPeriod))
	}
	if c.Timeout > 0 {
		opts = append(opts, otlptracegrpc.WithTimeout(c.Timeout))
	}
	if c.Compression != "" {
		opts = append(opts, otlptracegrpc.WithCompressor(c.Compression))
	}
	if len(c.Headers) > 0 {
		opts = append(opts, otlptracegrpc.WithHeaders(c.Headers))
	}
	return opts
}

func (c *otlpConfig) httpOptions(conf *tls.Config) []otlptracehttp.Option {
	var opts []otlptracehttp.Option
	if c.Retry.Enabled {
		opts = append(opts, otlptracehttp.WithRetry(otlptracehttp.RetryConfig(c.Retry.orDefaults())))
	}
	if c.Endpoint != "" {
		opts = append(opts, otlptracehttp.WithEndpoint(c.Endpoint))
	}
	if c.Insecure {
		opts = append(opts, otlptracehttp.WithInsecure())
	} else {
		opts = append(opts, otlptracehttp.WithTLSClientConfig(conf))
	}
	if c.URLPath != "" {
		opts = append(opts, otlptracehttp.WithURLPath(c.URLPath))
	}
	if c.Timeout > 0 {
		opts = append(opts, otlptracehttp.WithTimeout(c.Timeout))
	}
	if c.Compression == "gzip" {
		opts = append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	if len(c.Headers) > 0 {
		opts = append(opts, otlptracehttp.WithHeaders(c.Headers))
	}
	return opts
}

func (t otlpTLS) config() (*tls.Config, error) {
	conf := &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify, MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("config.tls_config.ca_file: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("config.tls_config.ca_file: %s: no certificate in it", t.CAFile)
		}
	}
	if t.CertFile == "" && t.KeyFile == "" {
		return conf, nil
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("config.tls_config: cert_file and key_file: %w", err)
	}
	conf.Certificates = []tls.Certificate{cert}
	return conf, nil
}
