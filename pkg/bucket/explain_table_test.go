package bucket

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"testing"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

func TestClassifyAndExplain(t *testing.T) {
	targets := map[string]string{
		"s3":     "type: S3\nconfig: {bucket: b, endpoint: e}",
		"gcs":    "type: GCS\nconfig: {bucket: b}",
		"azure":  "type: AZURE\nconfig: {container: b, storage_account: a}",
		"folder": "type: FILESYSTEM\nconfig: {directory: /b}",
	}
	s3 := func(status int, code string) error { return minio.ErrorResponse{StatusCode: status, Code: code} }
	azure := func(status int, code string) error { return &azcore.ResponseError{StatusCode: status, ErrorCode: code} }
	for _, c := range []struct {
		target string
		err    error
		class  class
		cause  Cause
		advice string
	}{
		{"s3", s3(403, "AccessDenied"), classDenied, CauseDenied, "s3:ListBucket on arn:aws:s3:::b"},
		{"s3", s3(403, "ExpiredToken"), classDenied, CauseCredentials, "session_token"},
		{"s3", s3(400, "ExpiredToken"), classDenied, CauseCredentials, "session_token"},
		{"s3", s3(403, "RequestTimeTooSkewed"), classDenied, CauseClock, "clock"},
		{"s3", s3(301, "PermanentRedirect"), classPermanent, CauseRegion, "correct region"},
		{"s3", s3(404, "NoSuchBucket"), classPermanent, CauseMissing, `"b"`},
		{"s3", s3(503, "SlowDown"), classThrottled, CauseThrottled, "fewer"},
		{"s3", s3(429, ""), classThrottled, CauseThrottled, "fewer"},
		{"s3", s3(200, "InternalError"), classTransient, CauseOther, ""},
		{"s3", s3(500, "InternalError"), classTransient, CauseOther, ""},
		{"s3", s3(400, "RequestTimeout"), classTransient, CauseOther, ""},
		{"s3", s3(400, "EntityTooLarge"), classPermanent, CauseOther, ""},
		{"s3", s3(404, "NoSuchKey"), classPermanent, CauseOther, ""},
		{"gcs", &googleapi.Error{Code: 403}, classDenied, CauseDenied, "roles/storage.objectUser"},
		{"gcs", &googleapi.Error{Code: 401}, classDenied, CauseCredentials, "credentials"},
		{"gcs", &googleapi.Error{Code: 503}, classThrottled, CauseThrottled, "fewer"},
		{"gcs", fmt.Errorf("%w: %w", storage.ErrBucketNotExist, &googleapi.Error{Code: 404}), classPermanent, CauseMissing, `"b"`},
		{"gcs", &oauth2.RetrieveError{}, classPermanent, CauseCredentials, "service_account"},
		{"gcs", grpcstatus.Error(codes.Unavailable, ""), classThrottled, CauseThrottled, "fewer"},
		{"gcs", grpcstatus.Error(codes.PermissionDenied, ""), classDenied, CauseDenied, "roles/"},
		{"gcs", grpcstatus.Error(codes.Internal, ""), classTransient, CauseOther, ""},
		{"azure", azure(403, "AuthorizationPermissionMismatch"), classDenied, CauseDenied, "Storage Blob Data Contributor"},
		{"azure", azure(403, "AuthenticationFailed"), classDenied, CauseCredentials, "storage_account_key"},
		{"azure", azure(404, "ContainerNotFound"), classPermanent, CauseMissing, "storage_create_container"},
		{"azure", azure(503, "ServerBusy"), classThrottled, CauseThrottled, "fewer"},
		{"azure", azure(500, "OperationTimedOut"), classTransient, CauseOther, ""},
		{"folder", &fs.PathError{Op: "open", Err: syscall.EACCES}, classDenied, CauseDenied, "this process's user"},
		{"folder", &fs.PathError{Op: "write", Err: syscall.ENOSPC}, classPermanent, CauseDisk, "free space"},
		{"folder", &fs.PathError{Op: "write", Err: syscall.EROFS}, classPermanent, CauseDisk, "mount it"},
		{"s3", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, classTransient, CauseUnreachable, "nothing listens at e"},
		{"s3", &net.OpError{Op: "dial", Err: &net.DNSError{Name: "e"}}, classTransient, CauseUnreachable, "can't be resolved"},
		{"s3", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, classTransient, CauseUnreachable, "does not answer"},
		{"s3", io.ErrUnexpectedEOF, classTransient, CauseUnreachable, "does not answer"},
		{"s3", context.DeadlineExceeded, classTransient, CauseUnreachable, "does not answer"},
		{"s3", ErrTimeout, classTransient, CauseUnreachable, "does not answer"},
		{"s3", ErrShort, classTransient, CauseOther, ""},
		{"s3", x509.UnknownAuthorityError{}, classPermanent, CauseCertificate, "ca_file"},
		{"s3", x509.HostnameError{Certificate: &x509.Certificate{}, Host: "e"}, classPermanent, CauseCertificate, "server_name"},
		{"s3", x509.CertificateInvalidError{Reason: x509.Expired}, classPermanent, CauseCertificate, "renew"},
		{"s3", context.Canceled, classPermanent, CauseOther, ""},
		{"s3", errors.New("something new"), classPermanent, CauseOther, ""},
		{"s3", fmt.Errorf("put o: %w: %w", ErrConditionFailed, s3(412, "PreconditionFailed")), classPermanent, CauseOther, ""},
	} {
		t.Run(fmt.Sprintf("%s %T %v", c.target, c.err, c.cause), func(t *testing.T) {
			target, err := ParseConfig([]byte(targets[c.target]))
			require.NoError(t, err)
			wrapped := fmt.Errorf("get o: %w", &redacted{err: c.err, target: target})
			require.Equal(t, c.class, classify(wrapped))
			e := explain(target, wrapped)
			require.Equal(t, c.cause, e.Cause, "%v", e)
			require.Contains(t, e.Advice, c.advice)
			require.Equal(t, c.advice == "", e.Advice == "")
			require.ErrorIs(t, e, c.err)
		})
	}
	require.Equal(t, classPermanent, classify(nil))
}
