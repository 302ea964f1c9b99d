package storeapi

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClientTLSErrors(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	for _, c := range []struct {
		tls  ClientTLS
		want string
	}{
		{ClientTLS{CAFile: junk}, "has no certificate in PEM"},
		{ClientTLS{CertFile: junk, KeyFile: junk}, "client certificate " + junk},
		{ClientTLS{CAFile: filepath.Join(dir, "none")}, "CA certificates"},
	} {
		c.tls.Secure, c.tls.MinVersion = true, "1.3"
		_, _, err := c.tls.Credentials().ClientHandshake(t.Context(), "x", nil)
		require.ErrorContains(t, err, c.want)
	}
	require.Error(t, ClientTLS{MinVersion: "2"}.Validate())
	require.Error(t, ClientTLS{MinVersion: "1.2", CertFile: junk}.Validate())
}
