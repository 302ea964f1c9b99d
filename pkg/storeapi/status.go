package storeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// kinds pairs what an error is with the code it has on the wire. Sending takes
// the first that fits, so that what a request can't be right for goes before
// what waiting may cure.
func kinds() []kind {
	return []kind{
		{ErrBadRequest, codes.InvalidArgument},
		{ErrLimit, codes.ResourceExhausted},
		{ErrPartial, codes.Aborted},
		{ErrUnimplemented, codes.Unimplemented},
		{ErrCorrupt, codes.DataLoss},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{ErrUnavailable, codes.Unavailable},
	}
}

type kind struct {
	err  error
	code codes.Code
}

// toStatus makes a gRPC status of an error, for the wire.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			return status.Error(k.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// FromStatus makes an error that names the endpoint once and wraps the sentinel
// of what gRPC returned, of any service. io.EOF, a stream's regular end, becomes nil.
func FromStatus(endpoint string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	if errors.Is(err, ErrCorrupt) { // found by our own codec
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	text := plainText(st.Message())
	// Dialling names the address, which as a rule is the endpoint's name.
	if dialled, cause, found := strings.Cut(text, ": "); found && strings.HasPrefix(dialled, "dial ") && strings.HasSuffix(endpoint, dialled[strings.LastIndexByte(dialled, ' '):]) {
		text = strings.TrimPrefix(cause, "connect: ")
	}
	return &remoteError{endpoint: endpoint, text: text, kinds: kindsOf(st)}
}

// kindsOf returns the sentinels of a status; none: an internal error.
func kindsOf(st *status.Status) []error {
	code := st.Code()
	switch {
	case code == codes.DeadlineExceeded:
		return []error{context.DeadlineExceeded, ErrUnavailable}
	case code == 422: // Thanos' limiters, as HTTP says it
		return []error{ErrLimit}
	case code == codes.Unavailable && isTransport(st.Message()):
		return []error{ErrUnavailable, ErrNoConnection}
	case code == codes.Internal && (strings.Contains(st.Message(), ErrCorrupt.Error()) || strings.Contains(st.Message(), "failed to unmarshal")):
		return []error{ErrCorrupt} // gRPC hides what our codec found wrong behind its own code
	}
	for _, k := range kinds() {
		if k.code == code {
			return []error{k.err}
		}
	}
	return nil
}

// isTransport tells whether gRPC itself, and not the peer, speaks in a message.
func isTransport(msg string) bool {
	for _, own := range []string{"connection error: ", "last connection error: ", "error reading from server: ", "write tcp ", "read tcp "} {
		if strings.HasPrefix(msg, own) {
			return true
		}
	}
	return false
}

// remoteError is an error that came over the wire.
type remoteError struct {
	endpoint, text string
	kinds          []error
}

// Error says the endpoint, what kind of error it is where the text doesn't, and the text.
func (e *remoteError) Error() string {
	if len(e.kinds) > 0 && !strings.Contains(e.text, e.kinds[0].Error()) {
		return e.endpoint + ": " + e.kinds[0].Error() + ": " + e.text
	}
	return e.endpoint + ": " + e.text
}

// Unwrap returns the sentinels.
func (e *remoteError) Unwrap() []error { return e.kinds }

// plainText removes what gRPC puts around messages, at each level it passed: the
// code, and of connections that fail the quotes and who noticed.
func plainText(msg string) string {
	if strings.Contains(msg, "rpc error: ") {
		msg = regexp.MustCompile(`rpc error: code = [A-Za-z]+(\(\d+\))? desc = `).ReplaceAllString(msg, "")
	}
	if !strings.Contains(msg, "connection error: ") {
		return msg
	}
	return regexp.MustCompile(`connection error: desc = "(\\.|[^"\\])*"`).ReplaceAllStringFunc(msg, func(s string) string {
		_, quoted, _ := strings.Cut(s, "= ")
		cause, err := strconv.Unquote(quoted)
		if err != nil {
			return s
		}
		return strings.TrimPrefix(strings.TrimPrefix(cause, "transport: "), "Error while dialing: ")
	})
}
