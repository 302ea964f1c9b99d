package content

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExpand(t *testing.T) {
	env := map[string]string{"USER_KEY": "k$(OTHER)", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	for _, tc := range []struct{ name, in, want, err string }{
		{name: "none", in: "a: $b ${c} $() $(1x)", want: "a: $b ${c} $() $(1x)"},
		{name: "once, and not again", in: "key: $(USER_KEY)", want: "key: k$(OTHER)"},
		{name: "twice", in: "$(EMPTY)$(USER_KEY)$(USER_KEY)", want: "k$(OTHER)k$(OTHER)"},
		{name: "unset", in: "a: 1\nb: $(NO)\nc: $(NEITHER)", err: "line 2: environment variable NO is not set\nline 3: environment variable NEITHER is not set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Expand(tc.in, lookup)
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestOf(t *testing.T) {
	t.Setenv("FIRN_TEST_BUCKET", "metrics")
	path := filepath.Join(t.TempDir(), "objstore.yml")
	require.NoError(t, os.WriteFile(path, []byte("bucket: $(FIRN_TEST_BUCKET)\nkey: $(FIRN_TEST_UNSET)\n"), 0o600))

	got, source, err := Of("objstore.config", "bucket: $(FIRN_TEST_BUCKET)", "")
	require.NoError(t, err)
	require.Equal(t, "bucket: metrics", string(got))
	require.Equal(t, "--objstore.config", source)

	got, _, err = Of("objstore.config", "", "")
	require.NoError(t, err)
	require.Nil(t, got)

	_, _, err = Of("objstore.config", "", path)
	require.EqualError(t, err, "--objstore.config-file: "+path+": line 2: environment variable FIRN_TEST_UNSET is not set")

	_, _, err = Of("objstore.config", "a", path)
	require.EqualError(t, err, "--objstore.config and --objstore.config-file exclude each other; give one of them")

	_, _, err = Of("objstore.config", "", path+".missing")
	require.ErrorContains(t, err, "--objstore.config-file: open "+path+".missing")
}
