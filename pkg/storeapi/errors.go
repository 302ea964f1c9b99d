package storeapi

import "errors"

// What a Store refuses or fails with. Wrap them with %w and say what was wrong
// and what to do; they cross the wire as gRPC codes and come back as the same
// sentinels. Errors that wrap none of them are internal.
var (
	// ErrBadRequest marks a request that no retry can make right. (InvalidArgument; HTTP 400.)
	ErrBadRequest = errors.New("bad request")
	// ErrLimit marks a request that needs more than a limit allows; the message
	// names the limit's flag. (ResourceExhausted; HTTP 422.)
	ErrLimit = errors.New("limit exceeded")
	// ErrUnavailable marks a store that can't answer now: not ready, not reached,
	// too slow. (Unavailable; HTTP 503.)
	ErrUnavailable = errors.New("unavailable")
	// ErrNoConnection marks, beside ErrUnavailable, an endpoint to which there is
	// no connection, as opposed to one that says it can't answer. (Not on the wire.)
	ErrNoConnection = errors.New("no connection")
	// ErrPartial marks an answer given up because a part of it could not be had
	// and the selection asked for all or nothing. (Aborted; HTTP 422.)
	ErrPartial = errors.New("partial response refused")
	// ErrUnimplemented marks a service that the endpoint does not have. (Unimplemented.)
	ErrUnimplemented = errors.New("not served here")
	// ErrCorrupt marks bytes that can't be right; the message names object and offset. (DataLoss; HTTP 500.)
	ErrCorrupt = errors.New("corrupt data")
)
