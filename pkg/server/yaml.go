package server

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeStrict reads YAML; unknown keys are errors. Its errors say the line and
// speak of keys, not of Go types. Empty content is io.EOF.
func decodeStrict(content []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	err := dec.Decode(into)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		if !strings.HasPrefix(text, "line ") {
			text = "line 1: " + text // the parser leaves out the first
		}
		return errors.New(text)
	}
	unknown := regexp.MustCompile(`^(line \d+): field (\S+) not found in type .*$`)
	lines := make([]string, len(typed.Errors))
	for i, e := range typed.Errors {
		lines[i] = unknown.ReplaceAllString(e, `$1: unknown key "$2"`)
	}
	return errors.New(strings.Join(lines, "; "))
}
