// Package mixin holds no code: its tests keep dashboards, alerts and recording rules
// in step with the metrics that there are and with the runbooks.
package mixin

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-jsonnet"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/e2e/stack"
)

var update = flag.Bool("update", false, "write dashboards/*.json")

const docs = "../../docs/"

// TestDashboards: the JSON is what the source gives, and each panel asks for metrics that there are.
func TestDashboards(t *testing.T) {
	vm := jsonnet.MakeVM()
	files, err := vm.EvaluateFileMulti("src/dashboards.jsonnet")
	require.NoError(t, err)
	known, uids := knownMetrics(t), map[string]bool{}
	for name, content := range files {
		path := filepath.Join("dashboards", name)
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		}
		have, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(have), "run go test ./deploy/mixin -update")
		var d dashboard
		require.NoError(t, json.Unmarshal([]byte(content), &d))
		require.False(t, uids[d.UID], d.UID)
		uids[d.UID] = true
		d.check(t, known)
	}
	rendered, err := filepath.Glob("dashboards/*.json")
	require.NoError(t, err)
	require.Len(t, rendered, len(files), "dashboards without a source")
}

// dashboard is what a dashboard says of its queries.
type dashboard struct {
	UID, Title string
	Panels     []struct {
		Type, Title string
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ Expr string }
		FieldConfig struct{ Defaults struct{ Unit string } }
	}
	Templating struct {
		List []struct{ Name, Type string }
	}
}

func (d dashboard) check(t *testing.T, known map[string]bool) {
	require.NotEmpty(t, d.Panels)
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		what := d.Title + ": " + p.Title
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, taken[at], "%s lies on another panel", what)
				require.Less(t, at[0], 24, what)
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, what)
		require.NotEmpty(t, p.Targets, what)
		for _, target := range p.Targets {
			requireKnown(t, known, what, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
		}
	}
}

// requireKnown checks that an expression parses and is about metrics that there are.
func requireKnown(t *testing.T, known map[string]bool, what, expr string) {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	require.NoError(t, err, "%s: %s", what, expr)
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := s.Name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, found := strings.CutSuffix(name, suffix); found && known[base] {
				name = base
			}
		}
		clients := strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
		require.True(t, known[name] || clients, "%s: there is no metric %s", what, name)
		return nil
	})
}

// knownMetrics are those of docs/reference/metrics.md and of the recording rules.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile(docs + "reference/metrics.md")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		known[m[1]] = true
	}
	require.Greater(t, len(known), 200)
	for _, r := range rulesOf(t, "rules/firnline.yaml") {
		known[r.Record] = true
	}
	return known
}

// rule is a rule of a rule file.
type rule struct {
	Record, Alert, Expr string
	For                 model.Duration
	Labels, Annotations map[string]string
}

func rulesOf(t *testing.T, path string) []rule {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var file struct {
		Groups []struct{ Rules []rule }
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all, path)
	return all
}

// TestRules: recording rules are about metrics that there are.
func TestRules(t *testing.T) {
	known := knownMetrics(t)
	for _, r := range rulesOf(t, "rules/firnline.yaml") {
		requireKnown(t, known, r.Record, r.Expr)
	}
}

// TestAlerts: each alert is about metrics and loops that there are, says all that it
// should, has its runbook, and a unit test in which it fires and one in which it does not.
func TestAlerts(t *testing.T) {
	known := knownMetrics(t)
	files, err := filepath.Glob("alerts/*.yaml")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, path := range files {
		component := strings.TrimSuffix(filepath.Base(path), ".yaml")
		page := component + ".md"
		if component == "common" {
			page = "runbooks.md"
		}
		books, fires, quiet := runbooks(t, page), map[string]bool{}, map[string]bool{}
		tested(t, filepath.Join("alerts/tests", filepath.Base(path)), fires, quiet)
		for _, a := range rulesOf(t, path) {
			require.False(t, names[a.Alert], "two alerts %s", a.Alert)
			names[a.Alert] = true
			a.check(t, known, page)
			require.True(t, books[a.Alert], "docs/%s has no runbook %s", page, a.Alert)
			require.True(t, fires[a.Alert] && quiet[a.Alert], "%s has no unit test that shows it firing and quiet", a.Alert)
			delete(books, a.Alert)
		}
		require.Empty(t, books, "runbooks of no alert in docs/%s", page)
	}
	require.Len(t, files, 7)
}

func (a rule) check(t *testing.T, known map[string]bool, page string) {
	requireKnown(t, known, a.Alert, a.Expr)
	require.Contains(t, []string{"warning", "critical"}, a.Labels["severity"], a.Alert)
	require.NotEmpty(t, a.Annotations["summary"], a.Alert)
	require.Contains(t, a.Annotations["description"], "{{ $", "%s: the description shows no value", a.Alert)
	require.Equal(t, "https://github.com/firnline/firnline/blob/main/docs/"+page+"#"+strings.ToLower(a.Alert), a.Annotations["runbook_url"])
	timed := strings.Contains(a.Expr, "increase(") || strings.Contains(a.Expr, "offset") // has a time of its own
	require.True(t, timed || time.Duration(a.For) >= 5*time.Minute, "%s: fires at the first wrong sample", a.Alert)
	for _, loop := range regexp.MustCompile(`loop!?="([^"]+)"`).FindAllStringSubmatch(a.Expr, -1) {
		code, err := os.ReadFile("../../pkg/compact/compact.go")
		require.NoError(t, err)
		require.Contains(t, string(code), `name: "`+loop[1]+`"`, "%s: there is no such loop", a.Alert)
	}
}

// runbooks are those that a page has.
func runbooks(t *testing.T, page string) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile(docs + page)
	require.NoError(t, err)
	_, book, found := strings.Cut(string(doc), "\n## Runbook\n")
	require.True(t, found, page)
	book, _, _ = strings.Cut(book, "\n## ")
	out := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(book, -1) {
		out[heading[1]] = true
	}
	return out
}

// tested notes which alerts a file of unit tests expects to fire, and which not.
func tested(t *testing.T, path string, fires, quiet map[string]bool) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string `yaml:"alertname"`
				ExpAlerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	for _, ts := range file.Tests {
		for _, a := range ts.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				quiet[a.Alertname] = true
			}
		}
	}
}

// TestMetricsInDocs: pages speak of metrics that there are.
func TestMetricsInDocs(t *testing.T) {
	known := knownMetrics(t)
	pages, err := filepath.Glob(docs + "*.md")
	require.NoError(t, err)
	for _, page := range pages {
		doc, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile("`(firnline_[a-z0-9_]+)").FindAllStringSubmatch(string(doc), -1) {
			named := known[m[1]] || slices.ContainsFunc([]string{"_bucket", "_sum", "_count"}, func(s string) bool {
				base, found := strings.CutSuffix(m[1], s)
				return found && known[base]
			})
			require.True(t, named, "%s: there is no metric %s", page, m[1])
		}
	}
}

// TestPromtool: Prometheus takes the rules, and they do what their unit tests say.
func TestPromtool(t *testing.T) {
	promtool, err := stack.Peer("prometheus", "promtool")
	require.NoError(t, err)
	for verb, patterns := range map[string][]string{"check": {"alerts/*.yaml", "rules/*.yaml"}, "test": {"alerts/tests/*.yaml", "rules/tests/*.yaml"}} {
		args := []string{verb, "rules"}
		for _, p := range patterns {
			files, err := filepath.Glob(p)
			require.NoError(t, err)
			require.NotEmpty(t, files)
			args = append(args, files...)
		}
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}
