package e2e

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReliabilityRowsHaveTests: every test that docs/reliability.md names is there.
func TestReliabilityRowsHaveTests(t *testing.T) {
	doc, err := os.ReadFile("../docs/reliability.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`([a-z0-9/]+):(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1)
	require.Greater(t, len(named), 50)
	for _, n := range named {
		files, err := filepath.Glob(filepath.Join("..", n[1], "*_test.go"))
		require.NoError(t, err)
		found := false
		for _, f := range files {
			code, err := os.ReadFile(f)
			require.NoError(t, err)
			found = found || strings.Contains(string(code), "func "+n[2]+"(t *testing.T)")
		}
		require.True(t, found, "%s has no %s", n[1], n[2])
	}
}

// TestFlagsHaveThemes: a component's page names each of its flags, by itself or by a pattern.
func TestFlagsHaveThemes(t *testing.T) {
	for _, component := range []string{"compact", "ingest"} {
		t.Run(component, func(t *testing.T) { flagsHaveThemes(t, component) })
	}
}

func flagsHaveThemes(t *testing.T, component string) {
	reference, err := os.ReadFile("../docs/reference/flags.md")
	require.NoError(t, err)
	_, own, _ := strings.Cut(string(reference), "\n## firnline "+component+"\n")
	own, _, _ = strings.Cut(own, "\n## ")
	doc, err := os.ReadFile("../docs/" + component + ".md")
	require.NoError(t, err)
	_, themes, _ := strings.Cut(string(doc), "\n## Flags\n")
	themes, _, _ = strings.Cut(themes, "\n## ")
	var patterns []string
	for _, p := range regexp.MustCompile("`--([a-z0-9.*-]+)(\\[-file\\])?`").FindAllStringSubmatch(themes, -1) {
		patterns = append(patterns, p[1])
		if p[2] != "" {
			patterns = append(patterns, p[1]+"-file")
		}
	}
	flags := regexp.MustCompile("(?m)^\\| `--(?:\\[no-\\])?([a-z0-9.-]+)").FindAllStringSubmatch(own, -1)
	require.Greater(t, len(flags), 50)
	for _, f := range flags {
		named := false
		for _, p := range patterns {
			ok, err := path.Match(p, f[1])
			require.NoError(t, err)
			named = named || ok
		}
		require.True(t, named, "--%s has no theme", f[1])
	}
}
