package block

import (
	"fmt"
	"os"
	"regexp"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"
)

// ParseSelector reads a list of relabel rules that choose blocks, with $(NAME)
// replaced by environment variables. Of relabelling only keep, drop and hashmod
// make sense for blocks; any other action is an error.
func ParseSelector(content string) ([]*relabel.Config, error) {
	content, err := expandEnv(content)
	if err != nil {
		return nil, err
	}
	var rules []*relabel.Config
	if err := yaml.Unmarshal([]byte(content), &rules); err != nil {
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

// loadSelector takes the rules from a flag's content or from the file that another flag names.
func loadSelector(content, file string) ([]*relabel.Config, error) {
	const flag = "selector.relabel-config"
	if content != "" && file != "" {
		return nil, fmt.Errorf("--%s and --%s-file exclude each other; give one", flag, flag)
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--%s-file: %w", flag, err)
		}
		content, flagged := string(data), "--"+flag+"-file "+file
		rules, err := ParseSelector(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flagged, err)
		}
		return rules, nil
	}
	rules, err := ParseSelector(content)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return rules, nil
}

// expandEnv replaces $(NAME); an unset variable is an error.
func expandEnv(s string) (string, error) {
	var missing string
	s = regexp.MustCompile(`\$\(([a-zA-Z_][a-zA-Z0-9_]*)\)`).ReplaceAllStringFunc(s, func(ref string) string {
		value, ok := os.LookupEnv(ref[2 : len(ref)-1])
		if !ok {
			missing = ref
		}
		return value
	})
	if missing != "" {
		return "", fmt.Errorf("environment variable of %s is not set", missing)
	}
	return s, nil
}
