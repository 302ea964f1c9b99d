package ring

import (
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	dskit "github.com/grafana/dskit/ring"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/firnline/firnline/pkg/gokit"
)

// How gossip behaves; the library's own values stand for the rest.
const (
	rejoinEvery      = 30 * time.Second // heals a ring that fell into two
	leaveTimeout     = 2 * time.Second
	broadcastTimeout = 3 * time.Second // for what is not told yet when we stop
)

// newKV returns the store of what nodes tell each other, not started yet. All
// codecs are known to it before it hears of anybody.
func newKV(cfg GossipConfig, id string, codecs []codec.Codec, log *slog.Logger, reg prometheus.Registerer) (*memberlist.KV, error) {
	var c memberlist.KVConfig
	c.RegisterFlagsWithPrefix(flag.NewFlagSet("", flag.ContinueOnError), "") // for the defaults, some of which have no name
	host, port, err := splitPort(cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("address to bind gossip to: %w", err)
	}
	if host != "" {
		c.TCPTransport.BindAddrs = []string{host}
	}
	c.TCPTransport.BindPort = port
	if cfg.Advertise != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = splitPort(cfg.Advertise); err != nil {
			return nil, fmt.Errorf("address to advertise for gossip: %w", err)
		}
	}
	c.NodeName = id
	c.ClusterLabel = cfg.ClusterLabel
	c.JoinMembers = []string(cfg.Join)
	c.RejoinInterval = rejoinEvery
	c.MaxJoinBackoff = 10 * time.Second
	c.LeaveTimeout = leaveTimeout
	c.BroadcastTimeoutForLocalUpdatesOnShutdown = broadcastTimeout
	c.TCPTransport.TLSEnabled = cfg.TLS.Enabled
	c.TCPTransport.TLS.CertPath, c.TCPTransport.TLS.KeyPath, c.TCPTransport.TLS.CAPath = cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.TLS.CAFile
	c.TCPTransport.TLS.ServerName, c.TCPTransport.TLS.InsecureSkipVerify = cfg.TLS.ServerName, cfg.TLS.SkipVerify
	c.Codecs = append([]codec.Codec{dskit.GetCodec()}, codecs...)
	if err := c.Validate(); err != nil {
		return nil, err
	}
	reg = prometheus.WrapRegistererWithPrefix("firnline_ring_", reg)
	// The library looks addresses up by it at once, so it is never nil.
	resolver := dns.NewProvider(dns.GolangResolverType, 0, goKit(log), reg)
	return memberlist.NewKV(c, goKit(log), resolver, reg), nil
}

// goKit is the logger that dskit wants.
func goKit(log *slog.Logger) gokit.Logger {
	return gokit.Logger{Slog: log, Name: "gossip", Calm: isCalm}
}

// isCalm tells the warnings and errors of dskit and memberlist that come when nodes
// start and stop as they should. That nobody can be joined is said after all tries.
func isCalm(l gokit.Line) bool {
	msg := strings.TrimPrefix(l.Msg, "memberlist: ")
	begins := func(prefix string) bool { return strings.HasPrefix(msg, prefix) }
	switch {
	case msg == "joining memberlist cluster", // one try of several
		begins("memberlist fast-join failed"), begins("failed to fast-join"), // the try before those
		begins("locally-generated broadcast messages left the queue"),
		begins("skipped broadcasting of locally-generated update because memberlist KV is shutting down"),
		begins("Refuting "): // others have not heard of the restart yet
		return true
	case begins("re-joining memberlist cluster failed"): // all others are stopped; it is tried again
		return strings.Contains(l.Err, "connection refused")
	case begins("Failed to send "), begins("Push/Pull with "), begins("Failed fallback TCP ping"): // to one that was stopped, or while we stop
		return strings.Contains(msg, "connection refused") || strings.Contains(msg, "transport is shutting down")
	}
	return strings.Contains(l.Err, "context canceled")
}
