package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// allIn starts `firnline all` on a folder.
func (r *rig) allIn(dir string, args ...string) *stack.Firnline {
	r.t.Helper()
	return r.start(append([]string{"all", "--data-dir=" + filepath.Join(r.dir, dir), "--self-scrape.interval=1s", "--web.enable-admin-api",
		"--shipper.interval=1s", "--sync-block-duration=1s", "--shutdown-delay=100ms", "--receive-forward-timeout=2m", "--query.timeout=20m"}, args...)...)
}

// values returns what an instant query has, by the labels of its series.
func values(t *testing.T, f *stack.Firnline, params url.Values) (map[string]string, error) {
	t.Helper()
	r, err := result(t, "http://"+f.HTTP, "query", params)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, s := range r.Result {
		out[fmt.Sprint(s.Metric)] = fmt.Sprint(s.Value[1])
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("nothing by %s", params.Get("query"))
	}
	return out, nil
}

// TestAllInOneProcess: what a newcomer does. An empty folder, a Prometheus that
// writes to it, an answer, a death in the middle of it, and the same answer.
//
// RELIABILITY I5, P1
func TestAllInOneProcess(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	all := r.allIn("data")
	p, _ := r.prometheusOf(stack.PrometheusConfig{
		Name: "prometheus", BlockDuration: 2 * time.Hour, RemoteWrite: []stack.RemoteWrite{{URL: "http://" + all.HTTP + "/api/v1/write"}},
	})
	const mine = `{job!="firnline",__name__=~"prometheus_.*"}`
	eventually(t, time.Minute, func() error {
		_, err := values(t, all, url.Values{"query": {`max(count_over_time(up{job!="firnline"}[10m])) > 15`}})
		return err
	})
	at := time.Now()
	var before map[string]string
	eventually(t, time.Minute, func() (err error) { // until nothing of then is on its way any more
		if before, err = values(t, all, url.Values{"query": {mine}, "time": {unix(at)}}); err != nil {
			return err
		}
		later, err := result(t, p.URL, "query", url.Values{"query": {"timestamp(up) > " + unix(at)}})
		if err == nil && len(later.Result) == 0 {
			err = errors.New("a scrape may be under way since then")
		}
		if err != nil {
			return err
		}
		there, err := result(t, p.URL, "query", url.Values{"query": {mine}, "time": {unix(at)}})
		want := map[string]string{}
		for _, s := range there.Result {
			s.Metric["tenant_id"] = "default-tenant"
			want[fmt.Sprint(s.Metric)] = fmt.Sprint(s.Value[1])
		}
		if err == nil {
			err = same(t, mine, want, before)
		}
		return err
	})
	require.Greater(t, len(before), 100)

	for range 2 {
		all.Kill()
		require.NoError(t, all.Restart(t.Context()))
		after, err := values(t, all, url.Values{"query": {mine}, "time": {unix(at)}})
		require.NoError(t, err)
		require.Equal(t, before, after, "the same answer")
	}
	eventually(t, time.Minute, func() error { // and it goes on
		_, err := values(t, all, url.Values{"query": {fmt.Sprintf(`max(timestamp(up{job!="firnline"})) > %s`, unix(at.Add(5*time.Second)))}})
		return err
	})

	t.Run("own metrics", func(t *testing.T) {
		self := fmt.Sprintf(`{job="firnline",instance=%q}`, all.HTTP)
		eventually(t, 20*time.Second, func() error {
			got, err := values(t, all, url.Values{"query": {`up` + self}})
			if err == nil && slices.Collect(maps.Values(got))[0] != "1" {
				err = fmt.Errorf("up: %v", got) // a scrape may have come too late
			}
			if err == nil {
				_, err = values(t, all, url.Values{"query": {`histogram_count(firnline_server_http_request_duration_seconds` + self + `) > 0`}})
			}
			if err == nil {
				_, err = values(t, all, url.Values{"query": {`count by (component) (` + self[:len(self)-1] + `,__name__=~"firnline_.*"}) > 10`}})
			}
			return err
		})
	})
	t.Run("OTLP", func(t *testing.T) {
		body := fmt.Sprintf(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"hello","gauge":{"dataPoints":[{"asDouble":7,"timeUnixNano":"%d"}]}}]}]}]}`, time.Now().UnixNano())
		a, err := stack.Post(t.Context(), "http://"+all.HTTP+"/v1/metrics", http.Header{"Content-Type": {"application/json"}}, []byte(body))
		require.NoError(t, err)
		require.Equal(t, 200, a.Status, a.Body)
		got, err := values(t, all, url.Values{"query": {"hello"}})
		require.NoError(t, err)
		require.Equal(t, []string{"7"}, slices.Collect(maps.Values(got)), "at once")
	})
	t.Run("status", func(t *testing.T) {
		head := headSeries(t, "http://"+all.HTTP)
		require.Greater(t, head, headSeries(t, p.URL)/2)
	})
}

// headSeries is what status/tsdb says of the series in heads.
func headSeries(t *testing.T, base string) uint64 {
	t.Helper()
	a, err := stack.Ask(t.Context(), base, "status/tsdb", url.Values{})
	require.NoError(t, err)
	var s struct {
		HeadStats struct {
			NumSeries uint64 `json:"numSeries"`
		} `json:"headStats"`
	}
	require.NoError(t, json.Unmarshal(a.Data, &s), string(a.Data))
	return s.HeadStats.NumSeries
}

// TestAllShipsToItsBucket: what was pushed becomes blocks in the folder's bucket,
// from which the store in the same process answers, and later one that stands by itself.
func TestAllShipsToItsBucket(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	all := r.allIn("data")
	begin := time.Now().Add(-30 * time.Minute).Truncate(time.Minute)
	want := pushMinutes(t, all, "", begin, 100)
	a, err := stack.Post(t.Context(), "http://"+all.HTTP+"/api/v1/ingest/flush", nil, nil)
	require.NoError(t, err)
	require.Equal(t, 200, a.Status, a.Body)
	blocks, err := filepath.Glob(filepath.Join(r.dir, "data", "bucket", "*", "meta.json"))
	require.NoError(t, err)
	require.NotEmpty(t, blocks)

	answers := func(q *stack.Firnline, more url.Values) error {
		params := url.Values{"query": {"shipped[1h]"}, "time": {unix(time.Now())}}
		maps.Copy(params, more)
		res, err := result(t, "http://"+q.HTTP, "query", params)
		if err != nil {
			return err
		}
		if len(res.Result) != 1 {
			return fmt.Errorf("%d series", len(res.Result))
		}
		got := map[int64]string{}
		for _, v := range res.Result[0].Values {
			got[int64(v[0].(float64)*1000+0.5)] = v[1].(string)
		}
		if len(got) < len(want) {
			return fmt.Errorf("%d of %d samples", len(got), len(want))
		}
		require.Equal(t, want, got)
		return nil
	}
	require.NoError(t, answers(all, nil), "of both")
	for _, name := range []string{"store", "ingest"} {
		eventually(t, time.Minute, func() error { return answers(all, url.Values{"storeMatch[]": {fmt.Sprintf(`{__address__=%q}`, name)}}) })
	}

	// Growing out of it: the same bucket, read by components of their own.
	all.Stop()
	bucket := "--objstore.config={type: FILESYSTEM, config: {directory: " + filepath.Join(r.dir, "data", "bucket") + "}}"
	gateway := r.start("store", "--data-dir="+filepath.Join(r.dir, "gateway"), bucket)
	q := r.asks(gateway)
	eventually(t, time.Minute, func() error { return answers(q, nil) })
}

// TestAllBesideAPrometheus: with --prometheus.url the process is a sidecar, too.
func TestAllBesideAPrometheus(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	p, _ := r.prometheus("prometheus", map[string]string{"cluster": "eu1", "replica": "a"})
	all := r.allIn("data", "--prometheus.url="+p.URL, "--sidecar.tsdb.path="+p.DataDir, "--prometheus.get_config_interval=1s",
		"--query.replica-label=ingest", "--query.replica-label=replica")
	eventually(t, 30*time.Second, func() error {
		_, err := values(t, all, url.Values{"query": {`prometheus_build_info{cluster="eu1"}`}})
		return err
	})
	theirs := headSeries(t, p.URL) // and later more
	require.GreaterOrEqual(t, headSeries(t, "http://"+all.HTTP), theirs, "of both heads")
	a, err := stack.Ask(t.Context(), "http://"+all.HTTP, "targets", url.Values{})
	require.NoError(t, err)
	require.Contains(t, string(a.Data), `"cluster":"eu1"`, "the sidecar's services are asked, too")
	a, err = stack.Ask(t.Context(), "http://"+all.HTTP, "stores", url.Values{})
	require.NoError(t, err)
	for _, name := range []string{`"name":"ingest"`, `"name":"store"`, `"name":"sidecar"`} {
		require.Contains(t, string(a.Data), name)
	}
	eventually(t, 30*time.Second, func() error { // one registry has the metrics of both shippers
		_, err := values(t, all, url.Values{"query": {`count(firnline_shipper_pending_blocks{component=~"ingest|sidecar"}) == 2`}})
		return err
	})

	id := r.cut(p, 5)
	eventually(t, time.Minute, func() error {
		if found, err := filepath.Glob(filepath.Join(r.dir, "data", "bucket", id.String(), "meta.json")); err != nil || len(found) == 0 {
			return errors.Join(errors.New("not shipped"), err)
		}
		_, err := values(t, all, url.Values{"query": {`count_over_time(shipped[6h])`}, "storeMatch[]": {`{__address__="store"}`}})
		return err
	})
}
