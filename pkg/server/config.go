package server

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
)

// Config is what an operator may set of the listeners; RegisterFlags fills in the defaults.
type Config struct {
	HTTP HTTPConfig
	GRPC GRPCConfig
	// HTTPOnly leaves gRPC and its flags out, for who serves nothing over it. It
	// is set before RegisterFlags.
	HTTPOnly bool
	// MoreHTTP and MoreGRPC are further addresses where the same is served. They
	// are set before RegisterFlags.
	MoreHTTP, MoreGRPC []MoreAddress

	// ShutdownDelay is the time between being not ready and refusing connections.
	ShutdownDelay model.Duration
	// EnableLifecycle allows POST /-/reload.
	EnableLifecycle bool

	RequestLogging     string // YAML content
	RequestLoggingFile string
}

// MoreAddress is one more address to listen on, with a flag of its own.
type MoreAddress struct {
	Flag, Usage string
	Address     string // host:port; its value before RegisterFlags is the default; empty: don't listen

	// Services are the gRPC services that are answered here, beside health and reflection; nil: all.
	Services []string
}

// HTTPConfig bounds and secures the HTTP listener.
type HTTPConfig struct {
	Address     string
	GracePeriod model.Duration
	WebConfig   string // path of an exporter-toolkit web configuration; empty: plain HTTP

	ReadHeaderTimeout model.Duration
	ReadTimeout       model.Duration // header and body
	WriteTimeout      model.Duration // from the end of the header to the end of the answer
	IdleTimeout       model.Duration
	MaxHeader         units.Base2Bytes
	MaxConnections    int
	MaxRequests       int // at once, probes and metrics apart
}

// GRPCConfig bounds and secures the gRPC listener.
type GRPCConfig struct {
	Address     string
	GracePeriod model.Duration

	TLSCert, TLSKey, TLSClientCA string // paths; without a certificate: plain text
	TLSMinVersion                string // 1.0 to 1.3
	TLSCiphers, TLSCurves        names

	MaxConnectionAge      model.Duration
	MaxConnectionAgeGrace model.Duration
	MaxConnections        int
	MaxStreams            int // at once, in one connection
	MaxRequests           int // at once
	MaxMessage            units.Base2Bytes
}

// RegisterFlags registers the flags of the listeners, with Thanos' names where it has them.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	c.HTTP.registerFlags(fs)
	if c.HTTPOnly {
		c.GRPC.registerFlags(flag.NewFlagSet("", flag.ContinueOnError)) // the defaults alone
	} else {
		c.GRPC.registerFlags(fs)
	}

	for _, more := range [][]MoreAddress{c.MoreHTTP, c.MoreGRPC} {
		for i := range more {
			fs.StringVar(&more[i].Address, more[i].Flag, more[i].Address, more[i].Usage)
		}
	}

	duration(fs, &c.ShutdownDelay, "shutdown-delay", time.Second,
		"How long to go on serving after a stop signal while /-/ready already says no, so that load balancers send nothing new.")
	fs.BoolVar(&c.EnableLifecycle, "web.enable-lifecycle", false,
		"Allow reloading the configuration by POST /-/reload. SIGHUP always does.")
	fs.StringVar(&c.RequestLogging, "request.logging-config", "",
		"YAML that says which requests to log; empty logs none.")
	fs.StringVar(&c.RequestLoggingFile, "request.logging-config-file", "",
		"File with the YAML of --request.logging-config.")
}

func (c *HTTPConfig) registerFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Address, "http-address", "0.0.0.0:10902", "host:port to listen on for HTTP.")
	duration(fs, &c.GracePeriod, "http-grace-period", 2*time.Minute,
		"How long HTTP requests may go on after a stop signal.")
	fs.StringVar(&c.WebConfig, "http.config", "",
		"File that turns on TLS, client certificates or basic authentication for HTTP, in the format of Prometheus' web configuration. Changes are picked up.")
	fs.StringVar(&c.WebConfig, "web.config.file", "", "Same as --http.config.")

	duration(fs, &c.ReadHeaderTimeout, "http-read-header-timeout", 10*time.Second,
		"How long a client may take to send the header of a request.")
	duration(fs, &c.ReadTimeout, "http-read-timeout", 5*time.Minute,
		"How long a client may take to send a whole request.")
	duration(fs, &c.WriteTimeout, "http-write-timeout", 15*time.Minute,
		"How long an answer may take, including the time to compute it.")
	duration(fs, &c.IdleTimeout, "http-idle-timeout", 3*time.Minute,
		"How long a connection is kept open without a request.")
	c.MaxHeader = units.MiB
	fs.TextVar(&c.MaxHeader, "http-max-header-size", c.MaxHeader, "Largest request header, URL included.")
	fs.IntVar(&c.MaxConnections, "http-max-connections", 16384,
		"HTTP connections at once; more wait to be accepted.")
	fs.IntVar(&c.MaxRequests, "http-max-concurrent-requests", 1024,
		"HTTP requests at once; more are answered with 503. Probes and metrics don't count.")
}

