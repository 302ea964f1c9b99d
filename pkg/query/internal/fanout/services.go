package fanout

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/firnline/firnline/pkg/storeapi"
)

// serves returns what chooses the endpoints that have a service.
func (f *Fanout) serves(has func(storeapi.ServiceSet) bool) func(peersList) choice {
	return func(list peersList) choice { return chooseService(list, f.only, has) }
}

// Rules returns the groups of all endpoints. Groups of the same file and name
// become one; equal rules are kept, for whoever knows the replica labels.
func (f *Fanout) Rules(ctx context.Context, req storeapi.RulesRequest, partial bool) ([]storeapi.RuleGroup, []string, error) {
	r, err := f.begin(ctx, partial, f.serves(func(s storeapi.ServiceSet) bool { return s.Rules }))
	if err != nil {
		return nil, nil, err
	}
	lists, warnings, err := gather(r, "rules", func(ctx context.Context, p peer) ([]storeapi.RuleGroup, []string, error) {
		return p.Services.Rules.Rules(ctx, req, partial)
	})
	return filterRules(mergeGroups(slices.Concat(lists...)), req), warnings, err
}

// Targets returns the targets of all endpoints.
func (f *Fanout) Targets(ctx context.Context, state storeapi.TargetState, partial bool) (storeapi.Targets, []string, error) {
	r, err := f.begin(ctx, partial, f.serves(func(s storeapi.ServiceSet) bool { return s.Targets }))
	if err != nil {
		return storeapi.Targets{}, nil, err
	}
	lists, warnings, err := gather(r, "targets", func(ctx context.Context, p peer) (storeapi.Targets, []string, error) {
		return p.Services.Targets.Targets(ctx, state, partial)
	})
	var all storeapi.Targets
	for _, t := range lists {
		all.Active = append(all.Active, t.Active...)
		all.Dropped = append(all.Dropped, t.Dropped...)
	}
	return all, warnings, err
}

// Metadata returns the union of the endpoints' metadata, each entry once. With a
// limit, metrics are kept by name.
func (f *Fanout) Metadata(ctx context.Context, metric string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	r, err := f.begin(ctx, partial, f.serves(func(s storeapi.ServiceSet) bool { return s.Metadata }))
	if err != nil {
		return nil, nil, err
	}
	lists, warnings, err := gather(r, "metadata", func(ctx context.Context, p peer) (map[string][]storeapi.Metadata, []string, error) {
		return p.Services.Metadata.Metadata(ctx, metric, limit, partial)
	})
	return mergeMetadata(lists, limit), warnings, err
}

func mergeMetadata(lists []map[string][]storeapi.Metadata, limit int) map[string][]storeapi.Metadata {
	all := map[string][]storeapi.Metadata{}
	for _, list := range lists {
		for metric, entries := range list {
			for _, e := range entries {
				if !slices.Contains(all[metric], e) {
					all[metric] = append(all[metric], e)
				}
			}
		}
	}
	if limit >= 0 && len(all) > limit {
		for _, metric := range slices.Sorted(maps.Keys(all))[limit:] {
			delete(all, metric)
		}
	}
	return all
}

// Exemplars returns the exemplars of all endpoints, by series, each once.
func (f *Fanout) Exemplars(ctx context.Context, query string, start, end int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	selectors, err := f.selectorsOf(query)
	if err != nil {
		return nil, nil, err
	}
	choose := func(list peersList) (c choice) {
		elsewhere := func(p peer) bool {
			return !exemplarsOverlap(p, start, end) || exemplarQuery(selectors, f.selector, p.Info) == ""
		}
		c = chooseService(list, f.only, func(s storeapi.ServiceSet) bool { return s.Exemplars })
		return choice{ask: slices.DeleteFunc(c.ask, elsewhere), down: slices.DeleteFunc(c.down, elsewhere)}
	}
	r, err := f.begin(ctx, partial, choose)
	if err != nil {
		return nil, nil, err
	}
	lists, warnings, err := gather(r, "exemplars", func(ctx context.Context, p peer) ([]storeapi.ExemplarSeries, []string, error) {
		return p.Services.Exemplars.Exemplars(ctx, exemplarQuery(selectors, f.selector, p.Info), start, end, partial)
	})
	return mergeExemplars(slices.Concat(lists...), nil), warnings, err
}

