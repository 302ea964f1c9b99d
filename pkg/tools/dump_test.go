package tools_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/block/blocktest"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/tools"
)

func everything(format string) tools.Dump {
	return tools.Dump{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Format: format, External: true}
}

// TestExportAndImportAgree: what is exported over several blocks, and brought back
// from the text, is what was there. Names and values hold what has to be escaped.
func TestExportAndImportAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	b := bucket.NewMemory()
	want := map[string]map[int64]string{}
	for n := range 3 {
		dir := t.TempDir()
		var series []blocktest.Series
		for i := range 6 {
			lset := labels.FromStrings("__name__", fmt.Sprintf("m%d", i%2), "i", fmt.Sprint(i), "odd", "a\\b\"c\nd")
			samples := blocktest.Floats(int64(2*n)*hour, int64(2*n+2)*hour, 60_000, func(int64) float64 { return r.NormFloat64() })
			samples[3].F, samples[4].F = math.Inf(1), math.Inf(-1)
			series = append(series, blocktest.Series{Labels: lset, Samples: samples})
			key := withCluster(lset).String()
			if want[key] == nil {
				want[key] = map[int64]string{}
			}
			for _, s := range samples {
				want[key][s.T] = fmt.Sprint(s.F)
			}
		}
		m := blocktest.Write(t, dir, series, labels.FromStrings("cluster", "a"), blocktest.Options{ID: id(n), MinTime: int64(2*n) * hour, MaxTime: int64(2*n+2) * hour})
		blocktest.Upload(t, b, dir, m)
	}
	v, err := look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	e := tools.Export{Bucket: b, Dump: everything(tools.FormatOpenMetrics), Dir: t.TempDir()}
	var text bytes.Buffer
	sum, err := e.Blocks(t.Context(), &text, v)
	require.NoError(t, err)
	require.Equal(t, tools.Dumped{Series: 6, Samples: 6 * 360}, sum)
	require.True(t, strings.HasSuffix(text.String(), "# EOF\n"))

	file, dir := filepath.Join(t.TempDir(), "x.om"), t.TempDir()
	require.NoError(t, block.WriteFile(file, text.Bytes()))
	got, err := tools.OpenMetrics(t.Context(), file, dir, quiet)
	require.NoError(t, err)
	require.Equal(t, tools.Imported{Blocks: 3, Samples: 6 * 360}, got)
	back := bucket.NewMemory()
	u := tools.Upload{Bucket: back, Labels: labels.FromStrings("from", "text"), Log: quiet}
	_, err = u.Dir(t.Context(), dir)
	require.NoError(t, err)
	v, err = look(t).In(t.Context(), back, quiet)
	require.NoError(t, err)
	all := map[string]map[int64]string{}
	for _, m := range v.Metas {
		for lset, samples := range samplesOf(t, back, m) {
			if all[lset] == nil {
				all[lset] = map[int64]string{}
			}
			for at, s := range samples {
				all[lset][at] = s
			}
		}
	}
	require.Equal(t, want, all)

	part := everything(tools.FormatOpenMetrics)
	part.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "cluster", "a"), labels.MustNewMatcher(labels.MatchEqual, "i", "3")}
	part.MinTime, part.MaxTime = hour, 3*hour
	e.Dump = part
	v, err = look(t).In(t.Context(), b, quiet)
	require.NoError(t, err)
	sum, err = e.Blocks(t.Context(), &text, v)
	require.NoError(t, err)
	require.Equal(t, tools.Dumped{Series: 1, Samples: 121}, sum)
}

func withCluster(lset labels.Labels) labels.Labels {
	b := labels.NewBuilder(lset)
	return b.Set("cluster", "a").Labels()
}

