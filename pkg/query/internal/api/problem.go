package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/firnline/firnline/pkg/query/internal/engine"
)

// statusClientClosed is what nginx, and so Prometheus, says of clients that left.
const statusClientClosed = 499

// problemType is the errorType of an answer and its status code.
type problemType struct {
	name string
	code int
}

// The types of Prometheus. Of these Grafana reads the bodies of 400, 422 and 503.
var (
	badData     = problemType{"bad_data", http.StatusBadRequest}
	execution   = problemType{"execution", http.StatusUnprocessableEntity}
	timeout     = problemType{"timeout", http.StatusServiceUnavailable}
	unavailable = problemType{"unavailable", http.StatusServiceUnavailable}
	canceled    = problemType{"canceled", statusClientClosed}
	internal    = problemType{"internal", http.StatusInternalServerError}
)

// problem is an error with its type.
type problem struct {
	problemType
	err error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// bad is a problem of the request.
func bad(format string, args ...any) error {
	return &problem{badData, fmt.Errorf(format, args...)}
}

// badParam is a problem of one parameter of the request.
func badParam(name string, err error) error {
	return bad("invalid parameter %q: %w", name, err)
}

// problemOf gives any error of a handler its type. ctx is the request's.
func problemOf(ctx context.Context, err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var e *engine.Error
	if !errors.As(err, &e) {
		e = engine.StorageError(ctx, err)
	}
	switch e.Kind {
	case engine.BadQuery:
		return &problem{badData, fmt.Errorf("invalid parameter %q: %w", "query", err)}
	case engine.BadRequest:
		return &problem{badData, err}
	case engine.Execution:
		return &problem{execution, err}
	case engine.Timeout:
		return &problem{timeout, err}
	case engine.Canceled:
		return &problem{canceled, err}
	case engine.Unavailable:
		return &problem{unavailable, err}
	default:
		return &problem{internal, err}
	}
}
