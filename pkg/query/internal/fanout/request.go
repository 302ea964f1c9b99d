package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

type (
	peer      = endpoint.Peer
	peersList = []endpoint.Peer
)

// request is one request over several endpoints.
type request struct {
	fan     *Fanout
	ctx     context.Context // of the calls; a request is as short as a call, and hands it to several
	cancel  context.CancelCauseFunc
	choice  choice
	outcome *outcome
	notes   []string // warnings of its own
	partial bool
}

// begin decides whom a request concerns. It fails where the request is refused,
// or wants all and some endpoint is down.
func (f *Fanout) begin(ctx context.Context, partial bool, choose func(peersList) choice) (*request, error) {
	list := f.peers.Peers()
	r := &request{fan: f, partial: partial}
	if len(list) == 0 {
		if !partial {
			return nil, fmt.Errorf("%w: no endpoint is registered (--endpoint)", storeapi.ErrUnavailable)
		}
		r.notes = append(r.notes, "no endpoint is registered (--endpoint): there is nothing to answer from")
	}
	ctx, err := f.hop(ctx)
	if err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.choice = choose(list)
	r.outcome = newOutcome(r.choice, partial, r.cancel)
	if err := r.outcome.fatal(); err != nil {
		return nil, err
	}
	return r, nil
}

// result returns the warnings and the error of a request that has come to its end.
func (r *request) result() ([]string, error) {
	if err := context.Cause(r.ctx); err != nil && r.outcome.fatal() == nil {
		return nil, err
	}
	warnings, err := r.outcome.result()
	if len(warnings) > 0 {
		r.fan.metrics.partial.Inc()
	}
	return append(r.notes, warnings...), err
}

// gather makes one call of each endpoint asked, all at once, and returns the
// answers of those that gave one.
func gather[T any](r *request, name string, call func(context.Context, peer) (T, []string, error)) ([]T, []string, error) {
	answers := make([]*T, len(r.choice.ask))
	var wg sync.WaitGroup
	for i, p := range r.choice.ask {
		wg.Go(func() {
			done := r.fan.metrics.begin(name)
			ctx, w := newWatch(r.ctx, r.fan.responseTimeout())
			defer w.close()
			answer, warnings, err := call(ctx, p)
			err = w.explain(ctx, p, err)
			if r.ctx.Err() != nil {
				done(context.Canceled)
				return
			}
			done(err)
			if err != nil {
				r.outcome.fail(err)
				return
			}
			r.outcome.warn(warnings)
			answers[i] = &answer
		})
	}
	wg.Wait()
	warnings, err := r.result()
	r.cancel(errClosed)
	if err != nil {
		return nil, nil, err
	}
	var got []T
	for _, a := range answers {
		if a != nil {
			got = append(got, *a)
		}
	}
	return got, warnings, nil
}

// firstSorted returns what stands in any of the lists, sorted, each once, and of
// that the first limit (0: all).
func firstSorted(lists [][]string, limit int) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = slices.Clip(all[:limit])
	}
	return all
}

// resultOf names the result of a call in metrics.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errSilent), errors.Is(err, errBudget), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "error"
}
