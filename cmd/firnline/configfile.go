package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readFile sets flags from a configuration file: a mapping from names to
// values. A list sets a repeated flag; a mapping is the YAML that flags such as
// objstore.config take. Unknown keys are errors; all errors are returned, with their lines.
func (f *flags) readFile(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--%s: %w", configFlag, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(content, &doc); err != nil {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if !strings.HasPrefix(text, "line ") {
			text = "line 1: " + text // the parser leaves out the first
		}
		return fmt.Errorf("--%s: %s: %s", configFlag, path, text)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("--%s: %s:%d: want a mapping of flag names to values", configFlag, path, root.Line)
	}
	var errs []error
	seen := map[string]bool{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if err := f.setFromFile(key.Value, value, seen); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %s:%d: %w", configFlag, path, key.Line, err))
		}
	}
	return errors.Join(errs...)
}

func (f *flags) setFromFile(name string, value *yaml.Node, seen map[string]bool) error {
	fl := f.set.Lookup(name)
	if fl == nil || name == configFlag {
		return fmt.Errorf("unknown flag %q%s", name, didYouMean("", name, f.names()))
	}
	if seen[name] {
		return fmt.Errorf("%s is set twice", name)
	}
	seen[name] = true
	if from := f.origin[identity(fl)]; from == "flag" || from == "env" {
		return nil
	}
	values, err := fileValues(fl, value)
	if err != nil {
		return err
	}
	if err := f.assign(fl, "file", values); err != nil {
		return fmt.Errorf("invalid value for --%s: %w", name, err)
	}
	return nil
}

// fileValues turns a YAML value into what the flag would be given on the command line.
func fileValues(fl *flag.Flag, n *yaml.Node) ([]string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, fmt.Errorf("%s has no value", fl.Name)
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind == yaml.MappingNode:
		text, err := yaml.Marshal(n)
		return []string{string(text)}, err
	case !repeatable(fl.Value):
		return nil, fmt.Errorf("%s takes one value, not a list", fl.Name)
	}
	var out []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, fmt.Errorf("%s: want a list of plain values", fl.Name)
		}
		out = append(out, item.Value)
	}
	return slices.Clip(out), nil
}
