package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Kind says whose fault an Error is and what a caller can do about it.
type Kind uint8

// The kinds, with the status that the HTTP API makes of them.
const (
	Internal    Kind = iota // a fault of ours or of the data; 500
	BadQuery                // the expression can't be parsed or can't be a range query; 400
	BadRequest              // a store refuses what is asked of it; 400
	Execution               // the expression can't be evaluated over this data, or needs more than a limit allows; 422
	Timeout                 // not done in time; 503
	Canceled                // the caller left; 499
	Unavailable             // a store that is needed does not answer; 503
)

// String names the kind, as a metric label does.
func (k Kind) String() string {
	switch k {
	case BadQuery:
		return "bad_query"
	case BadRequest:
		return "bad_request"
	case Execution:
		return "execution"
	case Timeout:
		return "timeout"
	case Canceled:
		return "canceled"
	case Unavailable:
		return "unavailable"
	default:
		return "internal"
	}
}

// Error is what Exec fails with.
type Error struct {
	Kind Kind
	Err  error
}

// Error returns the text of the cause.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// limits are the bounds of one execution, for naming them in errors.
type limits struct {
	maxSamples int
	timeout    time.Duration
	ofRequest  bool // timeout was asked for by the request
}

// classify gives an error of the engine its kind, and names the limit where
// one was met. ctx is that of the query: when that has ended, the rest is only a consequence.
func classify(ctx context.Context, err error, l limits) *Error {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		samples  promql.ErrTooManySamples
		stored   promql.ErrStorage
	)
	switch {
	case errors.As(err, &canceled), errors.Is(ctx.Err(), context.Canceled), errors.Is(err, context.Canceled):
		return &Error{Canceled, err}
	case errors.As(err, &timeout), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Timeout, l.timedOut(err)}
	case errors.Is(err, errQueueFull):
		return &Error{Unavailable, err}
	case errors.As(err, &samples):
		return &Error{Execution, fmt.Errorf(
			"%w: limit %d samples at once (--query.max-samples); select fewer series or a shorter range, or raise it", err, l.maxSamples)}
	case errors.As(err, &stored):
		return &Error{storageKind(stored.Err, Internal), err}
	default:
		return &Error{storageKind(err, Execution), err}
	}
}

func (l limits) timedOut(err error) error {
	if l.ofRequest {
		return fmt.Errorf("%w: limit %s (parameter timeout of the request)", err, l.timeout)
	}
	return fmt.Errorf("%w: limit %s (--query.timeout); ask for a shorter range or fewer series, or raise it", err, l.timeout)
}

// storageKind tells the kind of an error that a store returned; other is that
// of errors which wrap no sentinel of storeapi's.
func storageKind(err error, other Kind) Kind {
	switch {
	case errors.Is(err, storeapi.ErrBadRequest):
		return BadRequest
	case errors.Is(err, storeapi.ErrLimit), errors.Is(err, storeapi.ErrPartial):
		return Execution
	case errors.Is(err, storeapi.ErrUnavailable):
		return Unavailable
	case errors.Is(err, storeapi.ErrCorrupt):
		return Internal
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	default:
		return other
	}
}

// StorageError gives an error of a store, met outside of Exec, its kind.
func StorageError(ctx context.Context, err error) *Error {
	if errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, context.Canceled) {
		return &Error{Canceled, err}
	}
	return &Error{storageKind(err, Execution), err}
}
