package api

import (
	"errors"
	"flag"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Config is what an operator may set of the HTTP API.
type Config struct {
	RoutePrefix    string // "" or /path
	ExternalPrefix string // "" or /path
	DisableCORS    bool

	MaxRequestBytes int // of a form

	DefaultStep         model.Duration
	MetadataRange       model.Duration // 0: all time
	AutoDownsampling    bool
	InstantResolution   model.Duration // coarsest resolution of an instant query that asks for "auto"
	PartialResponse     bool
	RulePartial         bool
	TargetPartial       bool
	MetadataPartial     bool
	ExemplarPartial     bool
	StatusPartial       bool
	ReadSampleLimit     int
	ReadConcurrentLimit int
	ReadMaxFrameBytes   int
}

// RegisterFlags sets the defaults and makes flags of them.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.RoutePrefix, "web.route-prefix", "", "Path under which the HTTP API is served. Empty: that of --web.external-prefix.")
	fs.StringVar(&c.ExternalPrefix, "web.external-prefix", "", "Path under which a proxy shows the HTTP API to its clients.")
	fs.BoolVar(&c.DisableCORS, "web.disable-cors", false, "Leave out the headers that let pages of other origins use the API.")
	fs.IntVar(&c.MaxRequestBytes, "web.max-request-bytes", 10<<20, "Largest body of a request, in bytes.")
	c.DefaultStep = model.Duration(time.Second)
	fs.Var(&c.DefaultStep, "query.default-step", "Shortest step of range queries that name none; theirs is a 250th of the range.")
	fs.Var(&c.MetadataRange, "query.metadata.default-time-range", "How far back requests for series and labels look that name no start. 0s: all time.")
	fs.BoolVar(&c.AutoDownsampling, "query.auto-downsampling", false, "Use downsampled data as coarse as a fifth of the step where a request says nothing else.")
	fs.Var(&c.InstantResolution, "query.instant.default.max_source_resolution", "Coarsest resolution of downsampled data for instant queries by max_source_resolution=auto. 0s: raw data only.")
	for _, p := range []struct {
		to          *bool
		name, usage string
	}{
		{&c.PartialResponse, "query.partial-response", "queries, series and labels"},
		{&c.RulePartial, "rule.partial-response", "rules and alerts"},
		{&c.TargetPartial, "target.partial-response", "targets"},
		{&c.MetadataPartial, "metric-metadata.partial-response", "metadata"},
		{&c.ExemplarPartial, "exemplar.partial-response", "exemplars"},
		{&c.StatusPartial, "status.partial-response", "TSDB statistics"},
	} {
		fs.BoolVar(p.to, p.name, true, "Answer requests for "+p.usage+" with a warning when an endpoint can't be asked, not with an error. Requests can say otherwise by partial_response.")
	}
	fs.IntVar(&c.ReadSampleLimit, "storage.remote.read-sample-limit", 5e7, "Samples that one remote read may return where it asks for samples, not streamed chunks. 0: no limit.")
	fs.IntVar(&c.ReadConcurrentLimit, "storage.remote.read-concurrent-limit", 10, "Remote reads answered at once; others wait.")
	fs.IntVar(&c.ReadMaxFrameBytes, "storage.remote.read-max-bytes-in-frame", 1<<20, "Largest frame of a streamed remote read, in bytes.")
}

// Validate says everything that is wrong with the configuration.
func (c *Config) Validate() error {
	var errs []error
	for name, ok := range map[string]bool{
		"web.max-request-bytes":                  c.MaxRequestBytes > 0,
		"query.default-step":                     c.DefaultStep > 0,
		"storage.remote.read-concurrent-limit":   c.ReadConcurrentLimit > 0,
		"storage.remote.read-max-bytes-in-frame": c.ReadMaxFrameBytes > 0,
	} {
		if !ok {
			errs = append(errs, fmt.Errorf("--%s: must be above 0", name))
		}
	}
	if c.ReadSampleLimit < 0 {
		errs = append(errs, errors.New("--storage.remote.read-sample-limit: must not be below 0"))
	}
	for name, prefix := range map[string]string{"web.route-prefix": c.RoutePrefix, "web.external-prefix": c.ExternalPrefix} {
		if strings.ContainsAny(prefix, "?#{} ") {
			errs = append(errs, fmt.Errorf("--%s: %q must be a plain path like /metrics-query", name, prefix))
		}
	}
	return errors.Join(errs...)
}

// prefix returns the path under which the API is served: empty, or with a
// leading and no trailing slash.
func (c *Config) prefix() string {
	if c.RoutePrefix == "" {
		return c.outside()
	}
	return cleanPrefix(c.RoutePrefix)
}

// outside is the prefix as clients see it.
func (c *Config) outside() string {
	if p := cleanPrefix(c.ExternalPrefix); p != "" || c.RoutePrefix == "" {
		return p
	}
	return cleanPrefix(c.RoutePrefix)
}

// cleanPrefix takes what command lines have: /a, a/, and a dot for none.
func cleanPrefix(p string) string {
	return strings.TrimSuffix(path.Clean("/"+p), "/")
}
