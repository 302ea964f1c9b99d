package endpoint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// spec is an endpoint, or a name that stands for several, as configured.
type spec struct {
	address       string // host:port, with a DNS prefix perhaps
	strict        bool
	group         bool   // all addresses are one endpoint, asked in turn
	serviceConfig string // gRPC service config in JSON, of groups only; empty: the default
	client        ClientConfig
	file          bool // from a service discovery file
}

// dynamic tells whether the set of addresses is found out at run time, so that
// an address without an answer may be a stale entry.
func (s spec) dynamic() bool {
	prefix, _ := splitPrefix(s.address)
	return prefix != "" || s.file
}

// flagName returns the flag that specs of this kind come from.
func (s spec) flagName() string {
	name := "endpoint"
	if s.group {
		name += "-group"
	}
	if s.strict {
		name += "-strict"
	}
	return name
}

func (s spec) validate() error {
	if err := validateAddress(s.address); err != nil {
		return err
	}
	prefix, _ := splitPrefix(s.address)
	if s.strict && prefix != "" {
		return fmt.Errorf("address %q: a strict endpoint must be given by its address, not by a DNS name to look up", s.address)
	}
	if !s.group && s.serviceConfig != "" {
		return fmt.Errorf("address %q: service_config is for groups only", s.address)
	}
	if err := validateServiceConfig(s.serviceConfig); err != nil {
		return fmt.Errorf("address %q: service_config: %w", s.address, err)
	}
	if err := s.client.validate(); err != nil {
		return fmt.Errorf("address %q: %w", s.address, err)
	}
	return nil
}

// splitPrefix parts "dns+host:port" into "dns" and "host:port".
func splitPrefix(address string) (prefix, host string) {
	prefix, host, found := strings.Cut(address, "+")
	if !found {
		return "", address
	}
	return prefix, host
}

// target is an endpoint to be connected to.
type target struct {
	spec
	name      string   // shown to users, and what storeMatch's __address__ is matched with
	addresses []string // one, or any number for a group; none: not found
	err       error    // why there are none
}

// lookup is what resolving a spec's address has given.
type lookup struct {
	addresses []string
	err       error // of the last lookup; addresses then are those of an earlier one
}

// plan turns specs and what their addresses resolve to into targets, sorted by
// name and each once: of equal ones the first spec counts, and it is strict if
// any of them is. The second result are the names that came more than once.
//
// A name that resolves to nothing stays a target, with an error, so that what it
// stood for does not go missing in silence.
func plan(specs []spec, lookups map[string]lookup) (targets []target, duplicates []string) {
	byName := map[string]*target{}
	add := func(t target) {
		if old, ok := byName[t.name]; ok {
			old.strict = old.strict || t.strict
			old.file = old.file && t.file
			duplicates = append(duplicates, t.name)
			return
		}
		byName[t.name] = &t
	}
	for _, s := range specs {
		prefix, _ := splitPrefix(s.address)
		if prefix == "" {
			add(target{spec: s, name: s.address, addresses: []string{s.address}})
			continue
		}
		found := lookups[s.address]
		addresses := slices.Sorted(slices.Values(found.addresses))
		switch {
		case len(addresses) == 0:
			add(target{spec: s, name: s.address, err: notFound(found.err)})
		case s.group:
			add(target{spec: s, name: s.address, addresses: slices.Compact(addresses)})
		default:
			for _, a := range slices.Compact(addresses) {
				add(target{spec: s, name: a, addresses: []string{a}})
			}
		}
	}
	for _, t := range byName {
		targets = append(targets, *t)
	}
	slices.SortFunc(targets, func(a, b target) int { return cmp.Compare(a.name, b.name) })
	slices.Sort(duplicates)
	return targets, slices.Compact(duplicates)
}

// notFound is why a name has no addresses. Where it is shown the name stands beside it.
func notFound(err error) error {
	if err != nil {
		return fmt.Errorf("DNS lookup: %w", err)
	}
	return errors.New("DNS has no addresses for this name")
}
