// Package tenant says who is asking: the rules of tenant IDs, and how one is
// carried in a context. A tenant enters at the front door and marks the blocks
// of its data; nothing else names it.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ID names a tenant. Only Parse makes one from what a client sent, so an ID is
// fit for a folder's name.
type ID string

// Default is the tenant of those who name none.
const Default ID = "default-tenant"

// maxLength is that of an ID in bytes.
const maxLength = 150

// ErrInvalid is wrapped by every error of Parse.
var ErrInvalid = errors.New("invalid tenant")

// Parse checks a tenant's name: 1 to 150 of a-z A-Z 0-9 ! _ . * ' ( ) -, not
// "." or "..", and none that is reserved ("firnline", "debug", and what begins with "__").
func Parse(s string) (ID, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("%w: it is empty", ErrInvalid)
	case len(s) > maxLength:
		return "", fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrInvalid, len(s), maxLength)
	case s == "." || s == ".." || s == "firnline" || s == "debug" || strings.HasPrefix(s, "__"):
		return "", fmt.Errorf("%w: %q is reserved", ErrInvalid, s)
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return "", fmt.Errorf("%w: %q has %q at position %d; letters, digits and !_.*'()- are allowed", ErrInvalid, s, s[i], i)
		}
	}
	return ID(s), nil
}

func allowed(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!_.*'()-", c) >= 0
}

type contextKey struct{}

// NewContext returns a context that carries id.
func NewContext(ctx context.Context, id ID) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext returns the tenant that ctx carries.
func FromContext(ctx context.Context) (ID, bool) {
	id, ok := ctx.Value(contextKey{}).(ID)
	return id, ok
}
