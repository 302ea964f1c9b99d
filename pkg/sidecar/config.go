package sidecar

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"time"

	"github.com/grafana/dskit/flagext"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/content"
	"github.com/firnline/firnline/pkg/sidecar/internal/promapi"
	"github.com/firnline/firnline/pkg/sidecar/internal/reload"
)

// Config is what an operator may set; RegisterFlags fills in the defaults.
type Config struct {
	Prometheus PrometheusConfig
	TSDBPath   string // folder of Prometheus' TSDB
	Reloader   reload.Config
	Shipper    block.ShipperConfig
	Notes      NotesConfig
	Limits     LimitsConfig
	MinTime    block.TimeBound // nothing older is served live
}

// PrometheusConfig says where Prometheus is and how to talk to it.
type PrometheusConfig struct {
	URL            string
	ReadyTimeout   model.Duration
	ConfigInterval model.Duration
	ConfigTimeout  model.Duration

	HTTPClient     string // YAML of Prometheus' http client configuration
	HTTPClientFile string

	ReadIdleTimeout  model.Duration
	MaxReads         int
	MaxFrameBytes    flagext.Bytes
	MaxResponseBytes flagext.Bytes
	LabelsTTL        model.Duration
}

// LimitsConfig bounds a request; 0 is no limit.
type LimitsConfig struct {
	RequestSeries  int
	RequestSamples int
	SortBytes      flagext.Bytes
}

// RegisterFlags registers the sidecar's flags and sets the defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.Prometheus.registerFlags(fs)
	fs.StringVar(&c.TSDBPath, "tsdb.path", "./data", "Folder of Prometheus' TSDB, its --storage.tsdb.path. Blocks are shipped from there.")
	c.Reloader.RegisterFlags(fs)
	c.Shipper.RegisterFlags(fs)
	c.Notes.registerFlags(fs)
	c.Limits.registerFlags(fs)
	fs.Var(&c.MinTime, "min-time", "Serve no live data older than this: a time (2026-01-31T00:00:00Z) or a duration back from now (-6w). Default: all that Prometheus has.")
}

func (c *PrometheusConfig) registerFlags(fs *flag.FlagSet) {
	*c = PrometheusConfig{
		ReadyTimeout:     model.Duration(10 * time.Minute),
		ConfigInterval:   model.Duration(30 * time.Second),
		ConfigTimeout:    model.Duration(30 * time.Second),
		ReadIdleTimeout:  model.Duration(2 * time.Minute),
		MaxFrameBytes:    64 << 20,
		MaxResponseBytes: 256 << 20,
		LabelsTTL:        model.Duration(15 * time.Second),
	}
	fs.StringVar(&c.URL, "prometheus.url", "http://localhost:9090", "Address of Prometheus, with the path of its --web.route-prefix if it has one.")
	fs.Var(&c.ReadyTimeout, "prometheus.ready_timeout", "How long Prometheus may take to answer after a start before that is logged as an error. The sidecar goes on waiting.")
	fs.Var(&c.ConfigInterval, "prometheus.get_config_interval", "How often Prometheus' configuration, flags and oldest time are asked for.")
	fs.Var(&c.ConfigTimeout, "prometheus.get_config_timeout", "How long asking for them may take.")
	fs.StringVar(&c.HTTPClient, "prometheus.http-client", "", "HTTP client configuration for Prometheus (basic_auth, authorization, tls_config, …), as YAML in Prometheus' syntax.")
	fs.StringVar(&c.HTTPClientFile, "prometheus.http-client-file", "", "File with the YAML of --prometheus.http-client.")
	fs.Var(&c.ReadIdleTimeout, "prometheus.read-idle-timeout", "How long a remote read may wait for Prometheus' next bytes.")
	fs.IntVar(&c.MaxReads, "prometheus.max-concurrent-reads", 10, "Remote reads and series requests sent to Prometheus at once; others wait. Prometheus itself takes 10 remote reads (--storage.remote.read-concurrent-limit).")
	fs.Var(&c.MaxFrameBytes, promapi.FlagFrameBytes[2:], "Largest frame accepted of a remote read. Prometheus aims at its --storage.remote.read-max-bytes-in-frame, 1MiB.")
	fs.Var(&c.MaxResponseBytes, promapi.FlagResponseBytes[2:], "Largest answer accepted of any other call, and of a remote read that isn't streamed.")
	fs.Var(&c.LabelsTTL, "prometheus.label-names-ttl", "How long the names of the labels that series have are remembered, by which is decided whether answers need sorting.")
}

func (c *LimitsConfig) registerFlags(fs *flag.FlagSet) {
	c.SortBytes = 256 << 20
	fs.IntVar(&c.RequestSeries, flagSeries[2:], 0, "Series that a request may read from Prometheus. 0: no limit.")
	fs.IntVar(&c.RequestSamples, flagSamples[2:], 0, "Samples that a request may read from Prometheus. 0: no limit.")
	fs.Var(&c.SortBytes, flagSort[2:], "Memory for an answer that must be sorted as a whole, which is so when series have labels of their own with the name of an external or replica label, or when only labels are asked for.")
}

// Names of the flags behind limits, for error messages.
const (
	flagSeries  = "--store.limits.request-series"
	flagSamples = "--store.limits.request-samples"
	flagSort    = "--store.limits.sort-bytes"
)

// Validate reports everything that is wrong, by flag.
func (c *Config) Validate() error {
	errs := []error{c.Reloader.Validate(), c.Shipper.Validate(), c.Notes.validate()}
	if _, err := c.Prometheus.url(); err != nil {
		errs = append(errs, err)
	}
	if c.TSDBPath == "" {
		errs = append(errs, errors.New("--tsdb.path: must be given"))
	}
	if _, err := c.Prometheus.clientConfig(); err != nil {
		errs = append(errs, err)
	}
	for name, v := range map[string]int64{
		"prometheus.get_config_interval":  int64(c.Prometheus.ConfigInterval),
		"prometheus.get_config_timeout":   int64(c.Prometheus.ConfigTimeout),
		"prometheus.read-idle-timeout":    int64(c.Prometheus.ReadIdleTimeout),
		"prometheus.max-concurrent-reads": int64(c.Prometheus.MaxReads),
		promapi.FlagFrameBytes[2:]:        int64(c.Prometheus.MaxFrameBytes),
		promapi.FlagResponseBytes[2:]:     int64(c.Prometheus.MaxResponseBytes),
		flagSort[2:]:                      int64(c.Limits.SortBytes),
	} {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("--%s: must be above 0", name))
		}
	}
	for name, v := range map[string]int{flagSeries: c.Limits.RequestSeries, flagSamples: c.Limits.RequestSamples} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("%s: must not be below 0", name))
		}
	}
	return errors.Join(errs...)
}

func (c *PrometheusConfig) url() (*url.URL, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("--prometheus.url: %w", err)
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--prometheus.url: %q is no address like http://localhost:9090", c.URL)
	}
	return u, nil
}

// clientConfig returns the HTTP client configuration; unknown keys are errors.
func (c *PrometheusConfig) clientConfig() (commonconfig.HTTPClientConfig, error) {
	text, source, err := content.Of("prometheus.http-client", c.HTTPClient, c.HTTPClientFile)
	if err != nil || text == nil {
		return commonconfig.DefaultHTTPClientConfig, err
	}
	cfg, err := commonconfig.LoadHTTPConfig(string(text))
	if err != nil {
		return commonconfig.HTTPClientConfig{}, fmt.Errorf("%s: %w", source, err)
	}
	return *cfg, nil
}
