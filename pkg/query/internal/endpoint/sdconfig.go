package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

// sdConfig is the YAML of --endpoint.sd-config.
type sdConfig struct {
	DefaultClientConfig sdClientConfig `yaml:"default_client_config"`
	Endpoints           []sdEndpoint   `yaml:"endpoints"`
}

type sdEndpoint struct {
	Address       string         `yaml:"address"`
	Strict        bool           `yaml:"strict"`
	Group         bool           `yaml:"group"`
	ServiceConfig string         `yaml:"service_config"`
	ClientConfig  sdClientConfig `yaml:"client_config"`
}

// sdClientConfig holds pointers where "not said" differs from the zero value.
type sdClientConfig struct {
	TLS         sdTLSConfig `yaml:"tls_config"`
	ServerName  *string     `yaml:"server_name"`
	Compression *string     `yaml:"compression"`
}

type sdTLSConfig struct {
	Enabled            *bool   `yaml:"enabled"`
	InsecureSkipVerify *bool   `yaml:"insecure_skip_verify"`
	CertFile           *string `yaml:"cert_file"`
	KeyFile            *string `yaml:"key_file"`
	CAFile             *string `yaml:"ca_file"`
	MinVersion         *string `yaml:"min_version"`
}

// parseSD reads the YAML; name is the file or flag it comes from. Unknown keys
// are errors that tell their line.
func parseSD(name string, content []byte, base ClientConfig) ([]spec, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var cfg sdConfig
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s is empty: it must list endpoints", name)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one YAML document", name)
	}
	defaults := cfg.DefaultClientConfig.over(base)
	lines := endpointLines(&doc)
	specs := make([]spec, 0, len(cfg.Endpoints))
	for i, e := range cfg.Endpoints {
		s := spec{
			address: e.Address, strict: e.Strict, group: e.Group,
			serviceConfig: e.ServiceConfig, client: e.ClientConfig.over(defaults),
		}
		if err := s.validate(); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, lines[i], err)
		}
		specs = append(specs, s)
	}
	return specs, nil
}

// endpointLines returns the line that each entry of "endpoints" begins in.
func endpointLines(doc *yaml.Node) []int {
	var lines []int
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0].Content
	for i := 0; i+1 < len(root); i += 2 {
		if root[i].Value == "endpoints" {
			for _, entry := range root[i+1].Content {
				lines = append(lines, entry.Line)
			}
		}
	}
	return lines
}

// over returns base with what c says put over it. Any TLS setting but
// enabled: false means TLS.
func (c sdClientConfig) over(base ClientConfig) ClientConfig {
	t := c.TLS
	if t.CertFile != nil || t.KeyFile != nil || t.CAFile != nil || t.InsecureSkipVerify != nil {
		base.Secure = true
	}
	set(&base.Secure, t.Enabled)
	set(&base.SkipVerify, t.InsecureSkipVerify)
	set(&base.CertFile, t.CertFile)
	set(&base.KeyFile, t.KeyFile)
	set(&base.CAFile, t.CAFile)
	set(&base.MinVersion, t.MinVersion)
	set(&base.ServerName, c.ServerName)
	set(&base.Compression, c.Compression)
	return base
}

func set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// loadSD reads the endpoints of --endpoint.sd-config or of its file.
func (c *Config) loadSD() ([]spec, error) {
	switch {
	case c.SDConfig != "":
		return parseSD("--endpoint.sd-config", []byte(c.SDConfig), c.Client)
	case c.SDConfigFile != "":
		content, err := os.ReadFile(c.SDConfigFile)
		if err != nil {
			return nil, fmt.Errorf("--endpoint.sd-config-file: %w", err)
		}
		return parseSD(c.SDConfigFile, content, c.Client)
	}
	return nil, nil
}
