package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/content"
)

// requestLogging says which requests are logged.
type requestLogging struct{ http, grpc logRule }

// logRule says which requests of one protocol are logged, and when. The zero value logs none.
type logRule struct {
	start, end bool
	level      slog.Level          // lowest level that is logged
	only       map[string]struct{} // "port path" or "service/method"; nil: all
}

// applies tells whether the rule logs the request that any of the keys names.
func (r logRule) applies(keys ...string) bool {
	if !r.end {
		return false
	}
	if r.only == nil {
		return true
	}
	for _, k := range keys {
		if _, ok := r.only[k]; ok {
			return true
		}
	}
	return false
}

// requestLogFile is the YAML of --request.logging-config, as Thanos has it.
type requestLogFile struct {
	Options logOptions `yaml:"options"`
	HTTP    struct {
		Options logOptions `yaml:"options"`
		Config  []struct {
			Path string `yaml:"path"`
			Port uint16 `yaml:"port"`
		} `yaml:"config"`
	} `yaml:"http"`
	GRPC struct {
		Options logOptions `yaml:"options"`
		Config  []struct {
			Service string `yaml:"service"`
			Method  string `yaml:"method"`
		} `yaml:"config"`
	} `yaml:"grpc"`
}

type logOptions struct {
	Level    logLevel    `yaml:"level"`
	Decision logDecision `yaml:"decision"`
}

func (o logOptions) empty() bool { return o == logOptions{} }

type logDecision struct {
	Start bool `yaml:"log_start"`
	End   bool `yaml:"log_end"`
}

// UnmarshalYAML refuses to log the start of requests without their end.
func (d *logDecision) UnmarshalYAML(n *yaml.Node) error {
	type plain logDecision
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if k := n.Content[i]; k.Value != "log_start" && k.Value != "log_end" {
				return fmt.Errorf("line %d: unknown key %q", k.Line, k.Value)
			}
		}
	}
	if err := n.Decode((*plain)(d)); err != nil {
		return err
	}
	if d.Start && !d.End {
		return fmt.Errorf("line %d: log_start needs log_end", n.Line)
	}
	return nil
}

// logLevel is a level as written, in capitals.
type logLevel string

// UnmarshalYAML accepts the names of levels only.
func (l *logLevel) UnmarshalYAML(n *yaml.Node) error {
	switch n.Value {
	case "DEBUG", "INFO", "WARNING", "WARN", "ERROR":
		*l = logLevel(n.Value)
		return nil
	}
	return fmt.Errorf("line %d: level: want DEBUG, INFO, WARNING or ERROR, got %q", n.Line, n.Value)
}

func (l logLevel) level() slog.Level {
	switch l {
	case "DEBUG":
		return slog.LevelDebug
	case "INFO":
		return slog.LevelInfo
	case "WARNING", "WARN":
		return slog.LevelWarn
	}
	return slog.LevelError
}

// requestLogging reads the flags' YAML.
func (c *Config) requestLogging() (requestLogging, error) {
	text, source, err := content.Of("request.logging-config", c.RequestLogging, c.RequestLoggingFile)
	if err != nil {
		return requestLogging{}, err
	}
	out, err := parseRequestLogging(text)
	if err != nil {
		return requestLogging{}, fmt.Errorf("%s: %w", source, err)
	}
	return out, nil
}

func parseRequestLogging(data []byte) (requestLogging, error) {
	var f requestLogFile
	if err := content.DecodeYAML(data, &f); err != nil && !errors.Is(err, io.EOF) {
		return requestLogging{}, err
	}
	httpRule, err := rule(f.Options, f.HTTP.Options)
	if err != nil {
		return requestLogging{}, fmt.Errorf("http: %w", err)
	}
	grpcRule, err := rule(f.Options, f.GRPC.Options)
	if err != nil {
		return requestLogging{}, fmt.Errorf("grpc: %w", err)
	}
	for _, e := range f.HTTP.Config {
		httpRule.allow(httpLogKey(e.Port, e.Path))
	}
	for _, e := range f.GRPC.Config {
		grpcRule.allow(e.Service + "/" + e.Method)
	}
	return requestLogging{http: httpRule, grpc: grpcRule}, nil
}

// rule lets the options of a protocol replace the global ones as a whole.
func rule(global, own logOptions) (logRule, error) {
	o := global
	if !own.empty() {
		o = own
	}
	if o.Decision.End && o.Level == "" {
		return logRule{}, errors.New("options: level is missing")
	}
	return logRule{start: o.Decision.Start, end: o.Decision.End, level: o.Level.level()}, nil
}

func (r *logRule) allow(key string) {
	if r.only == nil {
		r.only = map[string]struct{}{}
	}
	r.only[key] = struct{}{}
}

// httpLogKey names a path at a port; 0 is any port.
func httpLogKey(port uint16, path string) string { return fmt.Sprintf("%d %s", port, path) }

// clip bounds text that a client chose.
func clip(s string) string {
	const most = 2048
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
