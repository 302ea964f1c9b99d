package bucket

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestParseConfig(t *testing.T) {
	t.Setenv("FIRNLINE_TEST_BUCKET", "from-env")
	datadriven.RunTest(t, "testdata/parse_config", func(t *testing.T, d *datadriven.TestData) string {
		target, err := ParseConfig([]byte(d.Input))
		if err != nil {
			require.NotContains(t, err.Error(), "s3cr3t")
			return err.Error() + "\n"
		}
		return strings.Join(append([]string{target.String()}, target.Warnings...), "\n") + "\n"
	})
}

// No way of printing a target shows its secrets. // RELIABILITY section 5, Secrets
func TestTargetHidesSecrets(t *testing.T) {
	for _, config := range []string{
		"type: S3\nconfig: {bucket: b, endpoint: e, access_key: AKs3cr3t, secret_key: s3cr3t, session_token: s3cr3tt}",
		"type: GCS\nconfig: {bucket: b, service_account: '{\"private_key\": \"s3cr3t\"}'}",
		"type: AZURE\nconfig: {container: b, storage_account: e, storage_account_key: s3cr3t}",
		"type: AZURE\nconfig: {container: b, storage_account: e, storage_connection_string: s3cr3t}",
		"type: AZURE\nconfig: {container: b, storage_account: e, az_tenant_id: t, client_id: i, client_secret: s3cr3t}",
	} {
		target, err := ParseConfig([]byte(config))
		require.NoError(t, err)
		var logged strings.Builder
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "target", target)
		asJSON, err := json.Marshal(target)
		require.NoError(t, err)
		asYAML, err := yaml.Marshal(target)
		require.NoError(t, err)
		for _, text := range []string{
			fmt.Sprint(target), fmt.Sprintf("%+v %#v %s %q %d", target, target, target, target, target),
			fmt.Sprintf("%+v", struct{ T *Target }{target}), logged.String(), string(asJSON), string(asYAML),
			target.redact("denied for " + strings.Join(target.secrets(), " ")),
		} {
			require.NotContains(t, text, "s3cr3t")
		}
	}
}

// An access key that is a word of ours or the bucket's name hides nothing: messages can be read.
func TestRedactionLeavesNames(t *testing.T) {
	target, err := ParseConfig([]byte("type: S3\nconfig: {bucket: metrics, endpoint: e, access_key: firnline, secret_key: firnline-s3cr3t}"))
	require.NoError(t, err)
	require.Equal(t, "list firnline/leases/: <secret> is wrong", target.redact("list firnline/leases/: firnline-s3cr3t is wrong"))
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("type: S3\nconfig: {bucket: b, endpoint: e}\nprefix: p"))
	f.Add([]byte("type: FILESYSTEM\nconfig: &a {directory: d, <<: *a}"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if target, err := ParseConfig(content); err == nil && target.Bucket() == "" {
			t.Errorf("accepted without a bucket: %q", content)
		}
	})
}
