package tools

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// RuleFile is what checking a file of rules came to.
type RuleFile struct {
	Path      string   `json:"path"`
	Groups    int      `json:"groups"`
	Recording int      `json:"recording_rules"`
	Alerting  int      `json:"alerting_rules"`
	Errors    []string `json:"errors"`
}

// CheckRules reads a file of Prometheus' rules; Thanos' partial_response_strategy
// may stand in its groups. Everything that is wrong is in the result.
func CheckRules(path string) RuleFile {
	out := RuleFile{Path: path, Errors: []string{}}
	data, err := os.ReadFile(path)
	if err != nil {
		out.Errors = append(out.Errors, err.Error())
		return out
	}
	data, err = withoutStrategy(data)
	if err != nil {
		out.Errors = append(out.Errors, fmt.Sprintf("%s: %s", path, err))
	}
	p := parser.NewParser(parser.Options{EnableExperimentalFunctions: true})
	groups, errs := rulefmt.Parse(data, false, model.UTF8Validation, p, slog.New(slog.NewTextHandler(io.Discard, nil)))
	for _, err := range errs {
		out.Errors = append(out.Errors, fmt.Sprintf("%s: %s", path, err))
	}
	if groups != nil {
		out.count(groups)
	}
	return out
}

// strategy is a line of Thanos' ruler.
var strategy = regexp.MustCompile(`(?m)^(\s*(?:- )?)partial_response_strategy:[ \t]*("?)(\w*)("?)[ \t]*(?:#.*)?$`)

var errStrategy = errors.New("partial_response_strategy: want warn or abort")

// withoutStrategy takes what Prometheus does not know out, and leaves the lines.
func withoutStrategy(data []byte) ([]byte, error) {
	var err error
	data = strategy.ReplaceAllFunc(data, func(line []byte) []byte {
		m := strategy.FindSubmatch(line)
		if v := string(bytes.ToLower(m[3])); v != "warn" && v != "abort" {
			err = errStrategy
		}
		if bytes.Contains(m[1], []byte("- ")) {
			return m[1] // the group's other keys follow
		}
		return nil
	})
	return data, err
}

// count counts rules, and looks for those that write the same series twice.
func (f *RuleFile) count(groups *rulefmt.RuleGroups) {
	seen := map[string]bool{}
	for _, g := range groups.Groups {
		f.Groups++
		for _, r := range g.Rules {
			if r.Alert != "" {
				f.Alerting++
				continue
			}
			f.Recording++
			key := r.Record + labels.FromMap(r.Labels).String()
			if seen[key] {
				f.Errors = append(f.Errors, fmt.Sprintf("%s: group %q: rule %q is there twice with the same labels: they write the same series", f.Path, g.Name, r.Record))
			}
			seen[key] = true
		}
	}
}
