package promapi

import "errors"

// errUnexpected is an answer of a shape that the HTTP API doesn't have.
var errUnexpected = errors.New("unexpected answer")

// orUnexpected returns err, or errUnexpected when it is nil.
func orUnexpected(err error) error {
	if err == nil {
		return errUnexpected
	}
	return err
}
