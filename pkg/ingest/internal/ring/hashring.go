package ring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/tenant"
)

// Algorithms and matchers of tenants, as Thanos' JSON names them.
const (
	hashmod = "hashmod"
	ketama  = "ketama"
	exact   = "exact"
	glob    = "glob"
)

// hashring is one ring of a hashring file, in Thanos' JSON.
type hashring struct {
	Name           string        `json:"hashring"`
	Tenants        []string      `json:"tenants"` // none: all
	Matcher        string        `json:"tenant_matcher_type"`
	Endpoints      []endpoint    `json:"endpoints"`
	Algorithm      string        `json:"algorithm"`
	ExternalLabels labels.Labels `json:"external_labels"`
	Shards         shards        `json:"shuffle_sharding_config"`
}

// endpoint is a node of a hashring: its address alone, or an object.
type endpoint struct {
	Address string `json:"address"`
	Capnp   string `json:"capnproto_address"` // not used
	Zone    string `json:"az"`
}

// shards says how many nodes a tenant's series are spread over. A size of 0 is all.
type shards struct {
	Size        int             `json:"shard_size"`
	CacheSize   int             `json:"cache_size"` // not used: what is computed is kept
	IgnoreZones bool            `json:"zone_awareness_disabled"`
	Overrides   []shardOverride `json:"overrides"`
}

type shardOverride struct {
	Size    int      `json:"shard_size"`
	Tenants []string `json:"tenants"`
	Matcher string   `json:"tenant_matcher_type"`
}

// UnmarshalJSON takes an address or an object.
func (e *endpoint) UnmarshalJSON(data []byte) error {
	if err := json.Unmarshal(data, &e.Address); err == nil {
		return nil
	}
	type object endpoint // without this method
	return strictJSON(data, (*object)(e))
}

// strictJSON refuses what it does not know.
func strictJSON(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("something follows the value")
	}
	return nil
}

// parseHashrings reads the JSON, fills in the algorithm where none is named and returns all mistakes at once.
func parseHashrings(content []byte, algorithm string) ([]hashring, error) {
	var rings []hashring
	if err := strictJSON(content, &rings); err != nil {
		return nil, err
	}
	if len(rings) == 0 {
		return nil, errors.New("there is no hashring in it")
	}
	var errs []error
	for i := range rings {
		if rings[i].Algorithm == "" {
			rings[i].Algorithm = algorithm
		}
		if err := rings[i].validate(); err != nil {
			errs = append(errs, fmt.Errorf("hashring %d (%q): %w", i, rings[i].Name, err))
		}
	}
	return rings, errors.Join(errs...)
}

func (h *hashring) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(h.Endpoints) == 0 {
		add("no endpoints")
	}
	seen := map[string]bool{}
	for i, e := range h.Endpoints {
		switch {
		case e.Address == "":
			add("endpoint %d has no address", i)
		case seen[e.Address]:
			add("endpoint %s is listed twice", e.Address)
		case e.Zone != "" && h.Algorithm == hashmod:
			add("endpoint %s has a zone, which %s knows nothing of; use %s", e.Address, hashmod, ketama)
		}
		seen[e.Address] = true
	}
	if h.Algorithm != hashmod && h.Algorithm != ketama {
		add("algorithm %q: must be %s or %s", h.Algorithm, hashmod, ketama)
	}
	if h.Algorithm == hashmod && (h.Shards.Size > 0 || len(h.Shards.Overrides) > 0) {
		add("%s has no shuffle sharding; use %s", hashmod, ketama)
	}
	if err := checkMatcher(h.Matcher, h.Tenants); err != nil {
		errs = append(errs, err)
	}
	for i, o := range h.Shards.Overrides {
		if err := checkMatcher(o.Matcher, o.Tenants); err != nil {
			add("override %d: %w", i, err)
		}
		if o.Matcher == "" {
			add("override %d has no tenant_matcher_type, and Thanos would pass it over; say %s or %s", i, exact, glob)
		}
	}
	return errors.Join(errs...)
}

func checkMatcher(kind string, tenants []string) error {
	switch kind {
	case "", exact:
		return nil
	case glob:
		for _, t := range tenants {
			if _, err := filepath.Match(t, ""); err != nil {
				return fmt.Errorf("tenant pattern %q: %w", t, err)
			}
		}
		return nil
	}
	return fmt.Errorf("tenant_matcher_type %q: must be %s or %s", kind, exact, glob)
}

// matches tells whether a tenant is among those listed.
func matches(kind string, tenants []string, id tenant.ID) bool {
	if kind != glob {
		return slices.Contains(tenants, string(id))
	}
	return slices.ContainsFunc(tenants, func(pattern string) bool {
		ok, err := filepath.Match(pattern, string(id))
		return ok && err == nil
	})
}

// takes tells whether the hashring is for a tenant.
func (h *hashring) takes(id tenant.ID) bool {
	return len(h.Tenants) == 0 || matches(h.Matcher, h.Tenants, id)
}

// shardSize is the number of nodes for a tenant, 0 for all. Overrides need a
// size for everybody, as in Thanos.
func (h *hashring) shardSize(id tenant.ID) int {
	if h.Shards.Size == 0 {
		return 0
	}
	for _, o := range h.Shards.Overrides {
		if matches(o.Matcher, o.Tenants, id) {
			return o.Size
		}
	}
	return h.Shards.Size
}
