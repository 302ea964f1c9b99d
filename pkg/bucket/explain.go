package bucket

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/minio/minio-go/v7"
	"github.com/thanos-io/objstore"
	"golang.org/x/oauth2"
)

// Cause is why a bucket can't be used, as an id for messages, metrics and docs.
type Cause string

// The causes that Explain knows.
const (
	CauseMissing     Cause = "bucket-missing"
	CauseCredentials Cause = "bucket-credentials" // the store does not know who asks
	CauseDenied      Cause = "bucket-denied"      // it knows, and refuses
	CauseRegion      Cause = "bucket-region"
	CauseCertificate Cause = "bucket-certificate"
	CauseScheme      Cause = "bucket-scheme" // HTTP where HTTPS is spoken, or the other way round
	CauseClock       Cause = "bucket-clock"
	CauseUnreachable Cause = "bucket-unreachable"
	CauseThrottled   Cause = "bucket-throttled"
	CauseDisk        Cause = "bucket-disk"
	CauseOther       Cause = "bucket-error"
)

// Explanation is an error in an operator's words: which bucket, what the store
// said, and what to do.
type Explanation struct {
	Cause  Cause
	Advice string // what to do; "" if nothing is known
	Err    error
	target *Target
}

// Error implements error.
func (e *Explanation) Error() string {
	text := fmt.Sprintf("%v: %s", e.target, e.target.redact(e.Err.Error()))
	if code := providerCode(e.Err); code != "" && !strings.Contains(text, code) {
		text += " (" + code + ")"
	}
	if e.Advice != "" {
		text += ": " + e.Advice
	}
	return text + " [" + string(e.Cause) + "]"
}

func (e *Explanation) Unwrap() error { return e.Err }

// Explain words an error of this bucket for an operator, without secrets. Nil stays nil.
func (h *Handle) Explain(err error) error {
	var done *Explanation
	if err == nil || errors.As(err, &done) {
		return err
	}
	return explain(h.Target, err)
}

func explain(t *Target, err error) *Explanation {
	cause, advice := likelyCause(t, err)
	return &Explanation{Cause: cause, Advice: advice, Err: err, target: t}
}

// likelyCause looks at what the store said, and then at why it could not be asked.
func likelyCause(t *Target, err error) (Cause, string) {
	code, s := providerCode(err), status(err)
	switch {
	case code == minio.NoSuchBucket, errors.Is(err, storage.ErrBucketNotExist), bloberror.HasCode(err, bloberror.ContainerNotFound):
		if t.Type == objstore.AZURE {
			return CauseMissing, fmt.Sprintf("create container %q, or set storage_create_container: true; none is made unasked, since a misspelt name would get an empty one", t.Bucket())
		}
		return CauseMissing, fmt.Sprintf("create bucket %q or correct the name; none is made unasked, since a misspelt name would get an empty one", t.Bucket())
	case code == "RequestTimeTooSkewed":
		return CauseClock, "this machine's clock and the store's differ by more than the store allows: synchronise it"
	case wrongRegion(code, s):
		return CauseRegion, "the bucket is in another region" + expectedRegion(err) + ": correct region and endpoint"
	case classify(err) == classDenied:
		return denied(t, code, s)
	case classify(err) == classThrottled:
		return CauseThrottled, "the store refuses requests because there are too many; they are retried, and fewer are made meanwhile"
	case s != 0:
		return CauseOther, ""
	}
	return unreachable(t, err)
}

func wrongRegion(code string, s int) bool {
	switch code {
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException":
		return true
	}
	return s == http.StatusMovedPermanently
}

func expectedRegion(err error) string {
	var r minio.ErrorResponse
	if errors.As(err, &r) && r.Region != "" {
		return " (" + r.Region + ")"
	}
	return ""
}

// denied tells wrong credentials from missing rights and lists the rights needed.
func denied(t *Target, code string, s int) (Cause, string) {
	switch code {
	case "InvalidAccessKeyId":
		return CauseCredentials, "the store does not know access_key: correct it"
	case "SignatureDoesNotMatch":
		return CauseCredentials, "secret_key does not belong to access_key: correct it; also check that nothing between here and the store rewrites requests"
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired":
		return CauseCredentials, "session_token has expired or is malformed: renew it; in --objstore.config-file a new one is used without a restart"
	case string(bloberror.AuthenticationFailed):
		return CauseCredentials, "correct storage_account_key or the identity, and check this machine's clock"
	}
	if s == http.StatusUnauthorized {
		return CauseCredentials, "the store did not accept the credentials: correct them"
	}
	switch t.Type {
	case objstore.S3:
		return CauseDenied, fmt.Sprintf("allow s3:ListBucket on arn:aws:s3:::%[1]s, and s3:GetObject, s3:PutObject, s3:DeleteObject on arn:aws:s3:::%[1]s/*; readers need no Put and Delete", t.Bucket())
	case objstore.GCS:
		return CauseDenied, "grant roles/storage.objectUser on the bucket (storage.objects.list, get, create, delete, update); readers need roles/storage.objectViewer"
	case objstore.AZURE:
		return CauseDenied, "grant the role Storage Blob Data Contributor on the container; readers need Storage Blob Data Reader"
	}
	return CauseDenied, "let this process's user read and write the folder"
}

// unreachable explains errors of requests without an answer.
func unreachable(t *Target, err error) (Cause, string) {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		dns       *net.DNSError
		token     *oauth2.RetrieveError
	)
	text := err.Error()
	switch {
	case errors.As(err, &token):
		return CauseCredentials, "the service account was not accepted: correct service_account"
	case errors.As(err, &authority):
		return CauseCertificate, "its certificate is signed by an authority unknown here: give http_config.tls_config.ca_file"
	case errors.As(err, &host):
		return CauseCertificate, "its certificate is for another name: correct endpoint, or give http_config.tls_config.server_name"
	case errors.As(err, &invalid):
		return CauseCertificate, "its certificate is not valid (expired?): renew it"
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return CauseScheme, "it speaks HTTP and was asked by HTTPS: set insecure: true"
	case strings.Contains(text, "malformed HTTP response"), strings.Contains(text, "HTTP request to an HTTPS server"):
		return CauseScheme, "it speaks HTTPS and was asked by HTTP: remove insecure: true"
	case errors.As(err, &dns):
		return CauseUnreachable, fmt.Sprintf("the name %s can't be resolved: correct endpoint, or with S3 on your own machines set bucket_lookup_type: path", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return CauseUnreachable, fmt.Sprintf("nothing listens at %s: correct endpoint and port, or start the store", t.Endpoint())
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EDQUOT):
		return CauseDisk, "the folder's file system takes no more: free space, or mount it for writing"
	case errors.Is(err, fs.ErrPermission):
		return CauseDenied, "let this process's user read and write the folder"
	case classifyNetwork(err) == classTransient, errors.Is(err, ErrTimeout):
		return CauseUnreachable, fmt.Sprintf("%s does not answer: check endpoint, network policies and proxies", t.Endpoint())
	}
	return CauseOther, ""
}
