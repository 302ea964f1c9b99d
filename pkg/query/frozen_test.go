package query

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/test/bufconn"

	"github.com/firnline/firnline/pkg/storeapi"
)

// network is one in memory: time in a test's bubble goes by while all that it
// carries stands still, and no longer than that.
type network map[string]*bufconn.Listener

// listen serves services at an address.
func (n network) listen(t *testing.T, address string, services storeapi.Services) {
	t.Helper()
	n[address] = bufconn.Listen(1 << 16)
	serve(t, n[address], services)
}

func (n network) dial(ctx context.Context, address string) (net.Conn, error) {
	if n[address] == nil {
		return nil, errors.New("no such address")
	}
	return n[address].DialContext(ctx)
}

// link is a dialer whose connections stay open once it is frozen, and whose new
// ones are taken, but nothing comes through: a stopped process, or a network that
// swallows packets.
type link struct {
	network
	of     string // the only address that it freezes
	frozen atomic.Bool
}

func (l *link) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := l.network.dial(ctx, address)
	if err != nil || address != l.of {
		return conn, err
	}
	return &linked{Conn: conn, link: l, closed: make(chan struct{})}, nil
}

// linked is a connection over a link.
type linked struct {
	net.Conn
	link   *link
	closed chan struct{}
	once   atomic.Bool
}

func (c *linked) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.link.frozen.Load() {
		<-c.closed
		return 0, io.EOF
	}
	return n, err
}

func (c *linked) Write(b []byte) (int, error) {
	if c.link.frozen.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *linked) Close() error {
	if !c.once.Swap(true) {
		close(c.closed)
	}
	return c.Conn.Close()
}

// RELIABILITY Q1: an endpoint that freezes is cut by the query that meets it, and
// is known to be down soon after, so that later queries don't wait for it.
func TestFrozenEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &link{network: network{}, of: "y:1"}
		l.listen(t, "x:1", storeapi.Services{Store: counter(t, "cluster", "x")})
		l.listen(t, "y:1", storeapi.Services{Store: counter(t, "cluster", "y")})
		q := startQueryOver(t, l.dial, "--endpoint=x:1", "--endpoint=y:1", "--store.response-timeout=3s", "--endpoint.info-timeout=6s")
		ask := func() (answer, time.Duration) {
			began := time.Now()
			ans := get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000", "timeout", "20m")
			return ans, time.Since(began)
		}
		ans, _ := ask()
		require.Empty(t, ans.Warnings)

		l.frozen.Store(true)
		ans, took := ask()
		require.Equal(t, 200, ans.code, ans.Error)
		require.Equal(t, 3*time.Second, took)
		require.Contains(t, string(ans.Data), `"cluster":"x"`)
		require.Len(t, ans.Warnings, 1)
		require.Contains(t, ans.Warnings[0], "endpoint y:1")

		time.Sleep(4 * time.Second) // 7 s since it froze; a check begins each 50 ms
		require.False(t, q.endpointWell("y:1"))
		ans, took = ask()
		require.Zero(t, took, "it is not asked again")
		require.Len(t, ans.Warnings, 1)
		require.Contains(t, ans.Warnings[0], "no answer to a")
	})
}

func (q *Query) endpointWell(name string) bool {
	for _, e := range q.endpoints.Endpoints() {
		if e.Name == name {
			return e.LastError == ""
		}
	}
	return false
}
