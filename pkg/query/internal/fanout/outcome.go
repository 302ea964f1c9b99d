package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

// outcome gathers what goes wrong in one request over several endpoints, and
// decides what becomes a warning and what an error. It is safe for concurrent use.
type outcome struct {
	concerned int  // endpoints
	partial   bool // go on without an endpoint
	cancel    context.CancelCauseFunc

	mu struct {
		sync.Mutex
		warnings []string
		failures []error // one for each endpoint that failed
		err      error   // ends the request
	}
}

func newOutcome(c choice, partial bool, cancel context.CancelCauseFunc) *outcome {
	o := &outcome{concerned: c.size(), partial: partial, cancel: cancel}
	for _, p := range c.down {
		o.fail(named(p, p.Down))
	}
	return o
}

// named adds the name of an endpoint to what was found out about it here. What
// the endpoint says itself has the name already.
func named(p endpoint.Peer, err error) error { return fmt.Errorf("endpoint %s: %w", p.Name, err) }

// fail notes that an endpoint could not be asked or did not answer in full. The error names it.
func (o *outcome) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.failures = append(o.mu.failures, err)
	if o.partial && !errors.Is(err, storeapi.ErrLimit) {
		o.mu.warnings = append(o.mu.warnings, err.Error())
		return
	}
	o.end(err)
}

// warn notes warnings that an endpoint told, which name it. Where the request wants all or
// nothing, they are its end: something below is missing.
func (o *outcome) warn(warnings []string) {
	if len(warnings) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range warnings {
		if !o.partial {
			o.end(fmt.Errorf("%w: %s", storeapi.ErrPartial, w))
			return
		}
		o.mu.warnings = append(o.mu.warnings, w)
	}
}

// end makes err the end of the request and stops all that is under way. The lock is held.
func (o *outcome) end(err error) {
	if o.mu.err != nil {
		return
	}
	if !isOf(err, storeapi.ErrLimit, storeapi.ErrBadRequest, storeapi.ErrCorrupt, storeapi.ErrPartial) {
		// The cause as text alone: an endpoint's timeout, say, is not the request's.
		err = fmt.Errorf("%w: %s", storeapi.ErrPartial, err.Error())
	}
	o.mu.err = err
	o.cancel(err)
}

// isOf tells whether err is of one of the kinds.
func isOf(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// fatal returns the error that has ended the request, if any.
func (o *outcome) fatal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.err
}

// result returns the warnings and the error of a request that has come to its
// end. Without a single endpoint that answered, there is no partial answer.
func (o *outcome) result() ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.err != nil {
		return nil, o.mu.err
	}
	if o.concerned > 0 && len(o.mu.failures) == o.concerned {
		return nil, noneAnswered(o.mu.failures)
	}
	warnings := slices.Clone(o.mu.warnings)
	slices.Sort(warnings)
	return slices.Compact(warnings), nil
}

// noneAnswered returns the error of a request that no endpoint has answered: a
// bad request if all of them call it so, else it is they who are unavailable.
func noneAnswered(failures []error) error {
	kind := storeapi.ErrBadRequest
	var texts []string
	for _, err := range failures {
		texts = append(texts, err.Error())
		if !errors.Is(err, storeapi.ErrBadRequest) {
			kind = storeapi.ErrUnavailable
		}
	}
	slices.Sort(texts)
	return fmt.Errorf("%w: no endpoint answered: %s", kind, strings.Join(texts, "; "))
}
