// Package policy says how long series are kept, at each resolution: by flags for
// all, by a file for tenants and for the series that selectors match.
//
// It only decides. Reading the file, and reading it again when it changes, is its
// user's; a Policy never changes once made, so any number may use it at once.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/block"
)

// DefaultTenantLabel is the external label that names a tenant where the file doesn't say.
const DefaultTenantLabel = "tenant_id"

// Tiers is how long each resolution is kept; 0: for ever.
type Tiers struct {
	Raw, FiveMinutes, OneHour time.Duration
}

// At returns how long data of a resolution, in ms, is kept; 0: for ever.
func (t Tiers) At(resolution int64) time.Duration {
	switch resolution {
	case block.ResolutionRaw:
		return t.Raw
	case block.Resolution5m:
		return t.FiveMinutes
	case block.Resolution1h:
		return t.OneHour
	}
	return 0
}

// Outlives returns the next coarser resolution that is kept for longer than
// resolution is. ok is false where there is none.
func (t Tiers) Outlives(resolution int64) (coarser int64, ok bool) {
	own := t.At(resolution)
	if own == 0 {
		return 0, false
	}
	for _, r := range []int64{block.Resolution5m, block.Resolution1h} {
		if r > resolution && (t.At(r) == 0 || t.At(r) > own) {
			return r, true
		}
	}
	return 0, false
}

// Rule refines the retention of a tenant, or of the series that one of its
// selectors matches, or of these series of this tenant.
type Rule struct {
	Tenant    string // as the tenant label says; "": all
	Selectors []string
	Matchers  [][]*labels.Matcher // over the series' own and external labels; none: all of the tenant
	Tiers     Tiers
	Line      int // in the file
}

// Policy is the retention of a bucket. For a series the first rule that matches
// counts, and Default where none does. It never changes once made.
type Policy struct {
	Name        string // of the file, for messages; "": flags alone
	Default     Tiers
	TenantLabel string
	Rules       []Rule
}

// New returns the policy of the flags alone.
func New(defaults Tiers) *Policy { return &Policy{Default: defaults, TenantLabel: DefaultTenantLabel} }

// For tells how long a series, given with its external labels, is kept at a
// resolution in ms; 0: for ever.
func (p *Policy) For(lset labels.Labels, resolution int64) time.Duration {
	return p.tiers(p.first(lset)).At(resolution)
}

// first returns the index of the first rule that matches, len(p.Rules) if none does.
func (p *Policy) first(lset labels.Labels) int {
	for i := range p.Rules {
		if p.Rules[i].matches(p.TenantLabel, lset) {
			return i
		}
	}
	return len(p.Rules)
}

func (p *Policy) tiers(rule int) Tiers {
	if rule < len(p.Rules) {
		return p.Rules[rule].Tiers
	}
	return p.Default
}

// Class names the series that one rule, or the default, decides for: those that
// it matches and no rule before it does.
type Class struct {
	// Name is a hash of the selection: of the rule's tenant and selectors and of
	// those of the rules before it. How long it keeps them is not in it: what is
	// known of a block that holds no such series stays true when that changes.
	Name   string
	Policy *Policy
	Rule   int // index into Policy.Rules; len(Rules): the default
}

// Classes returns the classes of series that may be in a block with the given
// external labels, in the order of the rules. Those are left out that the tenant
// or the external labels decide against, and those after one that takes all.
func (p *Policy) Classes(external labels.Labels) []Class {
	var out []Class
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", p.TenantLabel)
	for i := range p.Rules {
		r := &p.Rules[i]
		fmt.Fprintf(sum, "%q %q\n", r.Tenant, r.Selectors)
		verdict := r.verdict(p.TenantLabel, external)
		if verdict == never {
			continue
		}
		out = append(out, Class{Name: "rule-" + hex.EncodeToString(sum.Sum(nil)[:8]), Policy: p, Rule: i})
		if verdict == always {
			return out
		}
	}
	if len(p.Rules) == 0 {
		return append(out, Class{Name: "default", Policy: p})
	}
	return append(out, Class{Name: "default-" + hex.EncodeToString(sum.Sum(nil)[:8]), Policy: p, Rule: len(p.Rules)})
}

// Matches tells whether a series, given with its external labels, is of the class.
func (c Class) Matches(lset labels.Labels) bool { return c.Policy.first(lset) == c.Rule }

// Tiers is how long the class is kept.
func (c Class) Tiers() Tiers { return c.Policy.tiers(c.Rule) }

// String says in words which series the class holds.
func (c Class) String() string {
	if c.Rule >= len(c.Policy.Rules) {
		return "all other series"
	}
	r := c.Policy.Rules[c.Rule]
	switch {
	case r.Tenant == "":
		return fmt.Sprintf("%v", r.Selectors)
	case len(r.Selectors) == 0:
		return "tenant " + r.Tenant
	}
	return fmt.Sprintf("tenant %s, %v", r.Tenant, r.Selectors)
}

func (r *Rule) matches(tenantLabel string, lset labels.Labels) bool {
	if r.Tenant != "" && lset.Get(tenantLabel) != r.Tenant {
		return false
	}
	for _, ms := range r.Matchers {
		if matchesAll(ms, lset) {
			return true
		}
	}
	return len(r.Matchers) == 0
}

func matchesAll(ms []*labels.Matcher, lset labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

// verdict is what external labels alone tell about the series of a block.
type verdict int

const (
	never  verdict = iota // no series can match
	maybe                 // the series' own labels decide
	always                // all series match
)

// verdict is the best that one of the rule's selectors makes of it.
func (r *Rule) verdict(tenantLabel string, external labels.Labels) verdict {
	tenant := always
	if r.Tenant != "" {
		tenant = decide(external, tenantLabel, func(v string) bool { return v == r.Tenant })
	}
	if len(r.Matchers) == 0 {
		return tenant
	}
	best := never
	for _, ms := range r.Matchers {
		v := always
		for _, m := range ms {
			v = min(v, decide(external, m.Name, m.Matches))
		}
		best = max(best, v)
	}
	return min(tenant, best)
}

// decide looks at one label. An external label overrides a series' own of the
// same name, so that where there is one it decides.
func decide(external labels.Labels, name string, matches func(string) bool) verdict {
	switch {
	case !external.Has(name):
		return maybe
	case matches(external.Get(name)):
		return always
	}
	return never
}

// MayMatch tells whether a series in a block with these external labels may
// match all of ms.
func MayMatch(ms []*labels.Matcher, external labels.Labels) bool {
	for _, m := range ms {
		if decide(external, m.Name, m.Matches) == never {
			return false
		}
	}
	return true
}
