package endpoint

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/common/model"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Config says where endpoints are found and how they are spoken to.
type Config struct {
	Addresses    flagext.StringSlice
	Groups       flagext.StringSlice
	Strict       flagext.StringSlice
	StrictGroups flagext.StringSlice

	Files         flagext.StringSlice // glob patterns of Prometheus file-SD files
	FilesInterval model.Duration      // between unconditional readings of Files
	URLs          flagext.StringSlice // of HTTP service discovery
	URLsInterval  model.Duration
	DNSInterval   model.Duration
	DNSResolver   string

	SDConfig         string // YAML, or
	SDConfigFile     string // the file that has it
	SDReloadInterval model.Duration

	InfoTimeout      model.Duration // of a health check
	InfoInterval     model.Duration // between two
	UnhealthyTimeout model.Duration

	Client        ClientConfig // of endpoints that say nothing else
	ConnMetricKey flagext.StringSlice
}

// ClientConfig is how an endpoint is spoken to.
type ClientConfig struct {
	storeapi.ClientTLS
	Compression string // none or snappy
}

// What may stand in the enumerations of Config.
var (
	prefixes      = []string{"dns", "dnssrv", "dnssrvnoa", "dnsdualstack"}
	resolvers     = []string{"golang", "miekgdns"}
	compressions  = []string{"none", "snappy"}
	connectionsBy = []string{"external_labels", "store_type", "ip_port"}
)

// RegisterFlags registers the flags and fills in their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.FilesInterval = model.Duration(5 * time.Minute)
	c.URLsInterval = model.Duration(10 * time.Second)
	c.DNSInterval = model.Duration(30 * time.Second)
	c.SDReloadInterval = model.Duration(5 * time.Minute)
	c.InfoTimeout = model.Duration(5 * time.Second)
	c.InfoInterval = model.Duration(5 * time.Second)
	c.UnhealthyTimeout = model.Duration(5 * time.Minute)

	fs.Var(&c.Addresses, "endpoint", "Address (host:port) of a gRPC endpoint to query: sidecar, store, ingest, rule or another querier, Firnline's or Thanos'. Repeatable. With the prefix dns+ the A/AAAA records of the name are endpoints, with dnssrv+ or dnssrvnoa+ those of its SRV records.")
	fs.Var(&c.Groups, "endpoint-group", "Address of a group of equal endpoints, prefixed like --endpoint. Each request goes to one of the group, in turn. Repeatable.")
	fs.Var(&c.Strict, "endpoint-strict", "Address of an endpoint that is asked even while its health check fails, with the labels and times it last told. No DNS prefix. Repeatable.")
	fs.Var(&c.StrictGroups, "endpoint-group-strict", "Like --endpoint-group, asked even while the health check fails. No DNS prefix. Repeatable.")
	fs.Var(&c.Files, "store.sd-files", "Glob pattern of files with endpoints, in the format of Prometheus' file service discovery. Repeatable. A changed file is read within seconds.")
	fs.Var(&c.FilesInterval, "store.sd-interval", "Time between readings of --store.sd-files whatever their modification time says.")
	fs.Var(&c.URLs, "endpoint.http-sd-url", "URL that answers with endpoints in the format of Prometheus' HTTP service discovery, such as http://ingest:10902/api/v1/ingest/endpoints, where each node of a ring of ingesters lists all. Repeatable. One that does not answer keeps the endpoints it told before.")
	fs.Var(&c.URLsInterval, "endpoint.http-sd-interval", "Time between two questions to --endpoint.http-sd-url.")
	fs.Var(&c.DNSInterval, "store.sd-dns-interval", "Time between DNS lookups of endpoints.")
	fs.StringVar(&c.DNSResolver, "store.sd-dns-resolver", "golang", "DNS client: golang (follows the system's settings, /etc/hosts included) or miekgdns (asks the servers in /etc/resolv.conf).")
	fs.StringVar(&c.SDConfig, "endpoint.sd-config", "", "YAML that lists endpoints, each with its own TLS settings; see the documentation of endpoint.sd-config-file.")
	fs.StringVar(&c.SDConfigFile, "endpoint.sd-config-file", "", "File with the YAML of --endpoint.sd-config. It is read again every --endpoint.sd-config-reload-interval and on reload; a bad one leaves the endpoints as they were.")
	fs.Var(&c.SDReloadInterval, "endpoint.sd-config-reload-interval", "Time between readings of --endpoint.sd-config-file.")
	fs.Var(&c.InfoTimeout, "endpoint.info-timeout", "Time an endpoint has to answer a health check.")
	fs.Var(&c.InfoInterval, "endpoint.info-interval", "Time between two health checks of an endpoint: one that comes up is asked after it, and one that changes its labels or times is asked by the new ones.")
	fs.Var(&c.UnhealthyTimeout, "store.unhealthy-timeout", "Time after which an endpoint that DNS or a file still lists, but that does not answer, is taken for a stale entry: it leaves the list of stores and queries no longer warn about it. Endpoints given by address never leave.")
	fs.Var(&c.ConnMetricKey, "query.conn-metric.label", "Label of the metric that counts connected endpoints: external_labels, store_type or ip_port. Repeatable. Default: external_labels and store_type.")
	c.Client.registerFlags(fs)
	registerRemoved(fs)
}

