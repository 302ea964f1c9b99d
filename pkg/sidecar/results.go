package sidecar

import (
	"context"
	"errors"

	"github.com/firnline/firnline/pkg/storeapi"
)

// result names the outcome of a request for metrics.
func result(err error) string {
	switch {
	case err == nil:
		return "success"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "canceled"
	case errors.Is(err, storeapi.ErrLimit):
		return "limit"
	case errors.Is(err, storeapi.ErrBadRequest):
		return "bad_request"
	case errors.Is(err, storeapi.ErrCorrupt):
		return "corrupt"
	case errors.Is(err, storeapi.ErrUnavailable):
		return "unavailable"
	default:
		return "error"
	}
}

func isUnavailable(err error) bool { return errors.Is(err, storeapi.ErrUnavailable) }
func isDisorder(err error) bool    { return errors.Is(err, errDisorder) }
