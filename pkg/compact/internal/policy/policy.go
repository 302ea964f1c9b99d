// Package policy says how long series are kept, at each resolution: by flags for
// all, by a file for tenants and for the series that selectors match.
package policy

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Tiers is how long each resolution is kept; 0: for ever.
type Tiers struct {
	Raw, FiveMinutes, OneHour time.Duration
}

// Rule refines the retention of the series that one of its selectors matches.
type Rule struct {
	Tenant    string // as the tenant label says; "": all
	Selectors []string
	Matchers  [][]*labels.Matcher // over the series' own and external labels
	Tiers     Tiers
}

// Policy is the retention of a bucket. For a series the first rule that matches
// counts, and Default where none does. It never changes once made.
type Policy struct {
	Default     Tiers
	TenantLabel string
	Rules       []Rule
}

// Class names the series that one rule, or the default, decides for. Its Name
// contains what the rule says, so that it changes when the rule does.
type Class struct {
	Name   string
	Policy *Policy
	Rule   int // index into Policy.Rules; len(Rules): the default
}
