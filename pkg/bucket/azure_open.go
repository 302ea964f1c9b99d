package bucket

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/thanos-io/objstore/exthttp"
	"github.com/thanos-io/objstore/providers/azure"
)

// azureClient opens the container with the credentials that the config has, in Thanos' order.
func azureClient(c azure.Config) (*container.Client, error) {
	transport, err := exthttp.DefaultTransport(c.HTTPConfig)
	if err != nil {
		return nil, fmt.Errorf("http_config: %w", err)
	}
	opts := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry: policy.RetryOptions{
			MaxRetries:    max(c.PipelineConfig.MaxTries, int32(c.MaxRetries)),
			TryTimeout:    time.Duration(c.PipelineConfig.TryTimeout),
			RetryDelay:    time.Duration(c.PipelineConfig.RetryDelay),
			MaxRetryDelay: time.Duration(c.PipelineConfig.MaxRetryDelay),
		},
		Telemetry: policy.TelemetryOptions{ApplicationID: "firnline"},
		Transport: &http.Client{Transport: transport},
	}}
	if opts.Retry.MaxRetries == 0 {
		opts.Retry.MaxRetries = -1 // none: retrying is the retry layer's, which has a budget
	}
	if c.StorageConnectionString != "" {
		return container.NewClientFromConnectionString(c.StorageConnectionString, c.ContainerName, opts)
	}
	url := fmt.Sprintf("https://%s.%s/%s", c.StorageAccountName, c.Endpoint, c.ContainerName)
	if c.StorageAccountKey != "" {
		key, err := container.NewSharedKeyCredential(c.StorageAccountName, c.StorageAccountKey)
		if err != nil {
			return nil, fmt.Errorf("storage_account_key: %w", err)
		}
		return container.NewClientWithSharedKeyCredential(url, key, opts)
	}
	token, err := azureToken(c)
	if err != nil {
		return nil, err
	}
	return container.NewClient(url, token, opts)
}

func azureToken(c azure.Config) (azcore.TokenCredential, error) {
	switch {
	case c.ClientSecret != "":
		return azidentity.NewClientSecretCredential(c.AzTenantID, c.ClientID, c.ClientSecret, nil)
	case c.UserAssignedID != "":
		return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(c.UserAssignedID)})
	}
	return azidentity.NewDefaultAzureCredential(nil)
}

// azureOneTry turns off the retries of objstore's client, whose config has no
// value for none.
func azureOneTry(b Bucket) Bucket {
	return &layer{Bucket: b, around: func(ctx context.Context, _ Call, do func(context.Context) error) error {
		return do(policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: -1}))
	}}
}
