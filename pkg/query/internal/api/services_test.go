package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

// services answers as the fan-in of the querier does, with what it was given.
type services struct {
	groups   []storeapi.RuleGroup
	targets  storeapi.Targets
	metadata map[string][]storeapi.Metadata
	stats    map[string]storeapi.TSDBStats
	warn     []string
	err      error

	partial bool // as last asked for
	limit   int
	rules   storeapi.RulesRequest
}

func (s *services) Rules(_ context.Context, req storeapi.RulesRequest, partial bool) ([]storeapi.RuleGroup, []string, error) {
	s.rules, s.partial = req, partial
	return s.groups, s.warn, s.err
}

func (s *services) Targets(_ context.Context, _ storeapi.TargetState, partial bool) (storeapi.Targets, []string, error) {
	s.partial = partial
	return s.targets, s.warn, s.err
}

func (s *services) Metadata(_ context.Context, _ string, limit int, partial bool) (map[string][]storeapi.Metadata, []string, error) {
	s.partial, s.limit = partial, limit
	return s.metadata, s.warn, s.err
}

func (s *services) Exemplars(_ context.Context, _ string, _, _ int64, partial bool) ([]storeapi.ExemplarSeries, []string, error) {
	s.partial = partial
	return nil, s.warn, s.err
}

func (s *services) TSDBStats(_ context.Context, limit int, partial bool) (map[string]storeapi.TSDBStats, []string, error) {
	s.partial, s.limit = partial, limit
	return s.stats, s.warn, s.err
}

func newServicesAPI(t *testing.T, s *services) *API {
	return newTestAPI(t, storage.QueryableFunc(func(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }),
		func(_ *Config, p *Parts) {
			p.Rules, p.Targets, p.Metadata, p.Exemplars, p.TSDB = s, s, s, s, s
		})
}

func testGroups() []storeapi.RuleGroup {
	at := time.Unix(100, 5e8).UTC()
	return []storeapi.RuleGroup{
		{Name: "b", File: "two.yml", Interval: 30, Rules: []storeapi.Rule{
			{Type: "recording", Name: "job:up:sum", Query: "sum by (job) (up)", Labels: labels.FromStrings("team", "a"), Health: "ok", LastEvaluation: at},
		}},
		{Name: "a", File: "one.yml", Interval: 15, Limit: 3, EvaluationTime: 0.5, LastEvaluation: at, Rules: []storeapi.Rule{
			{
				Type: "alerting", Name: "Down", Query: "up == 0", Labels: labels.FromStrings("severity", "<b>"), Health: "ok", State: "firing",
				Duration: 60, Annotations: labels.FromStrings("summary", "{{ $value }}"), LastEvaluation: at,
				Alerts: []storeapi.Alert{{Labels: labels.FromStrings("alertname", "Down"), State: "firing", ActiveAt: &at, Value: "0e+00"}},
			},
			{Type: "recording", Name: "plain", Query: "up", Health: "err", LastError: "boom", LastEvaluation: at},
			{Type: "alerting", Name: "Quiet", Query: "up > 5", Health: "ok", State: "inactive", LastEvaluation: at},
		}},
	}
}

