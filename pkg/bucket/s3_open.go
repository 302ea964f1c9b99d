package bucket

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/thanos-io/objstore/exthttp"
	"github.com/thanos-io/objstore/providers/s3"

	"github.com/firnline/firnline/pkg/gokit"
)

// openS3 makes objstore's bucket, and a client of our own beside it that shares
// its connections.
func openS3(c s3.Config, log gokit.Logger) (Bucket, error) {
	if c.MaxRetries == 0 {
		c.MaxRetries = 1 // one try: retrying is the retry layer's, which has a budget
	}
	transport, err := exthttp.DefaultTransport(c.HTTPConfig)
	if err != nil {
		return nil, fmt.Errorf("http_config: %w", err)
	}
	transport.DisableCompression = true // sizes must be those of the objects
	c.HTTPConfig.Transport = transport

	c.PutUserMetadata = cloneMap(c.PutUserMetadata) // objstore takes the storage class out of its own
	b := &s3Bucket{config: c}
	c.PutUserMetadata = cloneMap(c.PutUserMetadata)
	if b.Bucket, err = s3.NewBucketWithConfig(log, c, "firnline", nil); err != nil {
		return nil, err
	}
	core, err := minio.NewCore(c.Endpoint, &minio.Options{
		Creds:        s3Credentials(c),
		Secure:       !c.Insecure,
		Region:       c.Region,
		Transport:    transport,
		BucketLookup: c.BucketLookupType.MinioType(),
		MaxRetries:   c.MaxRetries,
	})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	core.SetAppInfo("firnline", "")
	if c.DisableDualstack {
		core.SetS3EnableDualstack(false)
	}
	b.core = *core
	b.sse, err = s3Encryption(c.SSEConfig)
	return b, err
}

func cloneMap(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// s3Credentials looks where Thanos looks, in its order.
func s3Credentials(c s3.Config) *credentials.Credentials {
	var chain []credentials.Provider
	switch {
	case c.AWSSDKAuth:
		chain = append(chain, &s3.AWSSDKAuth{Region: c.Region})
	case c.AccessKey != "":
		chain = append(chain, &credentials.Static{Value: credentials.Value{
			AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey, SessionToken: c.SessionToken,
			SignerType: credentials.SignatureV4,
		}})
	default:
		chain = append(chain, &credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Transport: http.DefaultTransport}, Endpoint: c.STSEndpoint})
	}
	if c.SignatureV2 {
		for i, p := range chain {
			chain[i] = &signatureV2{p}
		}
	}
	return credentials.NewChainCredentials(chain)
}

// signatureV2 has requests signed the old way, for stores that know no other.
type signatureV2 struct{ credentials.Provider }

func (s *signatureV2) Retrieve() (credentials.Value, error) {
	return s.RetrieveWithCredContext(nil)
}

func (s *signatureV2) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	v, err := s.Provider.RetrieveWithCredContext(cc)
	if err == nil && !v.SignerType.IsAnonymous() {
		v.SignerType = credentials.SignatureV2
	}
	return v, err
}

// s3Encryption returns what sse_config asks for, or nil.
func s3Encryption(c s3.SSEConfig) (encrypt.ServerSide, error) {
	switch c.Type {
	case s3.SSES3:
		return encrypt.NewSSE(), nil
	case s3.SSEKMS:
		context := cloneMap(c.KMSEncryptionContext) // never nil: AWS refuses "null"
		return encrypt.NewSSEKMS(c.KMSKeyID, context)
	case s3.SSEC:
		key, err := os.ReadFile(c.EncryptionKey)
		if err != nil {
			return nil, fmt.Errorf("sse_config.encryption_key: %w", err)
		}
		return encrypt.NewSSEC(key)
	case "":
		return nil, nil
	}
	return nil, fmt.Errorf("sse_config.type: %s is unknown", strings.ToUpper(c.Type))
}
