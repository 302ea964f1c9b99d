package fanout

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

// addressLabel is the label that stands for an endpoint's name in storeMatch[].
const addressLabel = "__address__"

// choice is whom a request concerns: whom to ask, and who is down and leaves a hole.
type choice struct {
	ask, down []endpoint.Peer
}

// size is the number of endpoints that the request concerns.
func (c choice) size() int { return len(c.ask) + len(c.down) }

// add puts p where it belongs.
func (c *choice) add(p endpoint.Peer) {
	if p.Down != nil {
		c.down = append(c.down, p)
	} else {
		c.ask = append(c.ask, p)
	}
}

// chooseStores decides which endpoints may hold series of a selection, by what
// they told of their labels and times. One that has told nothing yet may hold
// anything. Order is kept.
func chooseStores(list []endpoint.Peer, only [][]*labels.Matcher, sel storeapi.Selection) (c choice) {
	for _, p := range list {
		if isOne(p, only) && mayHold(p, sel) {
			c.add(p)
		}
	}
	return c
}

// chooseService decides which endpoints may answer another service than Store.
func chooseService(list []endpoint.Peer, only [][]*labels.Matcher, serves func(storeapi.ServiceSet) bool) (c choice) {
	for _, p := range list {
		if isOne(p, only) && (!p.Known || serves(p.Info.Services)) {
			c.add(p)
		}
	}
	return c
}

// isOne tells whether an endpoint is one of those a request is restricted to.
func isOne(p endpoint.Peer, only [][]*labels.Matcher) bool {
	if len(only) == 0 {
		return true
	}
	return slices.ContainsFunc(only, func(set []*labels.Matcher) bool {
		var external []*labels.Matcher
		for _, m := range set {
			if m.Name != addressLabel {
				external = append(external, m)
			} else if !m.Matches(p.Name) {
				return false
			}
		}
		return anyMatches(p.Info.LabelSets, external)
	})
}

// mayHold tells whether an endpoint may hold series of a selection.
func mayHold(p endpoint.Peer, sel storeapi.Selection) bool {
	if !p.Known {
		return true
	}
	info := p.Info
	if !info.Services.Store || !overlap(info.Mint, info.Maxt, sel) || !anyMatches(info.LabelSets, sel.Matchers) {
		return false
	}
	if len(info.TSDBs) == 0 || len(info.LabelSets) == 0 {
		return true
	}
	return slices.ContainsFunc(info.TSDBs, func(t storeapi.TSDBInfo) bool {
		_, ok := block.MatchExternal(t.Labels, sel.Matchers)
		return ok && overlap(t.Mint, t.Maxt, sel)
	})
}

func overlap(mint, maxt int64, sel storeapi.Selection) bool {
	return mint <= sel.Maxt && sel.Mint <= maxt
}

// anyMatches tells whether matchers exclude none of the label sets. No sets: unknown, so they may match.
func anyMatches(sets []labels.Labels, matchers []*labels.Matcher) bool {
	if len(sets) == 0 {
		return true
	}
	return slices.ContainsFunc(sets, func(set labels.Labels) bool {
		_, ok := block.MatchExternal(set, matchers)
		return ok
	})
}