func TestRules(t *testing.T) {
	s := &services{groups: testGroups()}
	a := newServicesAPI(t, s)
	body := get(a, "/api/v1/rules").Body.String()
	require.Equal(t, `{"status":"success","data":{"groups":[`+
		`{"name":"a","file":"one.yml","rules":[`+
		`{"state":"firing","name":"Down","query":"up == 0","duration":60,"keepFiringFor":0,"labels":{"severity":"\u003cb\u003e"},"annotations":{"summary":"{{ $value }}"},`+
		`"alerts":[{"labels":{"alertname":"Down"},"annotations":{},"state":"firing","activeAt":"1970-01-01T00:01:40.5Z","value":"0e+00"}],`+
		`"health":"ok","evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40.5Z","type":"alerting"},`+
		`{"name":"plain","query":"up","labels":{},"health":"err","lastError":"boom","evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40.5Z","type":"recording"},`+
		`{"state":"inactive","name":"Quiet","query":"up \u003e 5","duration":0,"keepFiringFor":0,"labels":{},"annotations":{},"alerts":[],"health":"ok","evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40.5Z","type":"alerting"}`+
		`],"interval":15,"limit":3,"evaluationTime":0.5,"lastEvaluation":"1970-01-01T00:01:40.5Z"},`+
		`{"name":"b","file":"two.yml","rules":[`+
		`{"name":"job:up:sum","query":"sum by (job) (up)","labels":{"team":"a"},"health":"ok","evaluationTime":0,"lastEvaluation":"1970-01-01T00:01:40.5Z","type":"recording"}`+
		`],"interval":30,"limit":0,"evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z"}]}}`, body)
	require.True(t, s.partial)

	names := func(params string) []string {
		t.Helper()
		w := get(a, "/api/v1/rules?"+params)
		require.Equal(t, 200, w.Code, "%s: %s", params, w.Body)
		var out struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name string }
				}
			}
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
		list := []string{}
		for _, g := range out.Data.Groups {
			for _, r := range g.Rules {
				list = append(list, r.Name)
			}
		}
		return list
	}
	for params, want := range map[string][]string{
		"type=alert":                         {"Down", "Quiet"},
		"type=RECORD":                        {"plain", "job:up:sum"},
		"rule_name[]=Down&rule_name[]=plain": {"Down", "plain"},
		"rule_group[]=b":                     {"job:up:sum"},
		"file[]=one.yml&type=record":         {"plain"},
		"file[]=none":                        {},
		"match[]={team=\"a\"}":               {"job:up:sum"},
		"match[]={team=\"a\"}&match[]={severity=~\"%3Cb.*\"}": {"Down", "job:up:sum"},
		"partial_response=false":                              {"Down", "plain", "Quiet", "job:up:sum"},
	} {
		require.Equal(t, want, names(params), params)
	}
	require.Contains(t, get(a, "/api/v1/rules?exclude_alerts=true").Body.String(), `"alerts":[],`)

	alerts := get(a, "/api/v1/alerts").Body.String()
	require.Equal(t, `{"status":"success","data":{"alerts":[{"labels":{"alertname":"Down"},"annotations":{},"state":"firing","activeAt":"1970-01-01T00:01:40.5Z","value":"0e+00"}]}}`, alerts)
}

func TestRulePages(t *testing.T) {
	a := newServicesAPI(t, &services{groups: testGroups()})
	type answer struct {
		Data struct {
			Groups         []struct{ Name string }
			GroupNextToken string
		}
	}
	var first, second answer
	require.NoError(t, json.Unmarshal(get(a, "/api/v1/rules?group_limit=1").Body.Bytes(), &first))
	require.Equal(t, "a", first.Data.Groups[0].Name)
	require.Len(t, first.Data.Groups, 1)
	require.Len(t, first.Data.GroupNextToken, 64)
	require.NoError(t, json.Unmarshal(get(a, "/api/v1/rules?group_limit=1&group_next_token="+first.Data.GroupNextToken).Body.Bytes(), &second))
	require.Equal(t, "b", second.Data.Groups[0].Name)
	require.Empty(t, second.Data.GroupNextToken)

	for params, text := range map[string]string{
		"group_limit=0":                    "group_limit needs to be greater than 0",
		"group_limit=x":                    "group_limit needs to be a valid number",
		"group_next_token=x":               "group_limit needs to be present",
		"group_limit=1&group_next_token=x": "were rule groups changed?",
		"type=other":                       `not supported value \"other\"`,
		"exclude_alerts=x":                 "error converting exclude_alerts",
		"match[]={}":                       "match[] must contain at least one non-empty matcher",
		"partial_response=x":               "true nor false",
	} {
		w := get(a, "/api/v1/rules?"+params)
		require.Equal(t, 400, w.Code, params)
		require.Contains(t, w.Body.String(), text, params)
	}
}

