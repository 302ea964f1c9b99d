package sidecar

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/storeapi"
)

const testRules = `
groups:
  - name: g
    interval: 200ms
    rules:
      - {record: "up:sum", expr: "sum(up)", labels: {team: a}}
      - {alert: Always, expr: "vector(1)", labels: {team: b, cluster: own}, annotations: {text: hi}}
`

// TestServices asks a real Prometheus for everything beside series.
func TestServices(t *testing.T) {
	target := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		fmt.Fprint(w, "# HELP hits Hits.\n# TYPE hits counter\nhits_total{path=\"/\"} 5 # {trace_id=\"abc\"} 0.5\n# EOF\n")
	})
	p := newPrometheus(t, "")
	rules := filepath.Join(p.dir, "rules.yml")
	require.NoError(t, os.WriteFile(rules, []byte(testRules), 0o600))
	p.writeConfig(fmt.Sprintf(`
global: {external_labels: {cluster: eu-1, replica: a}, scrape_interval: 2s} # in which a scrape must be over, too
rule_files: [%s]
storage: {exemplars: {max_exemplars: 1000}}
scrape_configs:
  - job_name: app
    static_configs: [{targets: [%q]}, {targets: ["dropped:1"]}]
    relabel_configs: [{source_labels: [__address__], regex: "dropped.*", action: drop}]
`, rules, mustURL(t, target).Host))
	p.args = append(p.args, "--enable-feature=exemplar-storage")
	p.start()
	s := ready(t, run(t, testCfg(t, p.url))).Services()

	t.Run("rules", func(t *testing.T) { testRulesOf(t, p, s.Rules, rules) })
	t.Run("targets", func(t *testing.T) { testTargetsOf(t, p, s.Targets) })
	t.Run("metadata", func(t *testing.T) {
		var got map[string][]storeapi.Metadata
		p.eventually("metadata", func() bool {
			var err error
			got, _, err = s.Metadata.Metadata(t.Context(), "", -1, true)
			return err == nil && len(got) > 0
		})
		require.Equal(t, []storeapi.Metadata{{Type: "counter", Help: "Hits."}}, got["hits"])
		got, _, err := s.Metadata.Metadata(t.Context(), "hits", -1, true)
		require.NoError(t, err)
		require.Len(t, got, 1)
		got, _, err = s.Metadata.Metadata(t.Context(), "", 0, true)
		require.NoError(t, err)
		require.Empty(t, got)
	})
	t.Run("exemplars", func(t *testing.T) { testExemplarsOf(t, p, s.Exemplars) })
	t.Run("status", func(t *testing.T) {
		got, _, err := s.Status.TSDBStats(t.Context(), 3, true)
		require.NoError(t, err)
		stats := got[""]
		require.Positive(t, stats.HeadStats.NumSeries)
		require.Len(t, stats.SeriesCountByMetricName, 3)
		require.Positive(t, stats.SeriesCountByMetricName[0].Value)
	})
}

func testRulesOf(t *testing.T, p *promServer, src storeapi.RulesSource, file string) {
	names := func(req storeapi.RulesRequest) (out []string) {
		groups, warnings, err := src.Rules(t.Context(), req, false)
		require.NoError(t, err)
		require.Empty(t, warnings)
		for _, g := range groups {
			for _, r := range g.Rules {
				out = append(out, g.Name+"/"+r.Name+r.Labels.String())
			}
		}
		return out
	}
	record, alert := `g/up:sum{cluster="eu-1", replica="a", team="a"}`, `g/Always{cluster="eu-1", replica="a", team="b"}`
	match := func(name, value string) [][]*labels.Matcher {
		return [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, name, value)}}
	}
	for _, c := range []struct {
		req  storeapi.RulesRequest
		want []string
	}{
		{storeapi.RulesRequest{}, []string{record, alert}},
		{storeapi.RulesRequest{Type: storeapi.RulesAlerting}, []string{alert}},
		{storeapi.RulesRequest{Type: storeapi.RulesRecording}, []string{record}},
		{storeapi.RulesRequest{Names: []string{"Always"}}, []string{alert}},
		{storeapi.RulesRequest{Groups: []string{"other"}}, nil},
		{storeapi.RulesRequest{Files: []string{file}}, []string{record, alert}},
		{storeapi.RulesRequest{Files: []string{"other"}}, nil},
		{storeapi.RulesRequest{Matchers: match("team", "a")}, []string{record}},
		{storeapi.RulesRequest{Matchers: match("cluster", "eu-1")}, []string{record, alert}},
		{storeapi.RulesRequest{Matchers: match("cluster", "own")}, nil},
		{storeapi.RulesRequest{Matchers: append(match("team", "a"), match("team", "b")...)}, []string{record, alert}},
	} {
		require.Equal(t, c.want, names(c.req), "%+v", c.req)
	}
	p.eventually("the alert fires", func() bool {
		groups, _, err := src.Rules(t.Context(), storeapi.RulesRequest{Type: storeapi.RulesAlerting}, true)
		require.NoError(t, err)
		r := groups[0].Rules[0]
		return r.State == "firing" && len(r.Alerts) == 1 && r.Alerts[0].Value == "1e+00" && r.Alerts[0].ActiveAt != nil &&
			r.Annotations.Get("text") == "hi" && groups[0].Interval == 0.2 && !groups[0].LastEvaluation.IsZero()
	})
}

func testTargetsOf(t *testing.T, p *promServer, src storeapi.TargetsSource) {
	var got storeapi.Targets
	p.eventually("targets are scraped", func() bool {
		var err error
		got, _, err = src.Targets(t.Context(), storeapi.TargetsAny, true)
		require.NoError(t, err)
		return len(got.Active) == 1 && got.Active[0].Health == "up"
	})
	active := got.Active[0]
	require.Equal(t, "app", active.ScrapePool)
	for _, l := range []labels.Labels{active.Labels, active.DiscoveredLabels, got.Dropped[0].DiscoveredLabels} {
		require.Equal(t, "eu-1/a", l.Get("cluster")+"/"+l.Get("replica"))
	}
	require.Equal(t, "app", active.Labels.Get("job"))
	got, _, err := src.Targets(t.Context(), storeapi.TargetsDropped, true)
	require.NoError(t, err)
	require.Empty(t, got.Active)
	require.Len(t, got.Dropped, 1)
}

func testExemplarsOf(t *testing.T, p *promServer, src storeapi.ExemplarsSource) {
	end := time.Now().Add(time.Hour).UnixMilli()
	var got []storeapi.ExemplarSeries
	p.eventually("exemplars", func() bool {
		var err error
		got, _, err = src.Exemplars(t.Context(), `rate(hits_total{cluster="eu-1"}[5m])`, 0, end, true)
		require.NoError(t, err)
		return len(got) == 1
	})
	require.Equal(t, "eu-1", got[0].SeriesLabels.Get("cluster"))
	require.Equal(t, labels.FromStrings("trace_id", "abc"), got[0].Exemplars[0].Labels)
	require.InDelta(t, 0.5, got[0].Exemplars[0].Value, 0)
	require.InDelta(t, time.Now().UnixMilli(), got[0].Exemplars[0].Ts, 600_000)

	got, _, err := src.Exemplars(t.Context(), `hits_total{cluster="other"}`, 0, end, true)
	require.NoError(t, err)
	require.Empty(t, got)
	_, _, err = src.Exemplars(t.Context(), `{cluster="eu-1"}`, 0, end, true)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
	_, _, err = src.Exemplars(t.Context(), `rate(`, 0, end, true)
	require.ErrorIs(t, err, storeapi.ErrBadRequest)
}
