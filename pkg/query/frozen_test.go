package query

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// link passes bytes on to an endpoint until it is frozen. Connections then stay
// open and new ones are accepted, but nothing comes through: a stopped process,
// or a network that swallows packets.
type link struct {
	frozen atomic.Bool
	thaw   chan struct{}
}

func newLink(t *testing.T, to string) (address string, l *link) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l = &link{thaw: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			wg.Go(func() { l.pass(out, in) })
			wg.Go(func() { l.pass(in, out) })
		}
	})
	t.Cleanup(func() {
		close(l.thaw)
		_ = lis.Close()
		wg.Wait()
	})
	return lis.Addr().String(), l
}

func (l *link) pass(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if l.frozen.Load() {
			<-l.thaw
			return
		}
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// RELIABILITY Q1: an endpoint that freezes is cut by the query that meets it, and
// is known to be down soon after, so that later queries don't wait for it.
func TestFrozenEndpoint(t *testing.T) {
	good, _ := listen(t, "127.0.0.1:0", storeapi.Services{Store: counter(t, "cluster", "x")})
	behind, _ := listen(t, "127.0.0.1:0", storeapi.Services{Store: counter(t, "cluster", "y")})
	at, l := newLink(t, behind)
	q := startQuery(t, "--endpoint="+good, "--endpoint="+at, "--store.response-timeout=3s", "--endpoint.info-timeout=6s")
	ask := func() answer {
		return get(t, q, "/api/v1/query", "query", "requests_total", "time", "3000", "timeout", "20m")
	}
	require.Empty(t, ask().Warnings)

	l.frozen.Store(true)
	ans := ask()
	require.Equal(t, 200, ans.code, ans.Error)
	require.Contains(t, string(ans.Data), `"cluster":"x"`)
	require.Len(t, ans.Warnings, 1)
	require.Contains(t, ans.Warnings[0], "endpoint "+at)

	eventually(t, func() bool { return !q.endpointWell(at) })
	ans = ask()
	require.Len(t, ans.Warnings, 1)
	require.Contains(t, ans.Warnings[0], "no answer to a", "it is not asked again")
}

func (q *Query) endpointWell(name string) bool {
	for _, e := range q.endpoints.Endpoints() {
		if e.Name == name {
			return e.LastError == ""
		}
	}
	return false
}
