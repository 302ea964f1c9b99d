package ingest

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/ingest/internal/forward"
	"github.com/firnline/firnline/pkg/ingest/internal/limits"
	"github.com/firnline/firnline/pkg/tenant"
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

// TestSnippets: what docs/ingest.md shows as YAML is taken by who reads it.
func TestSnippets(t *testing.T) {
	doc, err := os.ReadFile(page)
	require.NoError(t, err)
	readers := map[string]func(string) error{
		"remote_write:": prometheusConfig, "global:": prometheusConfig,
		"write:": func(s string) error {
			_, err := tenant.NewLimits(tenant.LimitsConfig{Content: s}, limits.Form(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			return err
		},
		"endpoints:": func(s string) error { _, err := forward.ParseRules([]byte(s), page); return err },
		"exporters:": func(s string) error { return yaml.Unmarshal([]byte(s), &map[string]any{}) }, // the collector is not here
	}
	read := map[string]bool{}
	for _, m := range regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n").FindAllStringSubmatch(string(doc), -1) {
		kind := regexp.MustCompile(`(?m)^[a-z_]+:`).FindString(m[1])
		require.Contains(t, readers, kind, m[1])
		require.NoError(t, readers[kind](m[1]), m[1])
		read[kind] = true
	}
	require.Len(t, read, len(readers))
}

func prometheusConfig(s string) error {
	_, err := config.Load(s, slog.New(slog.DiscardHandler))
	return err
}

// TestLimitsOfMimir: docs/migrate/mimir.md names limits that there are.
func TestLimitsOfMimir(t *testing.T) {
	doc, err := os.ReadFile("../../docs/migrate/mimir.md")
	require.NoError(t, err)
	known := map[string]bool{"labeldrop": true}
	for _, e := range limits.Reference() {
		known[e.Key] = true
	}
	_, table, _ := strings.Cut(string(doc), "\n| Mimir |")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[2:]
	require.Greater(t, len(rows), 10)
	for _, row := range rows {
		ours := strings.Split(row, "|")[2]
		for _, key := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(ours, -1) {
			require.True(t, known[key[1]], "there is no limit %s", key[1])
		}
	}
}