func (c *GRPCConfig) registerFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Address, "grpc-address", "0.0.0.0:10901",
		"host:port to listen on for gRPC (StoreAPI). Queriers must be able to reach it.")
	duration(fs, &c.GracePeriod, "grpc-grace-period", 2*time.Minute,
		"How long gRPC calls may go on after a stop signal.")
	fs.StringVar(&c.TLSCert, "grpc-server-tls-cert", "",
		"Certificate file (PEM) of the gRPC server; empty: no TLS. Changes are picked up.")
	fs.StringVar(&c.TLSKey, "grpc-server-tls-key", "", "Key file (PEM) of the gRPC server. Changes are picked up.")
	fs.StringVar(&c.TLSClientCA, "grpc-server-tls-client-ca", "",
		"File (PEM) of the authorities whose client certificates are accepted; empty: clients need none.")
	fs.StringVar(&c.TLSMinVersion, "grpc-server-tls-min-version", "1.3",
		"Lowest TLS version accepted for gRPC: 1.0, 1.1, 1.2 or 1.3.")
	fs.Var(&c.TLSCiphers, "grpc-server-tls-ciphers",
		"Cipher suite accepted for gRPC up to TLS 1.2, by its Go name (repeatable); none: Go's choice.")
	fs.Var(&c.TLSCurves, "grpc-server-tls-curves",
		"Curve accepted for gRPC (repeatable): CurveP256, CurveP384, CurveP521, X25519; none: Go's choice.")

	duration(fs, &c.MaxConnectionAge, "grpc-server-max-connection-age", time.Hour,
		"Age at which a gRPC client is asked to connect anew, which spreads load and checks certificates again.")
	duration(fs, &c.MaxConnectionAgeGrace, "grpc-server-max-connection-age-grace", 15*time.Minute,
		"How long calls may go on in a connection past its age.")
	fs.IntVar(&c.MaxConnections, "grpc-server-max-connections", 16384,
		"gRPC connections at once; more wait to be accepted.")
	fs.IntVar(&c.MaxStreams, "grpc-server-max-concurrent-streams", 1000,
		"gRPC calls at once in one connection; more wait.")
	fs.IntVar(&c.MaxRequests, "grpc-server-max-concurrent-requests", 4096,
		"gRPC calls at once in all; more are refused as unavailable.")
	c.MaxMessage = 64 * units.MiB
	fs.TextVar(&c.MaxMessage, "grpc-server-max-recv-size", c.MaxMessage, "Largest gRPC message accepted.")
}

// Validate lists everything that is wrong, each by the name of its flag.
func (c *Config) Validate() error {
	errs := []error{
		validAddress("http-address", c.HTTP.Address),
		validAddress("grpc-address", c.GRPC.Address),
	}
	for _, more := range [][]MoreAddress{c.MoreHTTP, c.MoreGRPC} {
		for _, m := range more {
			if m.Address != "" {
				errs = append(errs, validAddress(m.Flag, m.Address))
			}
		}
	}
	errs = append(errs, c.sameAddress())
	for _, n := range []struct {
		flag  string
		value int64
	}{
		{"http-max-header-size", int64(c.HTTP.MaxHeader)},
		{"http-max-connections", int64(c.HTTP.MaxConnections)},
		{"http-max-concurrent-requests", int64(c.HTTP.MaxRequests)},
		{"http-read-header-timeout", int64(c.HTTP.ReadHeaderTimeout)},
		{"http-read-timeout", int64(c.HTTP.ReadTimeout)},
		{"http-write-timeout", int64(c.HTTP.WriteTimeout)},
		{"http-idle-timeout", int64(c.HTTP.IdleTimeout)},
		{"grpc-server-max-connection-age", int64(c.GRPC.MaxConnectionAge)},
		{"grpc-server-max-connection-age-grace", int64(c.GRPC.MaxConnectionAgeGrace)},
		{"grpc-server-max-connections", int64(c.GRPC.MaxConnections)},
		{"grpc-server-max-concurrent-streams", int64(c.GRPC.MaxStreams)},
		{"grpc-server-max-concurrent-requests", int64(c.GRPC.MaxRequests)},
		{"grpc-server-max-recv-size", int64(c.GRPC.MaxMessage)},
	} {
		if n.value <= 0 {
			errs = append(errs, fmt.Errorf("--%s: must be greater than 0", n.flag))
		}
	}
	_, _, tlsErr := loadGRPCTLS(c.GRPC)
	_, _, webErr := loadWebConfig(c.HTTP.WebConfig)
	_, logErr := c.requestLogging()
	return errors.Join(append(errs, tlsErr, webErr, logErr)...)
}

// sameAddress tells of flags that give one address twice, which would look as if
// another process had it.
func (c *Config) sameAddress() error {
	listeners := slices.Concat([]MoreAddress{{Flag: "http-address", Address: c.HTTP.Address}, {Flag: "grpc-address", Address: c.GRPC.Address}}, c.MoreHTTP, c.MoreGRPC)
	var errs []error
	for i, a := range listeners {
		for _, b := range listeners[:i] {
			if clash(a.Address, b.Address) {
				errs = append(errs, fmt.Errorf("--%s=%s, --%s=%s: give each a port of its own", b.Flag, b.Address, a.Flag, a.Address))
			}
		}
	}
	return errors.Join(errs...)
}

// clash tells whether two addresses can't be listened on at once.
func clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	every := func(host string) bool {
		ip := net.ParseIP(host)
		return host == "" || ip != nil && ip.IsUnspecified()
	}
	return hostA == hostB || every(hostA) || every(hostB)
}

func validAddress(name, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("--%s: want host:port: %w", name, err)
	}
	return nil
}

func duration(fs *flag.FlagSet, d *model.Duration, name string, def time.Duration, usage string) {
	*d = model.Duration(def)
	fs.Var(d, name, usage)
}

// names is a flag that can be repeated.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

func (n *names) Set(s string) error {
	*n = append(*n, s)
	return nil
}