func (c *ClientConfig) registerFlags(fs *flag.FlagSet) {
	c.ClientTLS.RegisterFlags("grpc-client-", "endpoints", fs)
	fs.StringVar(&c.Compression, "grpc-compression", "none", "Compression asked of endpoints: snappy or none.")
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	var errs []error
	oneOf := func(flagName, got string, allowed []string) {
		if !slices.Contains(allowed, got) {
			errs = append(errs, fmt.Errorf("--%s=%q: must be one of %s", flagName, got, strings.Join(allowed, ", ")))
		}
	}
	positive := func(flagName string, d model.Duration) {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("--%s=%s: must be above 0", flagName, d))
		}
	}
	oneOf("store.sd-dns-resolver", c.DNSResolver, resolvers)
	for _, key := range c.ConnMetricKey {
		oneOf("query.conn-metric.label", key, connectionsBy)
	}
	positive("store.sd-interval", c.FilesInterval)
	positive("endpoint.http-sd-interval", c.URLsInterval)
	for _, u := range c.URLs {
		if parsed, err := url.Parse(u); err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
			errs = append(errs, fmt.Errorf("--endpoint.http-sd-url=%q: want http://host:port/path or https://", u))
		}
	}
	positive("store.sd-dns-interval", c.DNSInterval)
	positive("endpoint.sd-config-reload-interval", c.SDReloadInterval)
	positive("endpoint.info-timeout", c.InfoTimeout)
	positive("endpoint.info-interval", c.InfoInterval)
	positive("store.unhealthy-timeout", c.UnhealthyTimeout)
	if c.SDConfig != "" && c.SDConfigFile != "" {
		errs = append(errs, errors.New("--endpoint.sd-config and --endpoint.sd-config-file are both set: give one"))
	}
	if err := c.Client.validate(); err != nil {
		errs = append(errs, fmt.Errorf("--grpc-client-*: %w", err))
	}
	for _, s := range c.flagSpecs() {
		if err := s.validate(); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", s.flagName(), err))
		}
	}
	return errors.Join(errs...)
}

func (c *ClientConfig) validate() error {
	if !slices.Contains(compressions, c.Compression) {
		return fmt.Errorf("compression %q: must be one of %s", c.Compression, strings.Join(compressions, ", "))
	}
	return c.ClientTLS.Validate()
}

// flagSpecs returns the endpoints given by flags.
func (c *Config) flagSpecs() []spec {
	var specs []spec
	add := func(addresses []string, strict, group bool) {
		for _, a := range addresses {
			specs = append(specs, spec{address: a, strict: strict, group: group, client: c.Client})
		}
	}
	add(c.Addresses, false, false)
	add(c.Groups, false, true)
	add(c.Strict, true, false)
	add(c.StrictGroups, true, true)
	return specs
}

// validateAddress finds what can't be an address of a gRPC endpoint.
func validateAddress(address string) error {
	prefix, host := splitPrefix(address)
	if prefix != "" && !slices.Contains(prefixes, prefix) {
		return fmt.Errorf("address %q: prefix %s+ must be one of %s+", address, prefix, strings.Join(prefixes, "+, "))
	}
	if host == "" {
		return fmt.Errorf("address %q is empty: give host:port", address)
	}
	if strings.Contains(host, "://") {
		return fmt.Errorf("address %q is a URL: give host:port of the gRPC listener, such as store:10901", address)
	}
	if strings.HasPrefix(prefix, "dnssrv") {
		return nil // the port may come from the record
	}
	if _, port, err := net.SplitHostPort(host); err != nil || port == "" {
		return fmt.Errorf("address %q has no port: give host:port, such as store:10901", address)
	}
	return nil
}

// registerRemoved answers flags that Thanos had before 0.38 with the way on.
func registerRemoved(fs *flag.FlagSet) {
	for name, instead := range map[string]string{
		"store": "endpoint", "store-strict": "endpoint-strict", "rule": "endpoint",
		"target": "endpoint", "metadata": "endpoint", "exemplar": "endpoint",
	} {
		fs.Func(name, "Removed: use --"+instead+".", func(address string) error {
			return fmt.Errorf("--%s no longer exists: use --%s=%s (one flag serves all APIs of an endpoint)", name, instead, address)
		})
	}
}
