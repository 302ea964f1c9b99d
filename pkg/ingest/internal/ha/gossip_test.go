package ha

import (
	"context"
	"flag"
	"testing"

	gokit "github.com/go-kit/log"
	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/kv/codec"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// gossipStore is a member of a gossip of its own.
func gossipStore(t *testing.T) Store {
	var c memberlist.KVConfig
	c.RegisterFlagsWithPrefix(flag.NewFlagSet("", flag.ContinueOnError), "")
	c.TCPTransport.BindAddrs, c.TCPTransport.BindPort = []string{"127.0.0.1"}, 0
	c.NodeName = "test"
	c.Codecs = []codec.Codec{Codec{}}
	log := gokit.NewNopLogger()
	m := memberlist.NewKV(c, log, dns.NewProvider(dns.GolangResolverType, 0, log, prometheus.NewRegistry()), prometheus.NewRegistry())
	require.NoError(t, services.StartAndAwaitRunning(t.Context(), m))
	t.Cleanup(func() { require.NoError(t, services.StopAndAwaitTerminated(context.Background(), m)) })
	client, err := memberlist.NewClient(m, Codec{})
	require.NoError(t, err)
	return client
}
