package storetest

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

func (s *suite) info(t *testing.T) {
	info, err := s.store(t).Info(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, info.Component)
	require.LessOrEqual(t, info.Mint, s.in.Mint)
	require.GreaterOrEqual(t, info.Maxt, s.in.Maxt)
	require.True(t, info.SupportsSharding)
	require.True(t, info.SupportsWithoutReplicaLabels)
	require.Contains(t, texts(info.LabelSets), s.in.External.String())
}

func texts(sets []labels.Labels) (out []string) {
	for _, l := range sets {
		out = append(out, l.String())
	}
	return out
}

// series asks for each metric and for everything.
func (s *suite) series(t *testing.T) {
	store := s.store(t)
	for _, name := range []string{
		"http_requests", "clash", "order", "replicated", "spans", "many", "missing",
		"latency_integer", "latency_custom", "latency_gauge", "latency_float",
	} {
		t.Run(name, func(t *testing.T) { s.same(t, store, s.all(equal(t, "__name__", name))) })
	}
	t.Run("all", func(t *testing.T) {
		s.same(t, store, s.all(matcher(t, labels.MatchRegexp, "__name__", ".+")))
	})
}

// same compares an answer of the Store with the right one.
func (s *suite) same(t *testing.T, store storeapi.Store, sel storeapi.Selection) []Series {
	t.Helper()
	want, got := s.want(sel), get(t, store, sel)
	require.Equal(t, names(want), names(got))
	for i := range want {
		require.Equal(t, want[i].Samples, got[i].Samples, "samples of %s", want[i].Labels)
	}
	return got
}

func names(series []Series) (out []string) {
	for _, s := range series {
		out = append(out, s.Labels.String())
	}
	return out
}

// matchers combines each kind with values that match, don't, and match the empty string.
func (s *suite) matchers(t *testing.T) {
	store := s.store(t)
	kinds := []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp}
	for _, name := range []string{"code", "absent", "cluster", "replica"} {
		for _, kind := range kinds {
			for _, value := range []string{"", "404", "4.*|", "4.*|2.+", ".*", ".+", "eu-1", "eu-.", "own", "a"} {
				m := matcher(t, kind, name, value)
				t.Run(m.String(), func(t *testing.T) {
					sel := s.all(matcher(t, labels.MatchRegexp, "__name__", "http_requests|clash"), m)
					s.same(t, store, sel)
				})
			}
		}
	}
	t.Run("several of one label", func(t *testing.T) {
		s.same(t, store, s.all(equal(t, "__name__", "http_requests"),
			matcher(t, labels.MatchNotEqual, "code", ""), matcher(t, labels.MatchNotRegexp, "code", "2.."),
			matcher(t, labels.MatchRegexp, "job", "a.*")))
	})
	t.Run("contradiction", func(t *testing.T) {
		s.same(t, store, s.all(equal(t, "job", "api"), equal(t, "job", "web")))
	})
}

// external labels win over those of the series, in answers and in matching.
func (s *suite) external(t *testing.T) {
	store := s.store(t)
	got := s.same(t, store, s.all(equal(t, "__name__", "clash")))
	require.Len(t, got, 2, "two series that differ only in an overridden label are one")
	for _, series := range got {
		require.Equal(t, s.in.External.Get("cluster"), series.Labels.Get("cluster"))
	}
	require.Len(t, got[0].Samples, 10)
	require.Empty(t, s.same(t, store, s.all(equal(t, "__name__", "clash"), equal(t, "cluster", "own"))))
}

// times are closed intervals.
func (s *suite) times(t *testing.T) {
	store := s.store(t)
	last := baseTime + (earlyCount-1)*scrape
	for _, c := range []struct {
		name       string
		mint, maxt int64
	}{
		{"first sample only", baseTime - 1000, baseTime},
		{"last sample only", last, last + 1000},
		{"one instant", baseTime + 10*scrape, baseTime + 10*scrape},
		{"between samples", baseTime + 1, baseTime + scrape - 1},
		{"across chunks", baseTime + 100*scrape, baseTime + 140*scrape},
		{"before everything", baseTime - 2000, baseTime - 1000},
		{"late ones", lateTime, s.in.Maxt},
		{"after everything", s.in.Maxt + 1, s.in.Maxt + 1000},
		{"unbounded", -1 << 62, 1 << 62},
	} {
		t.Run(c.name, func(t *testing.T) {
			sel := s.all(matcher(t, labels.MatchRegexp, "__name__", "http_requests|spans"))
			sel.Mint, sel.Maxt = c.mint, c.maxt
			s.same(t, store, sel)
		})
	}
}

