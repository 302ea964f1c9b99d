package server

import (
	"context"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/peer"
)

// narrowListener is an address where only some gRPC services are answered. Its
// connections carry that in their local address, where gRPC hands it to calls.
type narrowListener struct {
	net.Listener
	services []string
}

// Accept implements net.Listener.
func (l *narrowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return narrowConn{conn, l.services}, nil
}

type narrowConn struct {
	net.Conn
	services []string
}

// LocalAddr implements net.Conn.
func (c narrowConn) LocalAddr() net.Addr { return narrowAddr{c.Conn.LocalAddr(), c.services} }

type narrowAddr struct {
	net.Addr
	services []string
}

// servedHere tells whether a service is answered at the address that a call came to.
func servedHere(ctx context.Context, service string) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return true
	}
	a, narrow := p.LocalAddr.(narrowAddr)
	return !narrow || slices.Contains(a.services, service) || strings.HasPrefix(service, "grpc.")
}
