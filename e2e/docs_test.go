package e2e

import (
	"os"
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
