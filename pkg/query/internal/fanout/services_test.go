package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/query/internal/endpoint"
	"github.com/firnline/firnline/pkg/storeapi"
)

// everyService is an endpoint that answers all services but Store with what it holds.
type everyService struct {
	rules     []storeapi.RuleGroup
	targets   storeapi.Targets
	metadata  map[string][]storeapi.Metadata
	exemplars []storeapi.ExemplarSeries
	stats     map[string]storeapi.TSDBStats
	err       error
	warnings  []string
	asked     string // the last query of exemplars
}

func (e *everyService) Rules(context.Context, storeapi.RulesRequest, bool) ([]storeapi.RuleGroup, []string, error) {
	return e.rules, e.warnings, e.err
}

func (e *everyService) Targets(context.Context, storeapi.TargetState, bool) (storeapi.Targets, []string, error) {
	return e.targets, e.warnings, e.err
}

func (e *everyService) Metadata(context.Context, string, int, bool) (map[string][]storeapi.Metadata, []string, error) {
	return e.metadata, e.warnings, e.err
}

func (e *everyService) Exemplars(_ context.Context, query string, _, _ int64, _ bool) ([]storeapi.ExemplarSeries, []string, error) {
	e.asked = query
	return e.exemplars, e.warnings, e.err
}

func (e *everyService) TSDBStats(context.Context, int, bool) (map[string]storeapi.TSDBStats, []string, error) {
	return e.stats, e.warnings, e.err
}

func (e *everyService) peer(name string, external ...string) endpoint.Peer {
	return endpoint.Peer{
		Name: name, Known: true,
		Info: storeapi.Info{
			Component: "sidecar", LabelSets: []labels.Labels{labels.FromStrings(external...)},
			Services: storeapi.ServiceSet{
				Rules: true, Targets: true, Metadata: true, Exemplars: true, Status: true, ExemplarsMint: math.MinInt64, ExemplarsMaxt: math.MaxInt64,
			},
		},
		Services: storeapi.Services{Rules: e, Targets: e, Metadata: e, Exemplars: e, Status: e},
	}
}

func ls(pairs ...string) labels.Labels { return labels.FromStrings(pairs...) }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// Rules of a pair become one: the alert that is furthest, then what was evaluated last.
func TestRulesOfPair(t *testing.T) {
	group := func(replica, state string, last time.Time) []storeapi.RuleGroup {
		return []storeapi.RuleGroup{{Name: "g", File: "f", Rules: []storeapi.Rule{
			{Type: "recording", Name: "r", Query: "1", Labels: ls("replica", replica), LastEvaluation: last, LastError: replica},
			{Type: "alerting", Name: "a", Query: "x>1", Labels: ls("replica", replica), State: state, LastEvaluation: last,
				Alerts: []storeapi.Alert{{Labels: ls("replica", replica, "i", "1")}}},
		}}}
	}
	a := &everyService{rules: group("a", "firing", noon)}
	b := &everyService{rules: append(group("b", "pending", noon.Add(time.Minute)), storeapi.RuleGroup{Name: "other", File: "f", Rules: []storeapi.Rule{{Type: "recording", Name: "o", Labels: ls("x", "{{ $v }}")}}})}
	f := newFanout(config(), a.peer("a"), b.peer("b"))

	raw, warnings, err := f.Rules(context.Background(), storeapi.RulesRequest{}, false)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Len(t, raw, 2)
	require.Len(t, raw[0].Rules, 4, "whoever asks by gRPC gets all of them")

	groups, _, err := f.Replicas([]string{"replica"}).Rules(context.Background(), storeapi.RulesRequest{}, false)
	require.NoError(t, err)
	require.Len(t, groups, 2)
	require.Len(t, groups[0].Rules, 2)
	alert, recording := groups[0].Rules[0], groups[0].Rules[1]
	require.Equal(t, "firing", alert.State)
	require.Equal(t, ls(), alert.Labels)
	require.Equal(t, ls("i", "1"), alert.Alerts[0].Labels)
	require.Equal(t, "b", recording.LastError, "evaluated last")
	require.Equal(t, ls("replica", "a"), a.rules[0].Rules[0].Labels, "what was answered is not written to")

	for name, c := range map[string]struct {
		req  storeapi.RulesRequest
		want string
	}{
		"type":         {storeapi.RulesRequest{Type: storeapi.RulesAlerting}, "[g:a]"},
		"name":         {storeapi.RulesRequest{Names: []string{"o", "a"}}, "[g:a other:o]"},
		"group":        {storeapi.RulesRequest{Groups: []string{"other"}}, "[other:o]"},
		"file":         {storeapi.RulesRequest{Files: []string{"h"}}, "[]"},
		"matchers":     {storeapi.RulesRequest{Matchers: [][]*labels.Matcher{matchers(t, `{replica="a"}`)}}, "[g:a g:r]"},
		"templates":    {storeapi.RulesRequest{Matchers: [][]*labels.Matcher{matchers(t, `{x=~".+"}`)}}, "[]"},
		"one of these": {storeapi.RulesRequest{Matchers: [][]*labels.Matcher{matchers(t, `{replica="z"}`), matchers(t, `{x="",replica=""}`)}}, "[other:o]"},
	} {
		groups, _, err := f.Replicas([]string{"replica"}).Rules(context.Background(), c.req, false)
		require.NoError(t, err)
		var got []string
		for _, g := range groups {
			for _, r := range g.Rules {
				got = append(got, g.Name+":"+r.Name)
			}
		}
		require.Equal(t, c.want, fmt.Sprint(got), name)
	}
}

