package endpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firnline/firnline/pkg/storeapi"
)

// explain turns the error of a health check into words an operator can act on.
// The transport tells causes by text alone, so texts are looked for; an unknown
// one passes as it is.
func explain(name string, err error, timeout time.Duration) error {
	err = unnamed{err, errorName(name) + ": "}
	text := err.Error()
	switch {
	case errors.Is(err, storeapi.ErrUnimplemented):
		return fmt.Errorf("not a StoreAPI endpoint: it speaks gRPC but does not serve thanos.info.Info: %w", err)
	case strings.Contains(text, "looked like an HTTP/1.1 header"):
		return fmt.Errorf("not a gRPC endpoint: it answers HTTP/1; give the gRPC port (usually 10901): %w", err)
	case strings.Contains(text, "use of closed network connection"): // by us, after waiting
		return fmt.Errorf("no answer to a connection: %w", err)
	case strings.Contains(text, "reading server preface"), strings.Contains(text, "malformed"), strings.Contains(text, "unexpected HTTP status"):
		return fmt.Errorf("not a gRPC endpoint, or TLS settings differ (--grpc-client-tls-secure): %w", err)
	case strings.Contains(text, "broken pipe"), strings.Contains(text, "connection reset"), strings.Contains(text, "EOF"):
		return fmt.Errorf("not a gRPC endpoint, or TLS settings differ (--grpc-client-tls-secure): it closed the connection: %w", err)
	case strings.Contains(text, "tls: "), strings.Contains(text, "x509: "):
		return fmt.Errorf("TLS: %w", err)
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "deadline exceeded"):
		return fmt.Errorf("no answer to a health check within %s: %w", timeout, err)
	}
	return err
}

// unnamed is an error without the endpoint's name, which stands beside it where it is shown.
type unnamed struct {
	error
	prefix string
}

func (u unnamed) Error() string { return strings.TrimPrefix(u.error.Error(), u.prefix) }
func (u unnamed) Unwrap() error { return u.error }
