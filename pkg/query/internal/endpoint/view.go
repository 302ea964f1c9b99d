package endpoint

import (
	"cmp"
	"slices"
	"time"
)

// Peers returns the endpoints that a query has to ask or, where they are down,
// to tell of. They are sorted by name. One that was just found is not among
// them before its first check has ended.
func (s *Set) Peers() []Peer {
	var peers []Peer
	s.each(func(m *member) {
		if !m.health.checked.IsZero() {
			peers = append(peers, m.peer())
		}
	})
	for _, l := range s.locals {
		peers = append(peers, l.peer())
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return peers
}

// Endpoints returns the state of all endpoints, sorted by name.
func (s *Set) Endpoints() []Status {
	var list []Status
	s.each(func(m *member) { list = append(list, m.status()) })
	for _, l := range s.locals {
		list = append(list, l.status())
	}
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// each calls f for all members but stale ones.
func (s *Set) each(f func(*member)) {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.mu.members {
		if !m.health.stale(m.target, now, time.Duration(s.cfg.UnhealthyTimeout)) {
			f(m)
		}
	}
}

func (m *member) status() Status { return statusOf(m.target.name, m.target.strict, m.health) }

func statusOf(name string, strict bool, h health) Status {
	st := Status{
		Name: name, Component: cmp.Or(h.info.Component, "unknown"), LastCheck: h.checked, Strict: strict,
		LabelSets: h.info.LabelSets, MinTime: h.info.Mint, MaxTime: h.info.Maxt,
	}
	if h.err != nil {
		st.LastError = h.err.Error()
	}
	return st
}
