package storeapi

import (
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/firnline/firnline/pkg/storeapi/storepb"
)

// Health of targets has the names of the HTTP API: up, down, unknown.
const targetPrefix = "TARGET_"

func fromHealth(s string) storepb.TargetHealth {
	if h, ok := storepb.TargetHealth_value[targetPrefix+strings.ToUpper(s)]; ok {
		return storepb.TargetHealth(h)
	}
	return storepb.TargetHealth_TARGET_UNKNOWN
}

func fromTargets(in Targets) *storepb.TargetDiscovery {
	out := &storepb.TargetDiscovery{}
	for _, t := range in.Active {
		out.ActiveTargets = append(out.ActiveTargets, &storepb.ActiveTarget{
			DiscoveredLabels: fromLabelSet(t.DiscoveredLabels), Labels: fromLabelSet(t.Labels),
			ScrapePool: t.ScrapePool, ScrapeUrl: t.ScrapeURL, GlobalUrl: t.GlobalURL, LastError: t.LastError,
			LastScrape: fromTime(t.LastScrape), LastScrapeDuration: t.LastScrapeDuration, Health: fromHealth(t.Health),
		})
	}
	for _, t := range in.Dropped {
		out.DroppedTargets = append(out.DroppedTargets, &storepb.DroppedTarget{DiscoveredLabels: fromLabelSet(t.DiscoveredLabels)})
	}
	return out
}

// addTargets appends what a frame brings.
func addTargets(out *Targets, in *storepb.TargetDiscovery) {
	for _, t := range in.ActiveTargets {
		out.Active = append(out.Active, ActiveTarget{
			DiscoveredLabels: toLabels(t.DiscoveredLabels.GetLabels()), Labels: toLabels(t.Labels.GetLabels()),
			ScrapePool: t.ScrapePool, ScrapeURL: t.ScrapeUrl, GlobalURL: t.GlobalUrl, LastError: t.LastError,
			LastScrape: toTime(t.LastScrape), LastScrapeDuration: t.LastScrapeDuration,
			Health: strings.ToLower(strings.TrimPrefix(t.Health.String(), targetPrefix)),
		})
	}
	for _, t := range in.DroppedTargets {
		out.Dropped = append(out.Dropped, DroppedTarget{DiscoveredLabels: toLabels(t.DiscoveredLabels.GetLabels())})
	}
}

func fromMetadata(in map[string][]Metadata) *storepb.MetricMetadata {
	out := &storepb.MetricMetadata{Metadata: map[string]*storepb.MetricMetadataEntry{}}
	for metric, metas := range in {
		entry := &storepb.MetricMetadataEntry{}
		for _, m := range metas {
			entry.Metas = append(entry.Metas, &storepb.Meta{Type: m.Type, Help: m.Help, Unit: m.Unit})
		}
		out.Metadata[metric] = entry
	}
	return out
}

func addMetadata(out map[string][]Metadata, in *storepb.MetricMetadata) {
	for metric, entry := range in.Metadata {
		for _, m := range entry.GetMetas() {
			out[metric] = append(out[metric], Metadata{Type: m.Type, Help: m.Help, Unit: m.Unit})
		}
	}
}

func fromExemplars(in ExemplarSeries) *storepb.ExemplarData {
	out := &storepb.ExemplarData{SeriesLabels: fromLabelSet(in.SeriesLabels)}
	for _, e := range in.Exemplars {
		out.Exemplars = append(out.Exemplars, &storepb.Exemplar{Labels: fromLabelSet(e.Labels), Value: e.Value, Ts: e.Ts})
	}
	return out
}

func toExemplars(in *storepb.ExemplarData) ExemplarSeries {
	out := ExemplarSeries{SeriesLabels: toLabels(in.SeriesLabels.GetLabels())}
	for _, e := range in.Exemplars {
		out.Exemplars = append(out.Exemplars, exemplar.Exemplar{Labels: toLabels(e.Labels.GetLabels()), Value: e.Value, Ts: e.Ts, HasTs: true})
	}
	return out
}

func fromTSDBStats(in map[string]TSDBStats) *storepb.TSDBStatistics {
	out := &storepb.TSDBStatistics{Statistics: map[string]*storepb.TSDBStatisticsEntry{}}
	for tenant, s := range in {
		h := s.HeadStats
		out.Statistics[tenant] = &storepb.TSDBStatisticsEntry{
			HeadStatistics: &storepb.HeadStatistics{
				NumSeries: h.NumSeries, NumLabelPairs: int64(h.NumLabelPairs), ChunkCount: h.ChunkCount, MinTime: h.MinTime, MaxTime: h.MaxTime,
			},
			SeriesCountByMetricName: fromStatList(s.SeriesCountByMetricName), LabelValueCountByLabelName: fromStatList(s.LabelValueCountByLabelName),
			MemoryInBytesByLabelName: fromStatList(s.MemoryInBytesByLabelName), SeriesCountByLabelValuePair: fromStatList(s.SeriesCountByLabelValuePair),
		}
	}
	return out
}

func addTSDBStats(out map[string]TSDBStats, in *storepb.TSDBStatistics) {
	for tenant, s := range in.Statistics {
		h := s.GetHeadStatistics()
		out[tenant] = TSDBStats{
			HeadStats: HeadStats{
				NumSeries: h.GetNumSeries(), NumLabelPairs: int(h.GetNumLabelPairs()), ChunkCount: h.GetChunkCount(), MinTime: h.GetMinTime(), MaxTime: h.GetMaxTime(),
			},
			SeriesCountByMetricName: toStatList(s.GetSeriesCountByMetricName()), LabelValueCountByLabelName: toStatList(s.GetLabelValueCountByLabelName()),
			MemoryInBytesByLabelName: toStatList(s.GetMemoryInBytesByLabelName()), SeriesCountByLabelValuePair: toStatList(s.GetSeriesCountByLabelValuePair()),
		}
	}
}

func fromStatList(in []Stat) (out []*storepb.Statistic) {
	for _, s := range in {
		out = append(out, &storepb.Statistic{Name: s.Name, Value: s.Value})
	}
	return out
}

func toStatList(in []*storepb.Statistic) []Stat {
	out := []Stat{}
	for _, s := range in {
		out = append(out, Stat{Name: s.Name, Value: s.Value})
	}
	return out
}