func TestDumpOfHistogramsAndNumbers(t *testing.T) {
	dir := t.TempDir()
	m := blocktest.Write(t, dir, []blocktest.Series{
		{Labels: labels.FromStrings("__name__", "h"), Samples: []blocktest.Sample{{T: 1000, H: blocktest.Histogram(1)}}},
		{Labels: labels.FromStrings("__name__", "f"), Samples: []blocktest.Sample{{T: 1000, F: math.NaN()}, {T: 2000, F: 0.5}}},
	}, labels.FromStrings("cluster", "a"), blocktest.Options{})
	dirs := []string{filepath.Join(dir, m.ULID.String())}
	var text bytes.Buffer
	d := everything(tools.FormatOpenMetrics)
	sum, err := d.Blocks(t.Context(), &text, dirs)
	require.NoError(t, err)
	require.Equal(t, tools.Dumped{Series: 1, Samples: 2, Histograms: 1}, sum)
	require.Equal(t, "f{cluster=\"a\"} NaN 1.000\nf{cluster=\"a\"} 0.5 2.000\n", text.String())

	text.Reset()
	d = everything(tools.FormatJSON)
	sum, err = d.Blocks(t.Context(), &text, dirs)
	require.NoError(t, err)
	require.Equal(t, tools.Dumped{Series: 2, Samples: 3}, sum)
	lines := strings.Split(text.String(), "\n")
	require.JSONEq(t, `{"metric":{"__name__":"f","cluster":"a"},"values":["NaN",0.5],"timestamps":[1000,2000]}`, lines[0])
	require.True(t, json.Valid([]byte(lines[1])))
	require.Contains(t, lines[1], `"histograms":[{"timestamp":1000`)
	require.ErrorIs(t, tools.CheckFormat("xml"), tools.ErrFormat)
}

func TestImportRefusesWhatHasNoTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.om")
	for text, want := range map[string]string{
		"up 1\n# EOF\n":            "sample without a timestamp",
		"up 1 1\n":                 "data does not end with # EOF",
		"up{ 1 1\n# EOF\n":         "x.om: ",
		"up 1 7200\nup 2 1\n# EOF": "",
	} {
		require.NoError(t, block.WriteFile(file, []byte(text)))
		got, err := tools.OpenMetrics(t.Context(), file, t.TempDir(), quiet)
		if want == "" {
			require.NoError(t, err)
			require.Equal(t, tools.Imported{Blocks: 2, Samples: 2}, got)
			continue
		}
		require.ErrorContains(t, err, want, text)
	}
}

