// Package content is what operators give as text: by a flag, or by the file that
// a second flag names, with environment variables in it.
package content

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Of returns what the operator gave by a pair of flags --name (the text itself)
// and --name-file (the path of a file that has it), with $(ENV) replaced, and
// how to call its source in errors. Neither given: nil. Both given, an
// unreadable file and a variable that is not set are errors that name the flag.
func Of(name, text, file string) (content []byte, source string, err error) {
	source = "--" + name
	switch {
	case text != "" && file != "":
		return nil, source, fmt.Errorf("--%s and --%s-file exclude each other; give one of them", name, name)
	case file != "":
		source = fmt.Sprintf("--%s-file: %s", name, file)
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, source, fmt.Errorf("--%s-file: %w", name, err)
		}
		text = string(b)
	case text == "":
		return nil, source, nil
	}
	text, err = Expand(text, os.LookupEnv)
	if err != nil {
		return nil, source, fmt.Errorf("%s: %w", source, err)
	}
	return []byte(text), source, nil
}

// Expand replaces each $(NAME) in s by what lookup knows of NAME. All names
// that it doesn't know are listed in one error, each with its line.
// What is not of that form, a lone $ too, stays as it is.
func Expand(s string, lookup func(string) (string, bool)) (string, error) {
	var errs []error
	out := s
	marks := regexp.MustCompile(`\$\(([a-zA-Z_][a-zA-Z0-9_]*)\)`).FindAllStringSubmatchIndex(s, -1)
	for _, m := range slices.Backward(marks) { // from the end, so that offsets stay right
		name := s[m[2]:m[3]]
		value, ok := lookup(name)
		if !ok {
			line := 1 + strings.Count(s[:m[0]], "\n")
			errs = append(errs, fmt.Errorf("line %d: environment variable %s is not set", line, name))
			continue
		}
		out = out[:m[0]] + value + out[m[1]:]
	}
	if len(errs) > 0 {
		slices.Reverse(errs)
		return "", errors.Join(errs...)
	}
	return out, nil
}
