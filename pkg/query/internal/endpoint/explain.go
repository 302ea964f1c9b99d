package endpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firnline/firnline/pkg/storeapi"
)

// explain turns the error of a health check into words an operator can act on.
func explain(name string, err error, timeout time.Duration) error {
	err = unnamed{err, errorName(name) + ": "}
	switch {
	case errors.Is(err, storeapi.ErrUnimplemented):
		return fmt.Errorf("not a StoreAPI endpoint: it speaks gRPC but does not serve thanos.info.Info: %w", err)
	case errors.Is(err, storeapi.ErrNoConnection):
		return explainConnection(err)
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "deadline exceeded"):
		return fmt.Errorf("no answer to a health check within %s: %w", timeout, err)
	}
	return err
}

// explainConnection does so where no connection was made. The transport tells
// causes by text alone, so texts are looked for; an unknown one passes as it is.
func explainConnection(err error) error {
	text := err.Error()
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch {
	case has("connection refused"):
		return fmt.Errorf("nothing listens there; is the component up, and this its gRPC port (usually 10901)? %w", err)
	case has("looked like an HTTP/1.1 header"):
		return fmt.Errorf("not a gRPC endpoint: it answers HTTP/1; give the gRPC port (usually 10901): %w", err)
	case has("use of closed network connection"): // by us, after waiting
		return fmt.Errorf("no answer to a connection: %w", err)
	case has("reading server preface", "malformed", "unexpected HTTP status"):
		return fmt.Errorf("not a gRPC endpoint, or TLS settings differ (--grpc-client-tls-secure): %w", err)
	case has("broken pipe", "connection reset", "EOF"):
		return fmt.Errorf("not a gRPC endpoint, or TLS settings differ (--grpc-client-tls-secure): it closed the connection: %w", err)
	case has("tls: ", "x509: "):
		return fmt.Errorf("TLS: %w", err)
	}
	return err
}

// unnamed is an error without the endpoint's name, which stands beside it where
// it is shown, and without saying that the endpoint is unavailable, which is what
// a health check that failed means.
type unnamed struct {
	error
	prefix string
}

func (u unnamed) Error() string {
	return strings.TrimPrefix(strings.TrimPrefix(u.error.Error(), u.prefix), storeapi.ErrUnavailable.Error()+": ")
}

func (u unnamed) Unwrap() error { return u.error }
