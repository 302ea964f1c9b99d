package ring

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/dskit/flagext"
	"github.com/prometheus/common/model"
)

// Config says how nodes find each other and how series are placed.
type Config struct {
	ReplicationFactor int // 0: automatic

	Gossip GossipConfig
	Static StaticConfig
}

// GossipConfig is the ring that nodes agree on among themselves.
type GossipConfig struct {
	Join         flagext.StringSlice // host:port, or dns+host:port and the like
	JoinWait     model.Duration
	Bind         string // host:port
	Advertise    string // host:port; empty: by Bind
	ClusterLabel string

	ID     string // empty: the host's name
	Zone   string
	Tokens int

	HeartbeatPeriod  model.Duration
	HeartbeatTimeout model.Duration
	ForgetAfter      model.Duration

	TLS TLSConfig
}

// TLSConfig secures gossip.
type TLSConfig struct {
	Enabled    bool
	CertFile   string
	KeyFile    string
	CAFile     string
	ServerName string
	SkipVerify bool
}

// StaticConfig is the ring of Thanos' hashring files.
type StaticConfig struct {
	Hashrings     string // the content, or
	HashringsFile string // the file that has it
	Refresh       model.Duration
	Algorithm     string // of hashrings that name none
	LocalEndpoint string
}

// Given tells whether the ring is that of a file.
func (c *StaticConfig) Given() bool { return c.Hashrings != "" || c.HashringsFile != "" }

// RegisterFlags registers the flags and fills in their defaults.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	fs.IntVar(&c.ReplicationFactor, "receive.replication-factor", 0, "Nodes that each series is written to; more than half of them must confirm (of 2 both). 0: as many as there are in the ring, at most 3. A node that is away counts until it is forgotten.")
	c.Gossip.registerFlags(fs)
	c.Static.registerFlags(fs)
}

func (c *GossipConfig) registerFlags(fs *flag.FlagSet) {
	c.JoinWait = model.Duration(15 * time.Second)
	c.HeartbeatPeriod = model.Duration(5 * time.Second)
	c.HeartbeatTimeout = model.Duration(25 * time.Second)
	c.ForgetAfter = model.Duration(24 * time.Hour)

	fs.Var(&c.Join, "ring.join", "Address (host:port) of the gossip of a node to join. With the prefix dns+ the A/AAAA records of the name are such nodes, with dnssrv+ or dnssrvnoa+ those of its SRV records. Repeatable. Tried again until it succeeds; a node that finds nobody works alone.")
	fs.Var(&c.JoinWait, "ring.join-wait", "Time after the start during which writes are refused while none of --ring.join is found, so that a node that starts first does not take itself for the only one.")
	fs.StringVar(&c.Bind, "ring.bind-address", "0.0.0.0:7946", "Address (host:port) that gossip listens on.")
	fs.StringVar(&c.Advertise, "ring.advertise-address", "", "Address (host:port) of this node's gossip as others reach it; its host is also what others dial for writes unless the gRPC address names one. Default: the first private address of this machine.")
	fs.StringVar(&c.ClusterLabel, "ring.cluster-label", "firnline-ingest", "Name of the ring: nodes with another one are not listened to.")
	fs.StringVar(&c.ID, "ring.instance-id", "", "Name of this node, unique in the ring and the same after a restart. Default: the name of the host.")
	fs.StringVar(&c.Zone, "ring.zone", "", "Zone that this node fails with. Copies of a series are put into different zones as far as there are any.")
	fs.IntVar(&c.Tokens, "ring.tokens", 512, "Places of this node on the ring: its share is in proportion. They are kept in the data folder.")
	fs.Var(&c.HeartbeatPeriod, "ring.heartbeat-period", "Time between two heartbeats of this node.")
	fs.Var(&c.HeartbeatTimeout, "ring.heartbeat-timeout", "Time without a heartbeat after which a node is not written to; its series go to the nodes behind it.")
	fs.Var(&c.ForgetAfter, "ring.forget-after", "Time without a heartbeat after which a node is taken out of the ring. It comes back by itself when it is started again.")
	fs.BoolVar(&c.TLS.Enabled, "ring.tls", false, "Speak TLS for gossip.")
	fs.StringVar(&c.TLS.CertFile, "ring.tls-cert", "", "File with the certificate of this node's gossip.")
	fs.StringVar(&c.TLS.KeyFile, "ring.tls-key", "", "File with the key of --ring.tls-cert.")
	fs.StringVar(&c.TLS.CAFile, "ring.tls-ca", "", "File with the certificates that other nodes are verified by. Default: the system's.")
	fs.StringVar(&c.TLS.ServerName, "ring.tls-server-name", "", "Name that the certificates of other nodes must have. Default: the host of the address.")
	fs.BoolVar(&c.TLS.SkipVerify, "ring.tls-skip-verify", false, "Accept any certificate of another node. Insecure.")
}

