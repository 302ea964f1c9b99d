//go:build !linux

package proctest

import (
	"net"
	"testing"
)

// Addr returns a loopback host:port that nobody listens on right now.
func Addr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}
