package store

import (
	"context"
	"fmt"
	"math"

	"github.com/firnline/firnline/pkg/storeapi"
)

// Info implements storeapi.Store. Without blocks its time range is empty, from
// the end of time to its beginning, so that nobody asks.
func (s *Store) Info(context.Context) (storeapi.Info, error) {
	v := s.view.Load()
	if v == nil {
		return storeapi.Info{}, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, s.Ready())
	}
	info := storeapi.Info{
		Component: "store", Mint: math.MaxInt64, Maxt: math.MinInt64,
		SupportsSharding: true, SupportsWithoutReplicaLabels: true,
		Services: storeapi.ServiceSet{Store: true, Metadata: true, Exemplars: true},
	}
	for _, g := range v.groups {
		info.LabelSets = append(info.LabelSets, g.labels)
		info.TSDBs = append(info.TSDBs, tsdbsOf(g)...)
	}
	for _, t := range info.TSDBs {
		info.Mint, info.Maxt = min(info.Mint, t.Mint), max(info.Maxt, t.Maxt)
	}
	now := s.now()
	if len(info.TSDBs) > 0 {
		info.Mint = max(info.Mint, s.cfg.Blocks.MinTime.Millis(now, info.Mint))
		info.Maxt = min(info.Maxt, s.cfg.Blocks.MaxTime.Millis(now, info.Maxt))
	}
	info.Services.ExemplarsMint, info.Services.ExemplarsMaxt = info.Mint, info.Maxt
	return info, nil
}

// tsdbsOf makes one data set of blocks that follow one another without a gap.
func tsdbsOf(g group) (out []storeapi.TSDBInfo) {
	for _, l := range g.blocks {
		if n := len(out); n > 0 && l.meta.MinTime <= out[n-1].Maxt {
			out[n-1].Maxt = max(out[n-1].Maxt, l.meta.MaxTime)
			continue
		}
		out = append(out, storeapi.TSDBInfo{Labels: g.labels, Mint: l.meta.MinTime, Maxt: l.meta.MaxTime})
	}
	return out
}
