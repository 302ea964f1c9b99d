package reload

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Expand replaces each $(NAME) in s by what lookup knows of NAME. Names it
// doesn't know are listed in one error, each with its line; nothing is then
// replaced. A $ in front of anything else stays as it is.
func Expand(s string, lookup func(string) (string, bool)) (string, error) {
	var (
		out  strings.Builder
		errs []error
		last int
	)
	for _, m := range regexp.MustCompile(`\$\(([a-zA-Z_][a-zA-Z0-9_]*)\)`).FindAllStringSubmatchIndex(s, -1) {
		name := s[m[2]:m[3]]
		value, ok := lookup(name)
		if !ok {
			errs = append(errs, fmt.Errorf("line %d: environment variable %s is not set", 1+strings.Count(s[:m[0]], "\n"), name))
		}
		out.WriteString(s[last:m[0]])
		out.WriteString(value)
		last = m[1]
	}
	if len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	out.WriteString(s[last:])
	return out.String(), nil
}