func TestTargets(t *testing.T) {
	a := newServicesAPI(t, &services{targets: storeapi.Targets{
		Active: []storeapi.ActiveTarget{
			{DiscoveredLabels: labels.FromStrings("__scrape_interval__", "15s", "__scrape_timeout__", "10s"), Labels: labels.FromStrings("job", "b"), ScrapePool: "b", Health: "up"},
			{ScrapePool: "a", Health: "down", LastError: "<refused>"},
		},
		Dropped: []storeapi.DroppedTarget{{DiscoveredLabels: labels.FromStrings("job", "c")}},
	}})
	require.Equal(t, `{"status":"success","data":{"activeTargets":[`+
		`{"discoveredLabels":{},"labels":{},"scrapePool":"a","scrapeUrl":"","globalUrl":"","lastError":"\u003crefused\u003e","lastScrape":"0001-01-01T00:00:00Z","lastScrapeDuration":0,"health":"down","scrapeInterval":"","scrapeTimeout":""},`+
		`{"discoveredLabels":{"__scrape_interval__":"15s","__scrape_timeout__":"10s"},"labels":{"job":"b"},"scrapePool":"b","scrapeUrl":"","globalUrl":"","lastError":"","lastScrape":"0001-01-01T00:00:00Z","lastScrapeDuration":0,"health":"up","scrapeInterval":"15s","scrapeTimeout":"10s"}`+
		`],"droppedTargets":[{"discoveredLabels":{"job":"c"},"scrapePool":"c"}],"droppedTargetCounts":{"c":1}}}`,
		get(a, "/api/v1/targets").Body.String())
	require.Equal(t, `{"status":"success","data":{"activeTargets":[],"droppedTargets":[{"discoveredLabels":{"job":"c"},"scrapePool":"c"}],"droppedTargetCounts":{"c":1}}}`,
		get(a, "/api/v1/targets?state=dropped").Body.String())
	w := get(a, "/api/v1/targets?state=active&scrapePool=none")
	require.Equal(t, `{"status":"success","data":{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":null}}`, w.Body.String())
	w = get(a, "/api/v1/targets?state=odd")
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "any, active, dropped")
}

func TestMetadata(t *testing.T) {
	s := &services{metadata: map[string][]storeapi.Metadata{
		"up": {{Type: "gauge", Help: "a"}, {Type: "gauge", Help: "b"}}, "a": {{Type: "counter", Unit: "seconds"}}, "z": nil,
	}}
	a := newServicesAPI(t, s)
	for params, want := range map[string]string{
		"":                           `{"a":[{"type":"counter","help":"","unit":"seconds"}],"up":[{"type":"gauge","help":"a","unit":""},{"type":"gauge","help":"b","unit":""}],"z":[]}`,
		"limit=1":                    `{"a":[{"type":"counter","help":"","unit":"seconds"}]}`,
		"limit=0":                    `{}`,
		"limit_per_metric=1&limit=2": `{"a":[{"type":"counter","help":"","unit":"seconds"}],"up":[{"type":"gauge","help":"a","unit":""}]}`,
	} {
		require.Equal(t, `{"status":"success","data":`+want+`}`, get(a, "/api/v1/metadata?"+params).Body.String(), params)
	}
	for _, params := range []string{"limit=x", "limit_per_metric=x", "partial_response=x"} {
		require.Equal(t, 400, get(a, "/api/v1/metadata?"+params).Code)
	}
}

