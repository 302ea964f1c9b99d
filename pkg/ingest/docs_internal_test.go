package ingest

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/limits"
)

var update = flag.Bool("update", false, "write the table of limits in docs/ingest.md")

const page = "../../docs/ingest.md"

// TestLimitsTable: docs/ingest.md lists every limit with its default.
func TestLimitsTable(t *testing.T) {
	doc, err := os.ReadFile(page)
	require.NoError(t, err)
	const begin, end = "-run TestLimitsTable -update -->\n", "<!-- end of limits -->"
	before, rest, ok := strings.Cut(string(doc), begin)
	require.True(t, ok)
	table, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	var want strings.Builder
	want.WriteString("\n| key | default | meaning |\n|---|---|---|\n")
	for _, e := range limits.Reference() {
		if e.Default != "" {
			e.Default = "`" + e.Default + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", e.Key, e.Default, e.Doc)
	}
	want.WriteString("\n")
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(before+begin+want.String()+end+after), 0o644))
		return
	}
	require.Equal(t, want.String(), table, "run go test ./pkg/ingest -run TestLimitsTable -update")
}

// TestReasonsHaveAnchors: what an answer has in brackets is found in docs/ingest.md.
func TestReasonsHaveAnchors(t *testing.T) {
	code, err := os.ReadFile("internal/refuse/refuse.go")
	require.NoError(t, err)
	doc, err := os.ReadFile(page)
	require.NoError(t, err)
	reasons := regexp.MustCompile(`Reason += "([a-z-]+)"`).FindAllStringSubmatch(string(code), -1)
	require.Greater(t, len(reasons), 20)
	for _, r := range reasons {
		require.Contains(t, string(doc), fmt.Sprintf("| <a id=%q></a>`%s` |", r[1], r[1]))
	}
}
