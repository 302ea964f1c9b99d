package limits

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// Selector is a series selector of PromQL without a range, as in {job="a"}.
type Selector struct {
	text     string
	matchers []*labels.Matcher
}

// ParseSelector reads a selector.
func ParseSelector(text string) (Selector, error) {
	m, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
	if err != nil {
		return Selector{}, fmt.Errorf("selector %q: %w", text, err)
	}
	return Selector{text, m}, nil
}

// Matches tells whether a series is selected.
func (s *Selector) Matches(l labels.Labels) bool {
	for _, m := range s.matchers {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

func (s Selector) String() string { return s.text }

// UnmarshalYAML reads a selector and says the line of a wrong one.
func (s *Selector) UnmarshalYAML(n *yaml.Node) error {
	read, err := ParseSelector(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: a series selector is wanted: %v", n.Line, err)}}
	}
	*s = read
	return nil
}

// MarshalYAML writes what was read.
func (s Selector) MarshalYAML() (any, error) { return s.text, nil }

// Matchers is named lists of selectors; a series counts for a name if one of them matches.
type Matchers map[string][]Selector

// Names in the order of their bits in Mask.
func (m Matchers) Names() []string { return slices.Sorted(maps.Keys(m)) }

// Mask has a bit for each of names, as Names gives them, that the series counts for.
func (m Matchers) Mask(names []string, l labels.Labels) uint64 {
	var mask uint64
	for bit, name := range names {
		for _, s := range m[name] {
			if s.Matches(l) {
				mask |= 1 << bit
				break
			}
		}
	}
	return mask
}