// TSDBStats returns the endpoints' statistics added up by tenant: series, pairs,
// chunks and bytes add, the numbers of values of a label don't, so the largest counts.
func (f *Fanout) TSDBStats(ctx context.Context, limit int, partial bool) (map[string]storeapi.TSDBStats, []string, error) {
	r, err := f.begin(ctx, partial, f.serves(func(s storeapi.ServiceSet) bool { return s.Status }))
	if err != nil {
		return nil, nil, err
	}
	lists, warnings, err := gather(r, "status", func(ctx context.Context, p peer) (map[string]storeapi.TSDBStats, []string, error) {
		return p.Services.Status.TSDBStats(ctx, limit, partial)
	})
	all := map[string]storeapi.TSDBStats{}
	for _, list := range lists {
		for tenant, s := range list {
			if before, ok := all[tenant]; ok {
				s = addStats(before, s, limit)
			}
			all[tenant] = s
		}
	}
	return all, warnings, err
}

func addStats(a, b storeapi.TSDBStats, limit int) storeapi.TSDBStats {
	add := func(x, y uint64) uint64 { return x + y }
	largest := func(x, y uint64) uint64 { return max(x, y) }
	return storeapi.TSDBStats{
		HeadStats:                   addHeads(a.HeadStats, b.HeadStats),
		SeriesCountByMetricName:     combine(a.SeriesCountByMetricName, b.SeriesCountByMetricName, add, limit),
		LabelValueCountByLabelName:  combine(a.LabelValueCountByLabelName, b.LabelValueCountByLabelName, largest, limit),
		MemoryInBytesByLabelName:    combine(a.MemoryInBytesByLabelName, b.MemoryInBytesByLabelName, add, limit),
		SeriesCountByLabelValuePair: combine(a.SeriesCountByLabelValuePair, b.SeriesCountByLabelValuePair, add, limit),
	}
}

// addHeads adds up two heads. One without chunks has no time range that means anything.
func addHeads(a, b storeapi.HeadStats) storeapi.HeadStats {
	sum := storeapi.HeadStats{
		NumSeries: a.NumSeries + b.NumSeries, NumLabelPairs: a.NumLabelPairs + b.NumLabelPairs, ChunkCount: a.ChunkCount + b.ChunkCount,
		MinTime: min(a.MinTime, b.MinTime), MaxTime: max(a.MaxTime, b.MaxTime),
	}
	switch {
	case a.NumSeries == 0:
		sum.MinTime, sum.MaxTime = b.MinTime, b.MaxTime
	case b.NumSeries == 0:
		sum.MinTime, sum.MaxTime = a.MinTime, a.MaxTime
	}
	return sum
}

// combine merges two lists by name, largest value first, the first limit of them (0 or below: all).
func combine(a, b []storeapi.Stat, how func(x, y uint64) uint64, limit int) []storeapi.Stat {
	byName := map[string]uint64{}
	for _, s := range a {
		byName[s.Name] = s.Value
	}
	for _, s := range b {
		if v, ok := byName[s.Name]; ok {
			s.Value = how(v, s.Value)
		}
		byName[s.Name] = s.Value
	}
	list := make([]storeapi.Stat, 0, len(byName))
	for name, v := range byName {
		list = append(list, storeapi.Stat{Name: name, Value: v})
	}
	slices.SortFunc(list, func(x, y storeapi.Stat) int {
		return cmp.Or(cmp.Compare(y.Value, x.Value), cmp.Compare(x.Name, y.Name))
	})
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	return list
}
