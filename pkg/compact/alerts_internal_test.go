package compact

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// alert is a rule of deploy/alerts/compact.yaml.
type alert struct {
	Name        string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         model.Duration    `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// TestAlerts: each alert is about metrics and loops that there are, says all
// that it should, and has its runbook in docs/compact.md.
func TestAlerts(t *testing.T) {
	data, err := os.ReadFile("../../deploy/alerts/compact.yaml")
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	doc, err := os.ReadFile("../../docs/compact.md")
	require.NoError(t, err)
	metrics, runbooks := exported(), map[string]bool{}
	_, book, _ := strings.Cut(string(doc), "\n## Runbook\n")
	for _, heading := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(book, -1) {
		runbooks[heading[1]] = true
	}
	for _, g := range file.Groups {
		for _, a := range g.Rules {
			a.check(t, metrics)
			require.True(t, runbooks[a.Name], "%s has no runbook", a.Name)
			delete(runbooks, a.Name)
		}
	}
	require.Empty(t, runbooks, "runbooks of no alert")
}

func (a alert) check(t *testing.T, metrics map[string]bool) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(a.Expr)
	require.NoError(t, err, a.Name)
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			require.True(t, metrics[s.Name], "%s: there is no metric %s", a.Name, s.Name)
			a.checkLoop(t, s.LabelMatchers)
		}
		return nil
	})
	require.Contains(t, []string{"warning", "critical"}, a.Labels["severity"], a.Name)
	require.NotEmpty(t, a.Annotations["summary"], a.Name)
	require.Contains(t, a.Annotations["description"], "{{ $", "%s: the description shows no value", a.Name)
	require.Equal(t, "https://github.com/firnline/firnline/blob/main/docs/compact.md#"+strings.ToLower(a.Name), a.Annotations["runbook_url"])
	counts := strings.Contains(a.Expr, "increase(") // has a time of its own
	require.True(t, counts || time.Duration(a.For) >= 5*time.Minute, "%s: fires at the first wrong sample", a.Name)
}

// checkLoop holds names of loops against the code.
func (a alert) checkLoop(t *testing.T, ms []*labels.Matcher) {
	code, err := os.ReadFile("compact.go")
	require.NoError(t, err)
	for _, m := range ms {
		if m.Name == "loop" {
			require.Contains(t, string(code), `name: "`+m.Value+`"`, "%s: there is no such loop", a.Name)
		}
	}
}

// exported are the names of all series that a compactor may have.
func exported() map[string]bool {
	reg := prometheus.NewRegistry()
	newMetrics(reg)
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		reg.Describe(descs)
	}()
	name, out := regexp.MustCompile(`fqName: "([^"]+)"`), map[string]bool{}
	for d := range descs {
		out[name.FindStringSubmatch(d.String())[1]] = true
	}
	return out
}
