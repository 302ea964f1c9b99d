package bucket

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/thanos-io/objstore"
)

// signedParts are the parameters of an address that let their bearer in.
var signedParts = regexp.MustCompile(`(?i)((?:sig|signature|token|credential|x-amz-[a-z-]+|x-goog-[a-z-]+|accountkey|sharedaccesssignature)=)[^&;\s"']+`)

// secrets are the values of the configuration that must never be shown.
func (t *Target) secrets() []string {
	switch t.Type {
	case objstore.S3:
		all := []string{t.s3.SecretKey, t.s3.SessionToken}
		if !strings.Contains("firnline "+t.s3.Bucket, t.s3.AccessKey) { // which stand in names of objects and addresses
			all = append(all, t.s3.AccessKey)
		}
		return all
	case objstore.GCS:
		return []string{t.gcs.ServiceAccount}
	case objstore.AZURE:
		return []string{t.azure.StorageConnectionString, t.azure.StorageAccountKey, t.azure.ClientSecret}
	}
	return nil
}

// shortestSecret is the length in bytes below which a value is no secret: taking
// it out would take letters out of every word.
const shortestSecret = 4

// redact takes secrets out of a text that a provider made.
func (t *Target) redact(text string) string {
	for _, s := range t.secrets() {
		if len(s) >= shortestSecret {
			text = strings.ReplaceAll(text, s, "<secret>")
		}
	}
	return signedParts.ReplaceAllString(text, "$1<secret>")
}

// withRedaction takes secrets, and the stack traces that objstore's errors have
// for %+v, out of the errors of b, and puts in what was asked for where they don't say.
func withRedaction(b Bucket, t *Target) Bucket {
	return &layer{Bucket: b, around: func(ctx context.Context, c Call, do func(context.Context) error) error {
		if err := do(ctx); err != nil {
			return &redacted{err, t, c}
		}
		return nil
	}}
}

// redacted is an error whose text shows no secrets of its target.
type redacted struct {
	err    error
	target *Target
	call   Call // zero if it was none
}

func (r *redacted) Error() string {
	text := r.err.Error()
	var azure *azcore.ResponseError
	if errors.As(r.err, &azure) { // it prints the whole answer, over a dozen lines
		text = strings.ReplaceAll(text, azure.Error(), fmt.Sprintf("%d %s", azure.StatusCode, azure.ErrorCode))
	}
	text = r.target.redact(text)
	op, name := strings.ReplaceAll(string(r.call.Op), "_", " "), r.call.Name
	switch {
	case op == "", name != "" && strings.Contains(text, name):
		return text
	case name == "" && strings.HasPrefix(text, op+":"):
		return text
	case name == "":
		return op + ": " + text
	}
	return op + " " + name + ": " + text
}

func (r *redacted) Unwrap() error { return r.err }
