package block

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Hider tells which samples delete requests ask for. It never changes and is
// safe for concurrent use; the nil Hider hides nothing.
type Hider struct{ rules []hideRule }

// hideRule is one selector of a request.
type hideRule struct {
	matchers   []*labels.Matcher
	mint, maxt int64 // both inclusive
}

// NewHider makes a Hider of requests, whatever their state. It is nil for none.
// The error wraps ErrInvalidDelete.
func NewHider(requests ...*DeleteRequest) (*Hider, error) {
	h := &Hider{}
	for _, r := range requests {
		sets, err := r.Matchers()
		if err != nil {
			return nil, fmt.Errorf("delete request %s: %w: %w", r.ID, ErrInvalidDelete, err)
		}
		for _, ms := range sets {
			h.rules = append(h.rules, hideRule{ms, r.MinTime, r.MaxTime})
		}
	}
	return h.orNil(), nil
}

func (h *Hider) orNil() *Hider {
	if len(h.rules) == 0 {
		return nil
	}
	return h
}

// For returns what is left to look at for series with the external labels ext
// between mint and maxt, ms, both inclusive; nil if that is nothing. It is asked
// once for many series: matchers that ext decides are not looked at again, so
// that Intervals of the result takes labels with the external ones or without.
func (h *Hider) For(mint, maxt int64, ext labels.Labels) *Hider {
	if h == nil {
		return nil
	}
	out := &Hider{}
	for _, r := range h.rules {
		if r.mint > maxt || mint > r.maxt {
			continue
		}
		rest, ok := MatchExternal(ext, r.matchers)
		if ok {
			out.rules = append(out.rules, hideRule{rest, r.mint, r.maxt})
		}
	}
	return out.orNil()
}

// Without leaves out the selectors that speak of one of the labels named: for
// series that have lost these labels they can't be decided.
func (h *Hider) Without(names []string) *Hider {
	if h == nil || len(names) == 0 {
		return h
	}
	out := &Hider{}
	for _, r := range h.rules {
		if !slices.ContainsFunc(r.matchers, func(m *labels.Matcher) bool { return slices.Contains(names, m.Name) }) {
			out.rules = append(out.rules, r)
		}
	}
	return out.orNil()
}

// Intervals returns when the samples of a series are to be hidden: sorted, apart,
// both ends inclusive. lset are all its labels, external ones included.
func (h *Hider) Intervals(lset labels.Labels) tombstones.Intervals {
	if h == nil {
		return nil
	}
	var out tombstones.Intervals
	for _, r := range h.rules {
		if matchesAll(r.matchers, lset) {
			out = out.Add(tombstones.Interval{Mint: r.mint, Maxt: r.maxt})
		}
	}
	return out
}

func matchesAll(ms []*labels.Matcher, lset labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}
