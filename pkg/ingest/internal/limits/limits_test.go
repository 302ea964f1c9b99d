package limits

import (
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/ingest/internal/wire"
	"github.com/firnline/firnline/pkg/tenant"
)

func parse(t *testing.T, text string) (*tenant.Limits[Limits], error) {
	t.Helper()
	return tenant.NewLimits(tenant.LimitsConfig{Content: text}, Form(), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// TestThanosFile: a file that Thanos' receive takes (COMPAT A11).
func TestThanosFile(t *testing.T) {
	l, err := parse(t, `
write:
  global:
    max_concurrency: 30
    meta_monitoring_url: "http://localhost:9090"
    meta_monitoring_limit_query: "sum(prometheus_tsdb_head_series) by (tenant)"
  default:
    request:
      size_bytes_limit: 1024
      series_limit: 1000
      samples_limit: 10
    head_series_limit: 1000
  tenants:
    acme:
      request:
        size_bytes_limit: 0
        series_limit: 0
        samples_limit: 0
      head_series_limit: 1000
    ajax:
      request:
        series_limit: 50000
        samples_limit: 500
`)
	require.NoError(t, err)
	require.Equal(t, Request{SizeBytesLimit: 1024, SeriesLimit: 1000, SamplesLimit: 10}, l.Of("x").Request)
	require.Equal(t, Request{}, l.Of("acme").Request)
	require.Equal(t, Request{SizeBytesLimit: 1024, SeriesLimit: 50000, SamplesLimit: 500}, l.Of("ajax").Request)
	require.Equal(t, 1000, l.Of("ajax").HeadSeriesLimit)
	require.Equal(t, Defaults().MaxLabels, l.Of("ajax").MaxLabels)
}

func TestOurKeys(t *testing.T) {
	l, err := parse(t, `
write:
  default:
    samples_per_second: 1000
    out_of_order_window: 30m
    drop: ['{__name__=~"go_.*"}']
    active_series: {team: ['{team!=""}'], jobs: ['{job="a"}', '{job="b"}']}
    relabel_configs:
    - {source_labels: [a], target_label: b}
    ha: {enabled: true, replica_label: r}
    otlp: {promote_resource_attributes: [service.name], target_info: false}
`)
	require.NoError(t, err)
	a := l.Of("a")
	require.Equal(t, 10_000, a.Burst())
	require.Equal(t, "cluster", a.HA.ClusterLabel)
	require.Equal(t, "r", a.HA.ReplicaLabel)
	require.Len(t, a.RelabelConfigs, 1)
	require.Equal(t, []string{"service.name"}, a.OTLP.PromoteResourceAttributes)
	require.Equal(t, wire.DefaultOTLP().TranslationStrategy, a.OTLP.TranslationStrategy)
	require.True(t, a.Drop[0].Matches(labels.FromStrings("__name__", "go_gc")))
	require.False(t, a.Drop[0].Matches(labels.FromStrings("__name__", "up")))
	names := a.ActiveSeries.Names()
	require.Equal(t, []string{"jobs", "team"}, names)
	require.EqualValues(t, 0b01, a.ActiveSeries.Mask(names, labels.FromStrings("job", "b")))
	require.EqualValues(t, 0b10, a.ActiveSeries.Mask(names, labels.FromStrings("team", "b")))
}

func TestWrongLimits(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`max_labels: -1`, "--limits-config:1: default: max_labels: -1: give 0 for no limit, or more"},
		{`relabel_configs: [{action: hashmod, target_label: a}]`, "--limits-config:1: default: relabel_configs: rule 1: relabel configuration for hashmod requires non-zero modulus"},
		{`relabel_configs: [{actoin: drop}]`, `--limits-config:1: unknown key "actoin"`},
		{`otlp: {translation_strategy: any}`, `--limits-config:1: default: otlp: translation_strategy "any" is none of`},
		{`drop: ["{"]`, "--limits-config:1: a series selector is wanted"},
		{`ha: {enabled: true, update_interval: 20s}`, "--limits-config:1: default: ha: failover_timeout 30s: give at least twice update_interval 20s, which is more than 0"},
		{`ha: {enabled: true, replica_label: cluster}`, `--limits-config:1: default: ha: cluster_label "cluster" and replica_label "cluster": give two names`},
	} {
		_, err := parse(t, "write: {default: {"+tc.text+"}}")
		require.ErrorContains(t, err, tc.want)
	}
}

// TestVerdict: what decides about series changes it, what does not, doesn't.
func TestVerdict(t *testing.T) {
	verdict := func(text string) string {
		l, err := parse(t, "write: {default: {"+text+"}}")
		require.NoError(t, err)
		return l.Of("a").Verdict()
	}
	seen := map[string]string{}
	for _, text := range []string{
		"", "max_labels: 3", "max_label_name_bytes: 3", "max_label_value_bytes: 3", "drop: ['{a=\"b\"}']", "active_series: {a: ['{a=\"b\"}']}",
		"ha: {enabled: true}", "ha: {cluster_label: x}", "ha: {replica_label: x}",
		"relabel_configs: [{action: labeldrop, regex: a}]", "relabel_configs: [{action: labeldrop, regex: b}]",
	} {
		v := verdict(text)
		require.Equal(t, v, verdict(text))
		require.NotContains(t, seen, v, text)
		seen[v] = text
	}
	for _, text := range []string{"samples_per_second: 5", "head_series_limit: 5", "request: {series_limit: 4}", "ha: {failover_timeout: 1h}"} {
		require.Equal(t, verdict(""), verdict(text), text)
	}
}

func TestReferenceIsWhole(t *testing.T) {
	all := Reference()
	require.Greater(t, len(all), 20)
	for _, e := range all {
		require.NotEmpty(t, e.Doc, e.Key)
		require.NotContains(t, e.Key, "..")
	}
	require.Contains(t, all, Entry{"ha.failover_timeout", "30s", "When the sender that is taken has been silent for this long, another one takes over."})
	d := Defaults()
	require.NoError(t, d.Validate())
}
