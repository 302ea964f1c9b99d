package content

import (
	"errors"
	"fmt"
	"strings"
)

// Name says of an error where it is from. Of several that were joined it says so
// of each, since each is shown on a line of its own.
func Name(source string, err error) error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // this one, not one below
	if !ok {
		return fmt.Errorf("%s: %w", source, err)
	}
	var texts []string
	var named []error
	for _, e := range joined.Unwrap() {
		texts = append(texts, e.Error())
		named = append(named, Name(source, e))
	}
	if err.Error() != strings.Join(texts, "\n") { // a sentence with several errors in it
		return fmt.Errorf("%s: %w", source, err)
	}
	return errors.Join(named...)
}
