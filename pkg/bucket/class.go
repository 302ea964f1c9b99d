package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/minio/minio-go/v7"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// ErrShort is wrapped when a body ended before as many bytes as the store promised.
var ErrShort = errors.New("body shorter than promised")

// ErrTimeout is wrapped when a request made no progress for as long as the
// request timeout.
var ErrTimeout = errors.New("no progress within the request timeout")

// class says what can be done about an error.
type class int

const (
	classPermanent class = iota // the same request would fail again
	classTransient              // it may work when tried again
	classThrottled              // it may work later; asking less now helps
	classDenied                 // other credentials or rights are needed
)

// Codes of S3 that say more than their status, which is 200 or 400 for some.
var (
	throttledCodes = []string{"SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "ServerBusy", "TooManyRequests"}
	transientCodes = []string{"InternalError", "RequestTimeout", "RequestError", "OperationTimedOut"}
	deniedCodes    = []string{"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired", "RequestTimeTooSkewed", "AuthenticationFailed"}
)

// classify decides about an error of any provider. Nil is permanent, as is what it does not know.
func classify(err error) class {
	code := providerCode(err)
	switch s := status(err); {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, ErrConditionFailed), errors.Is(err, errWrongRange), errors.Is(err, errors.ErrUnsupported):
		return classPermanent
	case errors.Is(err, errSwapped), errors.Is(err, ErrShort), errors.Is(err, ErrTimeout):
		return classTransient
	case slices.Contains(throttledCodes, code), s == http.StatusServiceUnavailable, s == http.StatusTooManyRequests:
		return classThrottled
	case slices.Contains(deniedCodes, code), s == http.StatusForbidden, s == http.StatusUnauthorized, errors.Is(err, fs.ErrPermission):
		return classDenied
	case slices.Contains(transientCodes, code), s >= 500, s == http.StatusRequestTimeout:
		return classTransient
	case s != 0:
		return classPermanent
	}
	return classifyNetwork(err)
}

// classifyNetwork decides about errors of requests that got no answer.
func classifyNetwork(err error) class {
	var (
		unknownCA x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
		network   net.Error
	)
	switch {
	case errors.As(err, &unknownCA), errors.As(err, &wrongHost), errors.As(err, &invalid), errors.As(err, &noTLS):
		return classPermanent
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, context.DeadlineExceeded):
		return classTransient
	case errors.As(err, &network): // every url.Error is one, whatever it wraps
		var op *net.OpError
		if network.Timeout() || errors.As(err, &op) {
			return classTransient
		}
	}
	return classPermanent
}

// status returns the HTTP status in err, or 0 if it has none.
func status(err error) int {
	var (
		s3     minio.ErrorResponse
		google *googleapi.Error
		azure  *azcore.ResponseError
	)
	switch {
	case errors.As(err, &s3):
		return s3.StatusCode
	case errors.As(err, &google):
		return google.Code
	case errors.As(err, &azure):
		return azure.StatusCode
	}
	return grpcStatus(err)
}

// grpcStatus translates the gRPC codes that GCS answers when use_grpc is on.
func grpcStatus(err error) int {
	var rpc interface{ GRPCStatus() *grpcstatus.Status }
	if !errors.As(err, &rpc) {
		return 0
	}
	switch rpc.GRPCStatus().Code() {
	case codes.Unavailable, codes.ResourceExhausted:
		return http.StatusServiceUnavailable
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.FailedPrecondition, codes.Aborted:
		return http.StatusPreconditionFailed
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Internal, codes.DeadlineExceeded:
		return http.StatusInternalServerError
	}
	return 0
}

// providerCode returns the provider's own name for err, or "".
func providerCode(err error) string {
	var (
		s3    minio.ErrorResponse
		azure *azcore.ResponseError
	)
	switch {
	case errors.As(err, &s3):
		return s3.Code
	case errors.As(err, &azure):
		return azure.ErrorCode
	}
	return ""
}
