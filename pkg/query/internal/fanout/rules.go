package fanout

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// mergeGroups makes one of the groups of the same file and name, sorted by them.
// Of what is not their rules the first one's counts.
func mergeGroups(groups []storeapi.RuleGroup) []storeapi.RuleGroup {
	sorted := slices.Clone(groups)
	slices.SortStableFunc(sorted, func(a, b storeapi.RuleGroup) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Name, b.Name))
	})
	var merged []storeapi.RuleGroup
	for _, g := range sorted {
		if n := len(merged); n > 0 && merged[n-1].File == g.File && merged[n-1].Name == g.Name {
			merged[n-1].Rules = slices.Concat(merged[n-1].Rules, g.Rules)
			continue
		}
		merged = append(merged, g)
	}
	return merged
}

// filterRules keeps what a request asks for. Endpoints may have done so or not.
// Groups that are left without rules go, unless they had none to begin with.
func filterRules(groups []storeapi.RuleGroup, req storeapi.RulesRequest) []storeapi.RuleGroup {
	in := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	var kept []storeapi.RuleGroup
	for _, g := range groups {
		if !in(req.Groups, g.Name) || !in(req.Files, g.File) {
			continue
		}
		var rules []storeapi.Rule
		for _, r := range g.Rules {
			if in(req.Names, r.Name) && isOfType(r, req.Type) && matchesAny(r.Labels, req.Matchers) {
				rules = append(rules, r)
			}
		}
		if len(rules) == 0 && len(g.Rules) > 0 {
			continue
		}
		g.Rules = rules
		kept = append(kept, g)
	}
	return kept
}

func isOfType(r storeapi.Rule, t storeapi.RuleType) bool {
	switch t {
	case storeapi.RulesAlerting:
		return r.Type == "alerting"
	case storeapi.RulesRecording:
		return r.Type == "recording"
	}
	return true
}

// matchesAny tells whether a rule's labels match all of one set of matchers. A
// label whose value is a template has no value before it is evaluated, so it
// counts as absent.
func matchesAny(lset labels.Labels, sets [][]*labels.Matcher) bool {
	if len(sets) == 0 {
		return true
	}
	value := func(name string) string {
		if v := lset.Get(name); !strings.Contains(v, "{{") {
			return v
		}
		return ""
	}
	return slices.ContainsFunc(sets, func(set []*labels.Matcher) bool {
		return !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches(value(m.Name)) })
	})
}

// dedupRules takes the replica labels off the rules of each group and makes one
// of those that then are equal: the alert that is furthest, the rule that was
// evaluated last.
func dedupRules(groups []storeapi.RuleGroup, replica []string) []storeapi.RuleGroup {
	for i := range groups {
		rules := slices.Clone(groups[i].Rules)
		for j := range rules {
			rules[j] = withoutReplica(rules[j], replica)
		}
		slices.SortStableFunc(rules, func(a, b storeapi.Rule) int {
			return cmp.Or(compareRules(a, b), compareRuleStates(a, b))
		})
		groups[i].Rules = slices.CompactFunc(rules, func(a, b storeapi.Rule) bool { return compareRules(a, b) == 0 })
	}
	return groups
}

func withoutReplica(r storeapi.Rule, replica []string) storeapi.Rule {
	r.Labels = without(r.Labels, replica)
	r.Alerts = slices.Clone(r.Alerts)
	for i := range r.Alerts {
		r.Alerts[i].Labels = without(r.Alerts[i].Labels, replica)
	}
	return r
}

// compareRules orders rules by what makes them different rules.
func compareRules(a, b storeapi.Rule) int {
	return cmp.Or(
		cmp.Compare(a.Type, b.Type), // alerting before recording
		cmp.Compare(a.Name, b.Name),
		labels.Compare(a.Labels, b.Labels),
		cmp.Compare(a.Query, b.Query),
		cmp.Compare(a.Duration, b.Duration),
	)
}

// compareRuleStates orders equal rules so that the one to show comes first.
func compareRuleStates(a, b storeapi.Rule) int {
	return cmp.Or(cmp.Compare(urgency(b.State), urgency(a.State)), b.LastEvaluation.Compare(a.LastEvaluation))
}

func urgency(state string) int { return slices.Index([]string{"inactive", "pending", "firing"}, state) }

// without returns lset without the named labels.
func without(lset labels.Labels, names []string) labels.Labels {
	if len(names) == 0 {
		return lset
	}
	return labels.NewBuilder(lset).Del(names...).Labels()
}
