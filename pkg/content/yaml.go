package content

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DecodeYAML reads one document; unknown keys are errors. Its errors are those
// of YAMLError. Empty content is io.EOF.
func DecodeYAML(content []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	err := dec.Decode(into)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return YAMLError(err)
}

// YAMLError makes an error of the decoder say the line first and speak of keys,
// not of Go types.
func YAMLError(err error) error {
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