func TestAnalyzer(t *testing.T) {
	b := bucket.NewMemory()
	dir := t.TempDir()
	var series []blocktest.Series
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 10 {
		series = append(series,
			blocktest.Series{Labels: labels.FromStrings("__name__", "random", "i", fmt.Sprint(i)), Samples: blocktest.Floats(0, 2*hour, 15_000, func(int64) float64 { return r.NormFloat64() })},
			blocktest.Series{Labels: labels.FromStrings("__name__", "constant", "i", fmt.Sprint(i)), Samples: blocktest.Floats(0, 2*hour, 15_000, func(int64) float64 { return 1 })},
			blocktest.Series{Labels: labels.FromStrings("__name__", "brief", "pod", fmt.Sprint(i)), Samples: blocktest.Floats(0, hour/2, 15_000, func(int64) float64 { return 1 })})
	}
	m := blocktest.Write(t, dir, series, labels.FromStrings("cluster", "a"), blocktest.Options{ID: id(1), MaxTime: 2 * hour})
	m = blocktest.Upload(t, b, dir, m)
	c := counted(b)
	var a tools.Analyzer
	require.NoError(t, a.Bucket(t.Context(), c, []*block.Meta{&m}, t.TempDir(), nil))
	require.Equal(t, []string{"get " + block.Name(m.ULID, "index")}, c.calls, "chunks are not read")
	res := a.Result(0)
	require.Equal(t, "random", res.Metrics[0].Name)
	require.Greater(t, res.Metrics[0].BytesPerSample, 3*res.Metrics[1].BytesPerSample)
	segments := int64(0)
	for _, f := range m.Thanos.Files {
		if strings.HasPrefix(f.RelPath, "chunks/") {
			segments += f.SizeBytes - 8
		}
	}
	require.Equal(t, segments, res.Bytes, "every byte of the segments belongs to somebody")
	for _, c := range res.Metrics {
		require.Equal(t, uint64(10), c.Series)
		require.Equal(t, c.Name == "brief", c.ShortLived == 10)
	}
	require.Equal(t, uint64(30), res.Series)
	names := map[string]int{}
	for _, l := range res.Labels {
		names[l.Name] = l.Values
	}
	require.Equal(t, map[string]int{"__name__": 3, "i": 10, "pod": 10}, names)
	require.Len(t, a.Result(2).Metrics, 2)

	some := tools.Analyzer{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", "3")}}
	require.NoError(t, some.Dir(t.Context(), filepath.Join(dir, m.ULID.String())))
	require.Equal(t, uint64(2), some.Result(0).Series)
	require.Less(t, some.Result(0).Bytes, res.Bytes/5)
	err := a.Bucket(t.Context(), b, []*block.Meta{{ULID: id(9)}, &m}, t.TempDir(), nil)
	require.Error(t, err)
	require.Equal(t, 2, a.Result(0).Blocks, "one that can't be read stops no other")
}

func TestUsage(t *testing.T) {
	var u tools.Usage
	require.NoError(t, u.Dashboard([]byte(`{"panels": [{"targets": [
		{"expr": "sum(rate(http_requests_total{job=\"$job\"}[$__rate_interval])) / ignoring(x) group_left node_$what"},
		{"expr": "histogram_quantile(0.9, rate(lat_bucket[${win}:1m]))"}, {"expr": "{__name__=~\"go_.*\"}"}, {"expr": "{job=\"a\"}"}]}],
		"templating": {"list": [{"query": "label_values(kube_pod_info, pod)"}, {"query": {"query": "label_values(up{job=\"x\"}, instance)"}}]}}`)))
	require.NoError(t, u.Rules([]byte("groups: [{name: g, rules: [{record: a:b, expr: 'max(load1) by (x)'}]}]")))
	require.NoError(t, u.QueryLog(strings.NewReader(`{"params":{"query":"logged"}}`+"\n\n"+`{"query":"ours_logged"}`+"\n")))
	for name, want := range map[string]bool{
		"http_requests_total": true, "lat_bucket": true, "go_threads": true, "kube_pod_info": true, "up": true, "load1": true, "logged": true, "ours_logged": true,
		"node_load1": true, "nobody_asks": false, "http_requests": false, "mode_load1": false,
	} {
		require.Equal(t, want, u.Uses(name), name)
	}
	require.Equal(t, []string{`{job="a"}`}, u.Nameless)
	unused := u.Unused([]tools.MetricCost{{Name: "up"}, {Name: "it's"}, {Name: "b.c"}})
	require.Equal(t, "metric_relabel_configs:\n  - source_labels: [__name__]\n    regex: 'it''s|b\\.c'\n    action: drop\n", tools.DropRules(unused))
	require.Empty(t, tools.DropRules(nil))
	require.ErrorContains(t, u.QueryLog(strings.NewReader("{}\nx")), "line 2")
	require.Error(t, u.Dashboard([]byte("{")))
	require.ErrorContains(t, u.Files(t.TempDir(), []string{".json"}, u.Dashboard), "no files with .json")
}

func TestCheckRules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yml")
	for text, want := range map[string][]string{
		"groups:\n- name: a\n  partial_response_strategy: abort\n  rules:\n  - {record: 'a:b', expr: up}\n  - {alert: A, expr: up == 0}\n": nil,
		"groups:\n- name: a\n  partial_response_strategy: maybe\n  rules:\n  - {record: 'a:b', expr: up}\n":                                {"want warn or abort"},
		"groups:\n- name: a\n  rules:\n  - record: 'a:b'\n    expr: up{\n":                                                                 {"5:"},
		"groups:\n- name: a\n  ruls: []\n": {"ruls"},
		"groups:\n- name: a\n  rules:\n  - {record: 'a:b', expr: up}\n  - {record: 'a:b', expr: down}\n": {"there twice"},
		"groups:\n- name: a\n  rules:\n  - {alert: A, expr: up, annotations: {x: '{{ $labels.x'}}\n":     {"template"},
	} {
		require.NoError(t, block.WriteFile(path, []byte(text)))
		f := tools.CheckRules(path)
		require.Len(t, f.Errors, len(want), "%s: %v", text, f.Errors)
		for i, w := range want {
			require.Contains(t, f.Errors[i], w)
			require.Contains(t, f.Errors[i], path)
		}
	}
	require.Len(t, tools.CheckRules(path+"x").Errors, 1)
}
