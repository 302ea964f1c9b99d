package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/storeapi"
)

// Info tells what all endpoints hold together.
func (f *Fanout) Info(context.Context) (storeapi.Info, error) {
	return describe(f.peers.Peers(), f.selector), nil
}

// Series streams the merged series of all endpoints that the selection concerns.
func (f *Fanout) Series(ctx context.Context, sel storeapi.Selection) (storeapi.SeriesSet, error) {
	if len(sel.Matchers) == 0 {
		return nil, fmt.Errorf("%w: no matchers", storeapi.ErrBadRequest)
	}
	rest, ok := block.MatchExternal(f.selector, sel.Matchers)
	if !ok {
		return storeapi.EmptySet(storeapi.Report{}), nil
	}
	if len(rest) == 0 {
		return nil, fmt.Errorf("%w: no matchers beside those of selector labels", storeapi.ErrBadRequest)
	}
	sel.Matchers = rest
	r, err := f.begin(ctx, sel.PartialResponse, func(list peersList) choice { return chooseStores(list, f.only, sel) })
	if err != nil {
		return nil, err
	}
	set := &series{request: r, limit: newLimiter(f.cfg)}
	streams := make([]storeapi.SeriesSet, 0, len(r.choice.ask))
	for _, p := range r.choice.ask {
		s := newStream(f, p, r.outcome)
		streams = append(streams, s)
		set.readers.Go(func() { s.read(r.ctx, sel) })
	}
	set.SeriesSet = storeapi.Limit(storeapi.Merge(streams...), sel.Limit)
	return set, nil
}

// series is the answer of Series.
type series struct {
	storeapi.SeriesSet // merged
	request            *request
	readers            sync.WaitGroup
	limit              *limiter
	err                error
	report             storeapi.Report
	ended              bool
}

func (s *series) Next() bool {
	if s.ended {
		return false
	}
	if s.SeriesSet.Next() {
		if s.err = s.limit.count(s.At()); s.err == nil {
			return true
		}
		s.request.fan.metrics.limited.Inc()
	}
	s.end()
	return false
}

// end settles what the set's end means.
func (s *series) end() {
	s.ended = true
	if s.err == nil {
		s.err = s.SeriesSet.Err()
	}
	if s.err == nil {
		s.report.Warnings, s.err = s.request.result()
	}
	s.Close()
}

func (s *series) Err() error              { return s.err }
func (s *series) Report() storeapi.Report { return s.report }

// Close stops all that is under way for the set and waits for it.
func (s *series) Close() {
	s.ended = true
	s.request.cancel(errClosed)
	s.SeriesSet.Close()
	s.readers.Wait()
}

var errClosed = errors.New("the request has ended")

// LabelNames returns the union of the endpoints' label names.
func (f *Fanout) LabelNames(ctx context.Context, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	without := sel.WithoutReplicaLabels // for endpoints that don't know this
	return f.union(ctx, "label_names", sel, func(ctx context.Context, s storeapi.Store, sel storeapi.Selection) ([]string, storeapi.Report, error) {
		names, report, err := s.LabelNames(ctx, sel)
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(without, n) })
		return names, report, err
	})
}

// LabelValues returns the union of the endpoints' values of a label. Of a
// replica label that is to be left out there are none.
func (f *Fanout) LabelValues(ctx context.Context, name string, sel storeapi.Selection) ([]string, storeapi.Report, error) {
	if name == "" {
		return nil, storeapi.Report{}, fmt.Errorf("%w: label name parameter cannot be empty", storeapi.ErrBadRequest)
	}
	if slices.Contains(sel.WithoutReplicaLabels, name) {
		return nil, storeapi.Report{}, nil
	}
	return f.union(ctx, "label_values", sel, func(ctx context.Context, s storeapi.Store, sel storeapi.Selection) ([]string, storeapi.Report, error) {
		return s.LabelValues(ctx, name, sel)
	})
}

type labelCall func(context.Context, storeapi.Store, storeapi.Selection) ([]string, storeapi.Report, error)

// union asks all endpoints that the selection concerns and unites their answers.
func (f *Fanout) union(ctx context.Context, name string, sel storeapi.Selection, call labelCall) ([]string, storeapi.Report, error) {
	rest, ok := block.MatchExternal(f.selector, sel.Matchers)
	if !ok {
		return nil, storeapi.Report{}, nil
	}
	limit := sel.Limit
	sel.Matchers, sel.Limit = rest, 0 // which of its names an endpoint would leave out is not ours to know
	r, err := f.begin(ctx, sel.PartialResponse, func(list peersList) choice { return chooseStores(list, f.only, sel) })
	if err != nil {
		return nil, storeapi.Report{}, err
	}
	answers, warnings, err := gather(r, name, func(ctx context.Context, p peer) ([]string, []string, error) {
		sel, _ := forPeer(sel, p.Info)
		names, report, err := call(ctx, p.Services.Store, sel)
		return names, report.Warnings, err
	})
	if err != nil {
		return nil, storeapi.Report{}, err
	}
	return firstSorted(answers, limit), storeapi.Report{Warnings: warnings}, nil
}

func (f *Fanout) responseTimeout() time.Duration { return time.Duration(f.cfg.ResponseTimeout) }
