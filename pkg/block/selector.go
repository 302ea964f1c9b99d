package block

import (
	"fmt"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"

	"github.com/firnline/firnline/pkg/content"
)

// parseSelector reads a list of relabel rules that choose blocks. Of relabelling
// only keep, drop and hashmod make sense for blocks; any other action is an error.
func parseSelector(text []byte) ([]*relabel.Config, error) {
	var rules []*relabel.Config
	if err := yaml.Unmarshal(text, &rules); err != nil {
		return nil, err
	}
	for i, r := range rules {
		if r == nil {
			return nil, fmt.Errorf("rule %d is empty", i+1)
		}
		switch r.Action {
		case relabel.Keep, relabel.Drop, relabel.HashMod:
		default:
			return nil, fmt.Errorf("rule %d: action %q can't select blocks; use keep, drop or hashmod", i+1, r.Action)
		}
		if err := r.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return rules, nil
}

// loadSelector takes the rules from a flag's text or from the file that another flag names.
func loadSelector(text, file string) ([]*relabel.Config, error) {
	given, source, err := content.Of("selector.relabel-config", text, file)
	if err != nil {
		return nil, err
	}
	rules, err := parseSelector(given)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return rules, nil
}
