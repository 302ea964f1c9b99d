package ingest

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

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

// alert is a rule of deploy/alerts/ingest.yaml.
type alert struct {
	Name        string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         model.Duration    `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// TestAlerts: each alert is about metrics that there are, says all that it
// should, and has its runbook in docs/ingest.md.
func TestAlerts(t *testing.T) {
	data, err := os.ReadFile("../../deploy/alerts/ingest.yaml")
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	doc, err := os.ReadFile(page)
	require.NoError(t, err)
	metrics, runbooks := exported(t), map[string]bool{}
	_, book, _ := strings.Cut(string(doc), "\n## Runbook\n")
	for _, heading := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(book, -1) {
		runbooks[heading[1]] = true
	}
	for _, a := range file.Groups[0].Rules {
		a.check(t, metrics)
		require.True(t, runbooks[a.Name], "%s has no runbook", a.Name)
		delete(runbooks, a.Name)
	}
	require.Empty(t, runbooks, "runbooks of no alert")

	for _, m := range regexp.MustCompile("`(firnline_[a-z_]+)").FindAllStringSubmatch(string(doc), -1) {
		require.True(t, metrics[m[1]], "docs/ingest.md: there is no metric %s", m[1])
	}
}

func (a alert) check(t *testing.T, metrics map[string]bool) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(a.Expr)
	require.NoError(t, err, a.Name)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			require.True(t, metrics[s.Name], "%s: there is no metric %s", a.Name, s.Name)
		}
		return nil
	})
	require.Contains(t, []string{"warning", "critical"}, a.Labels["severity"], a.Name)
	require.NotEmpty(t, a.Annotations["summary"], a.Name)
	require.Contains(t, a.Annotations["description"], "{{ $", "%s: the description shows no value", a.Name)
	require.Equal(t, "https://github.com/firnline/firnline/blob/main/docs/ingest.md#"+strings.ToLower(a.Name), a.Annotations["runbook_url"])
	timed := strings.Contains(a.Expr, "increase(") || strings.Contains(a.Expr, "offset") // has a time of its own
	require.True(t, timed || time.Duration(a.For) >= 5*time.Minute, "%s: fires at the first wrong sample", a.Name)
}

// exported are the names of all series that an ingester may have, with either kind of ring.
func exported(t *testing.T) map[string]bool {
	name, out := regexp.MustCompile(`fqName: "([^"]+)"`), map[string]bool{}
	for _, hashrings := range []string{"", `[{"endpoints":["127.0.0.1:10901"]}]`} {
		var cfg Config
		cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
		cfg.Heads.Dir = filepath.Join(t.TempDir(), "data")
		cfg.Ring.Static.Hashrings, cfg.Ring.Static.LocalEndpoint = hashrings, "127.0.0.1:10901"
		reg := prometheus.NewRegistry()
		_, err := New(cfg, Parts{Address: "127.0.0.1:10901", Log: slog.New(slog.DiscardHandler), Metrics: reg})
		require.NoError(t, err)
		descs := make(chan *prometheus.Desc)
		go func() {
			defer close(descs)
			reg.Describe(descs)
		}()
		for d := range descs {
			out[name.FindStringSubmatch(d.String())[1]] = true
		}
	}
	return out
}
