package bucket

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/s3"
)

// Target is what an objstore YAML says: which store, where, and with which
// credentials. However it is printed or logged, it shows no more than String.
type Target struct {
	Type     objstore.ObjProvider
	Prefix   string   // without slashes at its ends; "" for none
	Warnings []string // for the log: keys that are accepted and have no effect

	// The one that Type names is set.
	s3     *s3.Config
	gcs    *gcs.Config
	azure  *azure.Config
	folder *folderConfig
}

type folderConfig struct {
	Directory string `yaml:"directory"`
}

// Bucket is the name of the bucket, the container, or the folder.
func (t *Target) Bucket() string {
	switch t.Type {
	case objstore.S3:
		return t.s3.Bucket
	case objstore.GCS:
		return t.gcs.Bucket
	case objstore.AZURE:
		return t.azure.ContainerName
	case objstore.FILESYSTEM:
		return t.folder.Directory
	}
	return ""
}

// Endpoint is the address that is asked, or "" for that of the provider.
func (t *Target) Endpoint() string {
	switch t.Type {
	case objstore.S3:
		return t.s3.Endpoint
	case objstore.AZURE:
		return azureEndpoint(t.azure)
	case objstore.GCS:
		return "storage.googleapis.com"
	}
	return ""
}

// azureEndpoint is the account's address, which a connection string may name.
func azureEndpoint(c *azure.Config) string {
	for part := range strings.SplitSeq(c.StorageConnectionString, ";") {
		if u, err := url.Parse(strings.TrimPrefix(part, "BlobEndpoint=")); err == nil && strings.HasPrefix(part, "BlobEndpoint=") {
			return u.Host // a shared access signature may stand in its query
		}
	}
	return c.StorageAccountName + "." + c.Endpoint
}

// Region is the region the YAML names, or "".
func (t *Target) Region() string {
	if t.Type == objstore.S3 {
		return t.s3.Region
	}
	return ""
}

// String names the bucket for people: S3 bucket "metrics" at minio:9000, prefix "eu".
func (t *Target) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s bucket %q", t.Type, t.Bucket())
	if e := t.Endpoint(); e != "" {
		b.WriteString(" at " + e)
	}
	if r := t.Region(); r != "" {
		b.WriteString(", region " + r)
	}
	if t.Prefix != "" {
		fmt.Fprintf(&b, ", prefix %q", t.Prefix)
	}
	return b.String()
}

// Format keeps credentials out of every verb of package fmt, %+v and %#v too.
func (t *Target) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(t.String())) }

// LogValue keeps credentials out of logs.
func (t *Target) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText keeps credentials out of JSON and YAML.
func (t *Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// same tells whether t is the same place as other, whatever the credentials.
func (t *Target) same(other *Target) bool {
	return t.Type == other.Type && t.Bucket() == other.Bucket() && t.Prefix == other.Prefix
}

// validate lists all that is wrong with values that parsed.
func (t *Target) validate() []error {
	switch t.Type {
	case objstore.S3:
		return validateS3(t.s3)
	case objstore.GCS:
		return validateGCS(t.gcs)
	case objstore.AZURE:
		return validateAzure(t.azure)
	case objstore.FILESYSTEM:
		return problems(rule{t.folder.Directory == "", "config.directory: missing: the folder that is the bucket"})
	}
	return nil
}

// rule is a condition that must not hold, and what to say if it does.
type rule struct {
	broken bool
	text   string
}

// problems makes errors of the rules that are broken.
func problems(rules ...rule) []error {
	var out []error
	for _, r := range rules {
		if r.broken {
			out = append(out, errors.New(r.text))
		}
	}
	return out
}

func validateS3(c *s3.Config) []error {
	sse := c.SSEConfig.Type
	out := problems(
		rule{c.Bucket == "", "config.bucket: missing: the name of the bucket"},
		rule{c.Endpoint == "", "config.endpoint: missing: host, or host:port, of the S3 service, such as s3.eu-central-1.amazonaws.com"},
		rule{c.AWSSDKAuth && c.AccessKey != "", "config.aws_sdk_auth and config.access_key exclude each other"},
		rule{c.AccessKey == "" && c.SecretKey != "", "config.access_key: missing, though secret_key is given; give both, or none for the environment or instance profile"},
		rule{c.AccessKey != "" && c.SecretKey == "", "config.secret_key: missing, though access_key is given; give both, or none for the environment or instance profile"},
		rule{sse == s3.SSEC && c.SSEConfig.EncryptionKey == "", "config.sse_config.encryption_key: missing: SSE-C needs the path of a key file"},
		rule{sse == s3.SSEKMS && c.SSEConfig.KMSKeyID == "", "config.sse_config.kms_key_id: missing: SSE-KMS needs it"},
		rule{sse != "" && sse != s3.SSEC && sse != s3.SSEKMS && sse != s3.SSES3, "config.sse_config.type: want SSE-S3, SSE-KMS or SSE-C"},
		rule{c.ListObjectsVersion != "" && c.ListObjectsVersion != "v1" && c.ListObjectsVersion != "v2", "config.list_objects_version: want v1 or v2"},
		rule{c.MaxRetries < 0, "config.max_retries: must not be negative"},
	)
	if u, err := url.Parse(c.Endpoint); err == nil && u.Host != "" && strings.Contains(c.Endpoint, "://") {
		out = append(out, fmt.Errorf("config.endpoint: must be host or host:port without scheme and path: write %s%s", u.Host,
			map[bool]string{true: " and insecure: true", false: ""}[u.Scheme == "http"]))
	} else if strings.Contains(c.Endpoint, "/") {
		out = append(out, errors.New("config.endpoint: must be host or host:port without a path; for a folder in the bucket use prefix"))
	} else if _, port, err := net.SplitHostPort(c.Endpoint); err == nil && port == "" {
		out = append(out, errors.New("config.endpoint: the port is empty"))
	}
	return out
}

func validateGCS(c *gcs.Config) []error {
	return problems(
		rule{c.Bucket == "", "config.bucket: missing: the name of the bucket"},
		rule{c.ServiceAccount != "" && !strings.HasPrefix(strings.TrimSpace(c.ServiceAccount), "{"), "config.service_account: want the JSON of a service account, not its name or file; for a file set GOOGLE_APPLICATION_CREDENTIALS"},
		rule{c.MaxRetries < 0, "config.max_retries: must not be negative"},
	)
}

func validateAzure(c *azure.Config) []error {
	some := c.AzTenantID != "" || c.ClientID != "" || c.ClientSecret != ""
	all := c.AzTenantID != "" && c.ClientID != "" && c.ClientSecret != ""
	return problems(
		rule{c.ContainerName == "", "config.container: missing: the name of the container"},
		rule{c.StorageAccountName == "", "config.storage_account: missing: needed with storage_connection_string too"},
		rule{c.StorageAccountKey != "" && c.StorageConnectionString != "", "config.storage_account_key and config.storage_connection_string exclude each other"},
		rule{c.UserAssignedID != "" && (c.StorageAccountKey != "" || c.StorageConnectionString != "" || c.ClientID != ""), "config.user_assigned_id excludes storage_account_key, storage_connection_string and client_id"},
		rule{some && !all, "config.az_tenant_id, config.client_id and config.client_secret must be given together"},
		rule{c.PipelineConfig.MaxTries < 0, "config.pipeline_config.max_tries: must not be negative"},
		rule{c.ReaderConfig.MaxRetryRequests < 0, "config.reader_config.max_retry_requests: must not be negative"},
	)
}
