package tools

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// Usage knows which metrics somebody asks for: dashboards, rules, and what was
// queried. In doubt a metric is in use.
type Usage struct {
	names    map[string]bool
	patterns []*labels.Matcher // of names
	words    map[string]bool   // of expressions that could not be parsed
	// Expressions that name no metric, such as {job="a"}: they may mean any.
	Nameless []string
	Parsed   int // expressions
	Unclear  int // of them, could not be parsed: every word in them counts as a metric
}

// Uses tells whether a metric is asked for.
func (u *Usage) Uses(metric string) bool {
	if u.names[metric] || u.words[metric] {
		return true
	}
	return slices.ContainsFunc(u.patterns, func(m *labels.Matcher) bool { return m.Matches(metric) })
}

// variable is what Grafana fills in: ${name}, ${name:format}, $name, [[name]].
var (
	durationVariable = regexp.MustCompile(`\[(\$\{?[a-zA-Z_][a-zA-Z0-9_:]*\}?)(:[^\]]*)?\]`)
	variable         = regexp.MustCompile(`\$\{[^}]+\}|\[\[[^\]]+\]\]|\$[a-zA-Z_][a-zA-Z0-9_]*`)
	word             = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
)

// Expr adds an expression, with Grafana's variables in it or without.
func (u *Usage) Expr(expr string) {
	if u.names == nil {
		u.names, u.words = map[string]bool{}, map[string]bool{}
	}
	u.Parsed++
	text := durationVariable.ReplaceAllString(expr, "[5m]")
	e, err := parser.NewParser(parser.Options{EnableExperimentalFunctions: true}).ParseExpr(variable.ReplaceAllString(text, "1"))
	if err != nil || variable.MatchString(text) && nameHasVariable(text) {
		u.Unclear++
		u.unclear(text)
		return
	}
	named := true
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok && !u.selector(v) {
			named = false
		}
		return nil
	})
	if !named {
		u.Nameless = append(u.Nameless, expr)
	}
}

// nameHasVariable tells that a metric's name is made of a variable, such as
// node_${what}_total: what it may be nobody knows.
func nameHasVariable(text string) bool {
	for _, at := range variable.FindAllStringIndex(text, -1) {
		before := at[0] > 0 && isWord(text[at[0]-1])
		after := at[1] < len(text) && isWord(text[at[1]])
		if before || after {
			return true
		}
	}
	return false
}

func isWord(c byte) bool {
	return c == '_' || c == ':' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// selector adds the name that a selector asks for; false: it asks for none.
func (u *Usage) selector(v *parser.VectorSelector) bool {
	for _, m := range v.LabelMatchers {
		if m.Name != model.MetricNameLabel {
			continue
		}
		switch m.Type {
		case labels.MatchEqual:
			u.names[m.Value] = true
			return true
		case labels.MatchRegexp:
			u.patterns = append(u.patterns, m)
			return true
		}
	}
	return false
}

// unclear takes every word of an expression for a metric, and what stands beside
// a variable for a part of one.
func (u *Usage) unclear(text string) {
	for _, part := range regexp.MustCompile(`[a-zA-Z0-9_:]*(?:\$\{[^}]+\}|\[\[[^\]]+\]\]|\$[a-zA-Z_][a-zA-Z0-9_]*)[a-zA-Z0-9_:]*`).FindAllString(text, -1) {
		pattern, last := "", 0
		for _, at := range variable.FindAllStringIndex(part, -1) {
			pattern += regexp.QuoteMeta(part[last:at[0]]) + ".*"
			last = at[1]
		}
		pattern += regexp.QuoteMeta(part[last:])
		if strings.Trim(pattern, ".*") == "" {
			continue // the variable alone may be a label's value
		}
		if m, err := labels.NewMatcher(labels.MatchRegexp, model.MetricNameLabel, pattern); err == nil {
			u.patterns = append(u.patterns, m)
		}
	}
	for _, w := range word.FindAllString(text, -1) {
		u.words[w] = true
	}
}

// Dashboard adds every expression of a Grafana dashboard: panels, variables, annotations.
func (u *Usage) Dashboard(data []byte) error {
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	u.walk(doc, "")
	return nil
}

// functions by which variables of a dashboard ask.
var variableQuery = regexp.MustCompile(`^(?:label_values|query_result|metrics)\((.*)\)$`)

func (u *Usage) walk(n any, key string) {
	switch n := n.(type) {
	case map[string]any:
		for k, v := range n {
			u.walk(v, k)
		}
	case []any:
		for _, v := range n {
			u.walk(v, key)
		}
	case string:
		if n == "" || key != "expr" && key != "query" && key != "definition" {
			return
		}
		if m := variableQuery.FindStringSubmatch(strings.TrimSpace(n)); m != nil {
			u.unclearIn(m[1])
		} else if key == "expr" {
			u.Expr(n)
		} else if strings.ContainsAny(n, "({") {
			u.unclearIn(n)
		}
	}
}

// unclearIn adds the words of something that isn't PromQL alone.
func (u *Usage) unclearIn(text string) {
	if u.names == nil {
		u.names, u.words = map[string]bool{}, map[string]bool{}
	}
	u.unclear(text)
}

// Rules adds every expression of a rule file.
func (u *Usage) Rules(data []byte) error {
	var doc struct {
		Groups []struct {
			Rules []struct{ Expr string }
		}
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	for _, g := range doc.Groups {
		for _, r := range g.Rules {
			u.Expr(r.Expr)
		}
	}
	return nil
}

// QueryLog adds every query of a log of queries: a JSON object a line, Prometheus'
// (params.query) or ours (query).
func (u *Usage) QueryLog(r io.Reader) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	seen := map[string]bool{}
	n := 0
	for s.Scan() {
		n++
		var entry struct {
			Query  string
			Params struct{ Query string }
		}
		if strings.TrimSpace(s.Text()) == "" {
			continue
		}
		if err := json.Unmarshal(s.Bytes(), &entry); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		for _, q := range []string{entry.Query, entry.Params.Query} {
			if q != "" && !seen[q] {
				seen[q] = true
				u.Expr(q)
			}
		}
	}
	return s.Err()
}

// Files adds files, or all below folders with one of the endings, by read.
func (u *Usage) Files(path string, endings []string, read func([]byte) error) error {
	found := false
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name != path && !slices.Contains(endings, filepath.Ext(name)) {
			return err
		}
		found = true
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := read(data); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err == nil && !found {
		return fmt.Errorf("%s: %w with %s", path, errNoFiles, strings.Join(endings, " or "))
	}
	return err
}

var errNoFiles = errors.New("no files")

// Unused are the metrics that nobody asks for, those that take most bytes first.
func (u *Usage) Unused(metrics []MetricCost) []MetricCost {
	out := []MetricCost{}
	for _, m := range metrics {
		if m.Name != "" && !u.Uses(m.Name) {
			out = append(out, m)
		}
	}
	return out
}

// DropRules are the relabel rules that keep metrics away, ready to be pasted into
// a scrape configuration.
func DropRules(metrics []MetricCost) string {
	if len(metrics) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("metric_relabel_configs:\n")
	const atOnce = 20 // names in a rule, so that it can be read
	for names := range slices.Chunk(metrics, atOnce) {
		var quoted []string
		for _, m := range names {
			quoted = append(quoted, regexp.QuoteMeta(m.Name))
		}
		fmt.Fprintf(&b, "  - source_labels: [__name__]\n    regex: '%s'\n    action: drop\n", strings.ReplaceAll(strings.Join(quoted, "|"), "'", "''"))
	}
	return b.String()
}
