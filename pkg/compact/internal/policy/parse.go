package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// A policy file is YAML:
//
//	tenant_label: tenant_id     # the external label that names a tenant
//	rules:                      # the first that matches a series counts
//	- selectors: ['{namespace="dev"}']
//	  raw: 7d                   # as in 15d, 1y; 0d or forever: no end; left out: as the flags say
//	  5m: 30d
//	  1h: 1y
//	- tenant: team-a
//	  raw: 90d
type file struct {
	TenantLabel text       `yaml:"tenant_label"`
	Rules       []fileRule `yaml:"rules"`
}

type fileRule struct {
	at        int
	Tenant    text     `yaml:"tenant"`
	Selectors []text   `yaml:"selectors"`
	Raw       duration `yaml:"raw"`
	Five      duration `yaml:"5m"`
	Hour      duration `yaml:"1h"`
}

// text is a string that knows its line.
type text struct {
	value string
	line  int
}

func (t *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return mistake(n, "a text is wanted here")
	}
	*t = text{n.Value, n.Line}
	return nil
}

type duration struct {
	value time.Duration
	set   bool
}

func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return mistake(n, "a duration such as 30d is wanted here")
	}
	if n.Value == "forever" {
		*d = duration{set: true}
		return nil
	}
	v, err := model.ParseDuration(n.Value)
	if err != nil {
		return mistake(n, fmt.Sprintf("%q is no duration; write such as 7d, 1y, or forever", n.Value))
	}
	*d = duration{value: time.Duration(v), set: true}
	return nil
}

func (d duration) or(fallback time.Duration) time.Duration {
	if d.set {
		return d.value
	}
	return fallback
}

// mistake is an error in the form in which the decoder collects them.
func mistake(n *yaml.Node, what string) error {
	return &yaml.TypeError{Errors: []string{lineError{n.Line, what}.Error()}}
}

// lineError is what is wrong in a line of the file.
type lineError struct {
	line int
	what string
}

func (e lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.what) }

// Parse reads a policy file. What a rule leaves out is as in defaults. An error
// names each wrong place, as in "retention.yaml:7: …", name being the file's.
func Parse(name string, data []byte, defaults Tiers) (*Policy, error) {
	f, err := decode(data)
	if err != nil {
		return nil, located(name, err)
	}
	p := &Policy{Name: name, Default: defaults, TenantLabel: DefaultTenantLabel}
	if f.TenantLabel.value != "" {
		p.TenantLabel = f.TenantLabel.value
	}
	var wrong []error
	if !model.UTF8Validation.IsValidLabelName(p.TenantLabel) {
		wrong = append(wrong, lineError{f.TenantLabel.line, fmt.Sprintf("tenant_label: %q is no label name", p.TenantLabel)})
	}
	for i := range f.Rules {
		r, errs := f.Rules[i].rule(defaults)
		p.Rules = append(p.Rules, r)
		wrong = append(wrong, errs...)
	}
	if len(wrong) > 0 {
		return nil, located(name, wrong...)
	}
	return p, nil
}

// decode reads the one document of a file; an empty one has no rules.
func decode(data []byte) (file, error) {
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&root); {
	case errors.Is(err, io.EOF):
		return file{}, nil
	case err != nil:
		return file{}, err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return file{}, errors.New("there is more than one document; one is wanted")
	}

	var f file
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return file{}, err
	}
	for i, line := range ruleLines(&root) {
		if i < len(f.Rules) {
			f.Rules[i].at = line
		}
	}
	return f, nil
}

// ruleLines finds where each rule begins.
func ruleLines(root *yaml.Node) []int {
	if len(root.Content) == 0 {
		return nil
	}
	top := root.Content[0]
	var out []int
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != "rules" {
			continue
		}
		for _, rule := range top.Content[i+1].Content {
			out = append(out, rule.Line)
		}
	}
	return out
}

func (f *fileRule) rule(defaults Tiers) (Rule, []error) {
	r := Rule{
		Tenant: f.Tenant.value,
		Line:   f.at,
		Tiers:  Tiers{Raw: f.Raw.or(defaults.Raw), FiveMinutes: f.Five.or(defaults.FiveMinutes), OneHour: f.Hour.or(defaults.OneHour)},
	}
	var wrong []error
	if r.Tenant == "" && len(f.Selectors) == 0 {
		wrong = append(wrong, lineError{f.at, "a rule needs a tenant or selectors; what is for all is set by flags"})
	}
	if !f.Raw.set && !f.Five.set && !f.Hour.set {
		wrong = append(wrong, lineError{f.at, "a rule needs at least one of raw, 5m and 1h"})
	}
	for _, s := range f.Selectors {
		ms, err := ParseSelector(s.value)
		if err != nil {
			wrong = append(wrong, lineError{s.line, fmt.Sprintf("selector %q: %v", s.value, err)})
			continue
		}
		r.Selectors = append(r.Selectors, s.value)
		r.Matchers = append(r.Matchers, ms)
	}
	return r, wrong
}

// ParseSelector reads a PromQL vector selector.
func ParseSelector(s string) ([]*labels.Matcher, error) {
	return parser.NewParser(parser.Options{}).ParseMetricSelector(s)
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	goType   = regexp.MustCompile(` in type policy\.\w+| into policy\.\w+| into \[\]policy\.\w+`)
)

// located turns the lines that errors name into "<name>:<line>: ".
func located(name string, errs ...error) error {
	var out []error
	for _, err := range errs {
		var several *yaml.TypeError
		if errors.As(err, &several) {
			for _, one := range several.Errors {
				out = append(out, atLine(name, one))
			}
			continue
		}
		out = append(out, atLine(name, err.Error()))
	}
	return errors.Join(out...)
}

func atLine(name, message string) error {
	message, _, _ = strings.Cut(goType.ReplaceAllString(message, ""), "\n")
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			return fmt.Errorf("%s:%d: %s", name, line, m[2])
		}
	}
	return fmt.Errorf("%s: %s", name, strings.TrimPrefix(message, "yaml: "))
}