func (c *StaticConfig) registerFlags(fs *flag.FlagSet) {
	c.Refresh = model.Duration(5 * time.Second)

	fs.StringVar(&c.Hashrings, "receive.hashrings", "", "Hashrings in Thanos' JSON, instead of gossip.")
	fs.StringVar(&c.HashringsFile, "receive.hashrings-file", "", "File with the hashrings of --receive.hashrings. A changed file is taken over while running; a bad one leaves the hashrings as they were.")
	fs.Var(&c.Refresh, "receive.hashrings-file-refresh-interval", "Time between readings of --receive.hashrings-file.")
	fs.StringVar(&c.Algorithm, "receive.hashrings-algorithm", hashmod, "How series are placed in hashrings that do not say it: hashmod or ketama.")
	fs.StringVar(&c.LocalEndpoint, "receive.local-endpoint", "", "Address of this node among the endpoints of the hashrings. Not given: this node only routes.")
}

// Validate returns every mistake at once.
func (c *Config) Validate() error {
	var errs []error
	if c.ReplicationFactor < 0 {
		errs = append(errs, fmt.Errorf("--receive.replication-factor=%d: must not be below 0", c.ReplicationFactor))
	}
	if c.Static.Given() {
		errs = append(errs, c.Static.validate())
	} else {
		errs = append(errs, c.Gossip.validate())
	}
	return errors.Join(errs...)
}

func (c *GossipConfig) validate() error {
	var errs []error
	for _, a := range []struct{ flag, value string }{{"ring.bind-address", c.Bind}, {"ring.advertise-address", c.Advertise}} {
		if a.value == "" && a.flag == "ring.advertise-address" {
			continue
		}
		if _, _, err := splitPort(a.value); err != nil {
			errs = append(errs, fmt.Errorf("--%s=%q: %w", a.flag, a.value, err))
		}
	}
	for _, a := range c.Join {
		kind, address, found := strings.Cut(a, "+")
		if !found {
			kind, address = "", a
		}
		if strings.HasPrefix(kind, "dnssrv") {
			continue // its records have the port
		}
		if _, _, err := splitPort(address); err != nil {
			errs = append(errs, fmt.Errorf("--ring.join=%q: %w; give host:port, the port being that of --ring.bind-address there", a, err))
		}
	}
	if c.Tokens < 1 || c.Tokens > maxTokens {
		errs = append(errs, fmt.Errorf("--ring.tokens=%d: must be from 1 to %d", c.Tokens, maxTokens))
	}
	for _, d := range []struct {
		flag         string
		value, above model.Duration
	}{
		{"ring.heartbeat-period", c.HeartbeatPeriod, model.Duration(time.Second) - 1}, // gossip tells heartbeats in seconds
		{"ring.heartbeat-timeout", c.HeartbeatTimeout, c.HeartbeatPeriod},
		{"ring.forget-after", c.ForgetAfter, c.HeartbeatTimeout},
		{"ring.join-wait", c.JoinWait, -1},
	} {
		if d.value <= d.above {
			errs = append(errs, fmt.Errorf("--%s=%s: must be above %s", d.flag, d.value, d.above))
		}
	}
	if c.TLS.Enabled && (c.TLS.CertFile == "" || c.TLS.KeyFile == "") {
		errs = append(errs, errors.New("--ring.tls needs --ring.tls-cert and --ring.tls-key"))
	}
	return errors.Join(errs...)
}

func (c *StaticConfig) validate() error {
	var errs []error
	if c.Algorithm != hashmod && c.Algorithm != ketama {
		errs = append(errs, fmt.Errorf("--receive.hashrings-algorithm=%q: must be %s or %s", c.Algorithm, hashmod, ketama))
	}
	if c.Refresh <= 0 {
		errs = append(errs, fmt.Errorf("--receive.hashrings-file-refresh-interval=%s: must be above 0", c.Refresh))
	}
	return errors.Join(errs...)
}

// maxTokens bounds what one node adds to every node's view of the ring.
const maxTokens = 4096

// splitPort splits host:port.
func splitPort(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: %w", p, err)
	}
	return host, int(n), nil
}
