package fanout

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Replicas shows the rules, targets and exemplars of HA pairs once.
type Replicas struct {
	from   *Fanout
	labels []string
}

var (
	_ storeapi.RulesSource     = (*Replicas)(nil)
	_ storeapi.TargetsSource   = (*Replicas)(nil)
	_ storeapi.ExemplarsSource = (*Replicas)(nil)
)

// Replicas returns what f tells with the replicas made one: labels tell them apart.
func (f *Fanout) Replicas(labels []string) *Replicas { return &Replicas{from: f, labels: labels} }

// Rules implements storeapi.RulesSource.
func (r *Replicas) Rules(ctx context.Context, req storeapi.RulesRequest, partial bool) ([]storeapi.RuleGroup, []string, error) {
	groups, warnings, err := r.from.Rules(ctx, req, partial)
	return dedupRules(groups, r.labels), warnings, err
}

// Targets implements storeapi.TargetsSource.
func (r *Replicas) Targets(ctx context.Context, state storeapi.TargetState, partial bool) (storeapi.Targets, []string, error) {
	targets, warnings, err := r.from.Targets(ctx, state, partial)
	return storeapi.Targets{Active: dedupActive(targets.Active, r.labels), Dropped: dedupDropped(targets.Dropped, r.labels)}, warnings, err
}

// Exemplars implements storeapi.ExemplarsSource.
func (r *Replicas) Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	series, warnings, err := r.from.Exemplars(ctx, query, start, end, partial)
	return mergeExemplars(series, r.labels), warnings, err
}

// dedupActive makes one of the targets that differ in replica labels alone: the
// one that is down, else the one scraped last.
func dedupActive(targets []storeapi.ActiveTarget, replica []string) []storeapi.ActiveTarget {
	targets = slices.Clone(targets)
	for i := range targets {
		targets[i].DiscoveredLabels = without(targets[i].DiscoveredLabels, replica)
		targets[i].Labels = without(targets[i].Labels, replica)
	}
	identity := func(a, b storeapi.ActiveTarget) int {
		return cmp.Or(cmp.Compare(a.ScrapeURL, b.ScrapeURL), cmp.Compare(a.ScrapePool, b.ScrapePool),
			labels.Compare(a.DiscoveredLabels, b.DiscoveredLabels), labels.Compare(a.Labels, b.Labels))
	}
	slices.SortStableFunc(targets, func(a, b storeapi.ActiveTarget) int {
		return cmp.Or(identity(a, b), cmp.Compare(concern(a.Health), concern(b.Health)), b.LastScrape.Compare(a.LastScrape))
	})
	return slices.CompactFunc(targets, func(a, b storeapi.ActiveTarget) bool { return identity(a, b) == 0 })
}

// concern orders the health of targets; what is down is shown first.
func concern(health string) int {
	switch health {
	case "down":
		return 0
	case "up":
		return 1
	}
	return 2
}

func dedupDropped(targets []storeapi.DroppedTarget, replica []string) []storeapi.DroppedTarget {
	targets = slices.Clone(targets)
	for i := range targets {
		targets[i].DiscoveredLabels = without(targets[i].DiscoveredLabels, replica)
	}
	identity := func(a, b storeapi.DroppedTarget) int { return labels.Compare(a.DiscoveredLabels, b.DiscoveredLabels) }
	slices.SortStableFunc(targets, identity)
	return slices.CompactFunc(targets, func(a, b storeapi.DroppedTarget) bool { return identity(a, b) == 0 })
}