func (s *suite) options(t *testing.T) {
	store := s.store(t)
	t.Run("skip chunks", func(t *testing.T) {
		sel := s.all(matcher(t, labels.MatchRegexp, "__name__", ".+"))
		sel.SkipChunks = true
		s.same(t, store, sel)
	})
	for _, skip := range []bool{false, true} {
		t.Run(fmt.Sprintf("limit, skip chunks %v", skip), func(t *testing.T) {
			sel := s.all(equal(t, "__name__", "many"))
			sel.SkipChunks = skip
			all := names(s.want(sel))
			for _, n := range []int{1, 7, len(all), len(all) + 1} {
				sel.Limit = n
				got := names(get(t, store, sel))
				require.Len(t, got, min(n, len(all)))
				require.Subset(t, all, got)
			}
		})
	}
	t.Run("hints change nothing", func(t *testing.T) {
		sel := s.all(equal(t, "__name__", "many"))
		sel.Hints = storeapi.Hints{Func: "sum", StepMillis: 1000, RangeMillis: 5000, By: true, Grouping: []string{"parity"}}
		sel.Aggregates = []storeapi.Aggregate{storeapi.AggregateCount, storeapi.AggregateSum}
		sel.MaxResolution = 300_000
		s.same(t, store, sel)
	})
}

// sharding yields parts that are disjoint, together whole, and not all in one.
func (s *suite) sharding(t *testing.T) {
	store := s.store(t)
	for _, shard := range []storeapi.Shard{
		{Total: 3},
		{Total: 3, By: true, Labels: []string{"i"}},
		{Total: 2, By: true, Labels: []string{"parity", "cluster"}},
		{Total: 4, Labels: []string{"__name__", "replica", "i"}},
	} {
		t.Run(fmt.Sprintf("total=%d by=%v %v", shard.Total, shard.By, shard.Labels), func(t *testing.T) {
			sel := s.all(equal(t, "__name__", "many"))
			var parts []string
			for i := range shard.Total {
				part := shard
				part.Index, sel.Shard = i, &part
				parts = append(parts, names(s.same(t, store, sel))...)
			}
			sel.Shard = nil
			require.ElementsMatch(t, names(s.want(sel)), parts)
		})
	}
	t.Run("without replica labels", func(t *testing.T) {
		for i := range int64(2) {
			sel := s.all(equal(t, "__name__", "replicated"))
			sel.Shard, sel.WithoutReplicaLabels = &storeapi.Shard{Index: i, Total: 2}, []string{"host", "replica"}
			s.same(t, store, sel)
		}
	})
}

// withoutReplicaLabels sorts anew by the labels that are left and merges what has become equal.
func (s *suite) withoutReplicaLabels(t *testing.T) {
	store := s.store(t)
	for _, without := range [][]string{
		{"replica"}, {"host"}, {"host", "replica"}, {"a"}, {"b", "monitor"}, {"cluster"}, {"absent"}, {"i", "a", "host", "cluster"},
	} {
		t.Run(fmt.Sprint(without), func(t *testing.T) {
			sel := s.all(matcher(t, labels.MatchRegexp, "__name__", "replicated|order|many|clash"))
			sel.WithoutReplicaLabels = without
			s.same(t, store, sel)
			sel.SkipChunks = true
			s.same(t, store, sel)
		})
	}
	t.Run("matchers still see them", func(t *testing.T) {
		sel := s.all(equal(t, "__name__", "replicated"), equal(t, "host", "4"), equal(t, "replica", "a"))
		sel.WithoutReplicaLabels = []string{"host", "replica"}
		require.Len(t, s.same(t, store, sel), 1)
	})
}
