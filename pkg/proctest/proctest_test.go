package proctest

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { Main(m) }

// TestAddr: who knows an address can listen there again and again; others are refused, and get none of the like.
func TestAddr(t *testing.T) {
	addr := Addr(t)
	for range 3 {
		_, err := net.Dial("tcp", addr)
		require.ErrorContains(t, err, "refused")
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NotEqual(t, addr, Addr(t))
		require.NoError(t, l.Close())
	}
}

// TestLeaks: a goroutine that ends is waited for, and one that is named is no leak.
func TestLeaks(t *testing.T) {
	stay := make(chan struct{})
	defer close(stay)
	go wait(stay)
	ends := make(chan struct{})
	go func() { <-ends }()
	go func() { close(ends) }()
	require.NoError(t, leaks([]goleak.Option{goleak.IgnoreAnyFunction("github.com/firnline/firnline/pkg/proctest.wait")}))
}

func wait(c chan struct{}) { <-c }