func TestTSDBStatus(t *testing.T) {
	s := &services{stats: map[string]storeapi.TSDBStats{
		"a": {
			HeadStats:               storeapi.HeadStats{NumSeries: 2, NumLabelPairs: 3, ChunkCount: 4, MinTime: 50, MaxTime: 60},
			SeriesCountByMetricName: []storeapi.Stat{{Name: "up", Value: 1}, {Name: "x", Value: 2}},
		},
		"b": {
			HeadStats:               storeapi.HeadStats{NumSeries: 20, NumLabelPairs: 30, ChunkCount: 40, MinTime: 40, MaxTime: 55},
			SeriesCountByMetricName: []storeapi.Stat{{Name: "up", Value: 4}, {Name: "y", Value: 2}},
		},
	}}
	a := newServicesAPI(t, s)
	require.Equal(t, `{"status":"success","data":{"headStats":{"numSeries":22,"numLabelPairs":33,"chunkCount":44,"minTime":40,"maxTime":60},`+
		`"seriesCountByMetricName":[{"name":"up","value":5},{"name":"x","value":2}],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}}`,
		get(a, "/api/v1/status/tsdb?limit=2").Body.String())
	require.Equal(t, 2, s.limit)
	for _, params := range []string{"limit=0", "limit=x", "limit=10001"} {
		require.Equal(t, 400, get(a, "/api/v1/status/tsdb?"+params).Code)
	}
}

// RELIABILITY P2: warnings and errors of services are told as those of queries are.
func TestServiceProblems(t *testing.T) {
	paths := []string{"rules", "alerts", "targets", "metadata", "query_exemplars?query=up", "status/tsdb"}
	for _, path := range paths {
		s := &services{warn: []string{"rules of a:1: timed out"}}
		a := newServicesAPI(t, s)
		w := get(a, "/api/v1/"+path)
		require.Equal(t, 200, w.Code, path)
		require.Contains(t, w.Body.String(), `"warnings":["rules of a:1: timed out"]`, path)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.True(t, s.partial)

		s.err = fmt.Errorf("rules of a:1: %w", storeapi.ErrUnavailable)
		u, err := url.Parse("/api/v1/" + path)
		require.NoError(t, err)
		q := u.Query()
		q.Set("partial_response", "false")
		u.RawQuery = q.Encode()
		w = get(a, u.String())
		require.Equal(t, 503, w.Code, path)
		require.False(t, s.partial, path)
	}
}

func TestStatus(t *testing.T) {
	failed := "a:2: refused"
	a := newTestAPI(t, loadTestData(t), func(_ *Config, p *Parts) {
		p.Status = Status{
			Build:  BuildInfo{Version: "0.1.0", Revision: "abc", GoVersion: "go1.26"},
			Flags:  func() map[string]string { return map[string]string{"query.timeout": "2m"} },
			Config: func() string { return "a: b\n" },
			Reload: func() (bool, time.Time) { return false, time.Unix(5, 0) },
		}
		p.Stores = func() map[string][]StoreStatus {
			return map[string][]StoreStatus{"store": {
				{Name: "a:1", LastCheck: time.Unix(9, 0).UTC(), LabelSets: []labels.Labels{labels.FromStrings("r", "<1>")}, MinTime: 1, MaxTime: 2},
				{Name: "a:2", LastError: &failed},
			}}
		}
	})
	require.Equal(t, `{"status":"success","data":{"query.timeout":"2m"}}`, get(a, "/api/v1/status/flags").Body.String())
	require.Equal(t, `{"status":"success","data":{"yaml":"a: b\n"}}`, get(a, "/api/v1/status/config").Body.String())
	require.Equal(t, `{"status":"success","data":{"store":[`+
		`{"name":"a:1","lastCheck":"1970-01-01T00:00:09Z","lastError":null,"labelSets":[{"r":"\u003c1\u003e"}],"minTime":1,"maxTime":2},`+
		`{"name":"a:2","lastCheck":"0001-01-01T00:00:00Z","lastError":"a:2: refused","labelSets":[],"minTime":0,"maxTime":0}]}}`,
		get(a, "/api/v1/stores").Body.String())
	require.Equal(t, `{"status":"success","data":{"version":"3.16.0","revision":"abc","branch":"","buildUser":"","buildDate":"","goVersion":"go1.26","application":"Firnline","applicationVersion":"0.1.0"}}`,
		get(a, "/api/v1/status/buildinfo").Body.String())
	body := get(a, "/api/v1/status/runtimeinfo").Body.String()
	require.Contains(t, body, `"serverTime":"1970-01-01T00:20:00Z","reloadConfigSuccess":false,"lastConfigTime":"1970-01-01T00:00:05Z"`)
}