func TestTargetsOfPair(t *testing.T) {
	target := func(replica, url, health string, last time.Time) storeapi.ActiveTarget {
		return storeapi.ActiveTarget{ScrapeURL: url, Labels: ls("job", "x", "replica", replica), DiscoveredLabels: ls("replica", replica), Health: health, LastScrape: last, LastError: replica}
	}
	dropped := []storeapi.DroppedTarget{{DiscoveredLabels: ls("d", "1")}}
	a := &everyService{targets: storeapi.Targets{Dropped: dropped, Active: []storeapi.ActiveTarget{
		target("a", "u1", "up", noon), target("a", "u2", "down", noon), target("a", "u3", "up", noon),
	}}}
	b := &everyService{targets: storeapi.Targets{Dropped: dropped, Active: []storeapi.ActiveTarget{
		target("b", "u1", "up", noon.Add(time.Second)), target("b", "u2", "up", noon.Add(time.Second)),
	}}}
	got, _, err := newFanout(config(), a.peer("a"), b.peer("b")).Replicas([]string{"replica"}).Targets(context.Background(), storeapi.TargetsAny, false)
	require.NoError(t, err)
	require.Len(t, got.Dropped, 1)
	var shown []string
	for _, tg := range got.Active {
		shown = append(shown, tg.ScrapeURL+" "+tg.Health+" of "+tg.LastError)
		require.Equal(t, ls("job", "x"), tg.Labels)
	}
	require.Equal(t, []string{"u1 up of b", "u2 down of a", "u3 up of a"}, shown)
}

func TestMetadataUnion(t *testing.T) {
	gauge, counter := storeapi.Metadata{Type: "gauge", Help: "h"}, storeapi.Metadata{Type: "counter", Help: "h"}
	a := &everyService{metadata: map[string][]storeapi.Metadata{"x": {gauge}, "z": {gauge}}}
	b := &everyService{metadata: map[string][]storeapi.Metadata{"x": {counter, gauge}, "y": {gauge}}}
	f := newFanout(config(), a.peer("a"), b.peer("b"))
	got, _, err := f.Metadata(context.Background(), "", -1, false)
	require.NoError(t, err)
	require.Equal(t, map[string][]storeapi.Metadata{"x": {gauge, counter}, "y": {gauge}, "z": {gauge}}, got)
	got, _, err = f.Metadata(context.Background(), "", 2, false)
	require.NoError(t, err)
	require.Equal(t, map[string][]storeapi.Metadata{"x": {gauge, counter}, "y": {gauge}}, got)
	got, _, err = f.Metadata(context.Background(), "", 0, false)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestExemplars(t *testing.T) {
	ex := func(ts int64, trace string) exemplar.Exemplar {
		return exemplar.Exemplar{Labels: ls("trace", trace), Value: 1, Ts: ts, HasTs: true}
	}
	series := func(replica string, list ...exemplar.Exemplar) []storeapi.ExemplarSeries {
		return []storeapi.ExemplarSeries{{SeriesLabels: ls("__name__", "m", "replica", replica), Exemplars: list}}
	}
	a := &everyService{exemplars: series("a", ex(2, "x"), ex(3, "z"))}
	b := &everyService{exemplars: series("b", ex(1, "y"), ex(2, "x"))}
	other := &everyService{exemplars: series("c", ex(9, "never"))}
	f := New(config(), fixed{a.peer("a", "cluster", "1"), b.peer("b", "cluster", "1"), other.peer("c", "cluster", "2")}, ls("region", "eu"), parser.NewParser(parser.Options{}), prometheus.NewRegistry())
	got, _, err := f.Replicas([]string{"replica"}).Exemplars(context.Background(), `rate(m{cluster="1",region="eu"}[5m]) / n`, 0, 10, false)
	require.NoError(t, err)
	require.Equal(t, `{__name__="m"} + {__name__="n"}`, a.asked, "external labels are not known below")
	require.Equal(t, `{__name__="n"}`, other.asked, "only what concerns it")
	require.Len(t, got, 1)
	require.Equal(t, ls("__name__", "m"), got[0].SeriesLabels)
	require.Equal(t, []exemplar.Exemplar{ex(1, "y"), ex(2, "x"), ex(3, "z"), ex(9, "never")}, got[0].Exemplars)

	other.asked = ""
	_, _, err = f.Exemplars(context.Background(), `m{cluster="1"}`, 0, 10, false)
	require.NoError(t, err)
	require.Empty(t, other.asked)
	_, _, err = f.Exemplars(context.Background(), `{cluster="2"}`, 0, 10, false)
	require.NoError(t, err)
	require.Equal(t, `{__name__=~".+"}`, other.asked)
	_, _, err = f.Exemplars(context.Background(), `m{`, 0, 10, true)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)

	many := other.peer("d", "cluster", "1")
	many.Info.Component, many.Info.LabelSets = "store", append(many.Info.LabelSets, ls("cluster", "2"))
	f = New(config(), fixed{many}, ls("region", "eu"), parser.NewParser(parser.Options{}), prometheus.NewRegistry())
	_, _, err = f.Exemplars(context.Background(), `m{cluster="2",region="eu"}`, 0, 10, false)
	require.NoError(t, err)
	require.Equal(t, `{cluster="2",__name__="m"}`, other.asked, "of many external labels it must choose by itself")
}

