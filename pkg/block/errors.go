package block

import "fmt"

// FirstError makes one error of many, of which any may be nil: in a storm they
// are all the same, so it wraps the first and counts the others.
func FirstError(errs []error) error {
	var first error
	n := 0
	for _, err := range errs {
		if err == nil {
			continue
		}
		if n++; first == nil {
			first = err
		}
	}
	if n > 1 {
		return fmt.Errorf("%w (and %d more)", first, n-1)
	}
	return first
}