func TestStatsAddUp(t *testing.T) {
	stats := func(n uint64, mint, maxt int64) map[string]storeapi.TSDBStats {
		return map[string]storeapi.TSDBStats{"": {
			HeadStats:                  storeapi.HeadStats{NumSeries: n, MinTime: mint, MaxTime: maxt, ChunkCount: 3},
			SeriesCountByMetricName:    []storeapi.Stat{{Name: "a", Value: n}, {Name: "b", Value: 1}},
			LabelValueCountByLabelName: []storeapi.Stat{{Name: "l", Value: n}},
		}}
	}
	a, b, empty := &everyService{stats: stats(5, 10, 20)}, &everyService{stats: stats(7, 15, 30)}, &everyService{stats: stats(0, math.MaxInt64, math.MinInt64)}
	got, _, err := newFanout(config(), a.peer("a"), b.peer("b"), empty.peer("c")).TSDBStats(context.Background(), 1, false)
	require.NoError(t, err)
	require.Equal(t, storeapi.HeadStats{NumSeries: 12, MinTime: 10, MaxTime: 30, ChunkCount: 9}, got[""].HeadStats)
	require.Equal(t, []storeapi.Stat{{Name: "a", Value: 12}}, got[""].SeriesCountByMetricName)
	require.Equal(t, []storeapi.Stat{{Name: "l", Value: 7}}, got[""].LabelValueCountByLabelName)
}

// Every service: an endpoint that fails is a warning that names it, or an error;
// without any endpoint that answers there is an error.
func TestServicesPartial(t *testing.T) {
	good, bad := &everyService{}, &everyService{err: errors.New("endpoint bad: on fire")}
	calls := map[string]func(f *Fanout, partial bool) ([]string, error){
		"rules": func(f *Fanout, partial bool) ([]string, error) {
			_, w, err := f.Rules(context.Background(), storeapi.RulesRequest{}, partial)
			return w, err
		},
		"targets": func(f *Fanout, partial bool) ([]string, error) {
			_, w, err := f.Targets(context.Background(), storeapi.TargetsAny, partial)
			return w, err
		},
		"metadata": func(f *Fanout, partial bool) ([]string, error) {
			_, w, err := f.Metadata(context.Background(), "", -1, partial)
			return w, err
		},
		"exemplars": func(f *Fanout, partial bool) ([]string, error) {
			_, w, err := f.Exemplars(context.Background(), "m", 0, 1, partial)
			return w, err
		},
		"status": func(f *Fanout, partial bool) ([]string, error) {
			_, w, err := f.TSDBStats(context.Background(), 10, partial)
			return w, err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			warnings, err := call(newFanout(config(), good.peer("good"), bad.peer("bad")), true)
			require.NoError(t, err)
			require.Equal(t, []string{"endpoint bad: on fire"}, warnings)
			_, err = call(newFanout(config(), good.peer("good"), bad.peer("bad")), false)
			require.ErrorIs(t, err, storeapi.ErrPartial)
			_, err = call(newFanout(config(), bad.peer("bad")), true)
			require.ErrorIs(t, err, storeapi.ErrUnavailable)
			warnings, err = call(newFanout(config(), good.peer("good"), peerOf("store", fake(t, 0, 1))), false)
			require.NoError(t, err, "a store that has no such service is not asked")
			require.Empty(t, warnings)
		})
	}
}
