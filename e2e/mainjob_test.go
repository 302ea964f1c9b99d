package e2e

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// TestMainJob is the main job on real input: live and historical data of two HA
// pairs, asked for at one querier.
func TestMainJob(t *testing.T) {
	t.Parallel()
	c := pairs(t, stack.ClustersConfig{Rules: rules})
	eventually(t, time.Minute, func() error { // all have scraped by then
		r, err := ask(t.Context(), c, "query", url.Values{"query": {"app_requests_total"}, "dedup": {"false"}})
		if err == nil && len(r.Result) != seriesOfRequests {
			err = fmt.Errorf("%d series, not %d", len(r.Result), seriesOfRequests)
		}
		return err
	})
	begin := time.Now()
	waitForHistory(t, c)
	// Long enough for a window that no sidecar serves as a whole.
	time.Sleep(time.Until(begin.Add(shipSpan + 45*time.Second)))

	t.Run("live and historical answers equal Prometheus", func(t *testing.T) { answersEqual(t, c, begin) })
	t.Run("history comes from the bucket", func(t *testing.T) { historyFromBucket(t, c, begin) })
	t.Run("rules, targets, metadata, exemplars, status", func(t *testing.T) { otherAPIs(t, c) })
	t.Run("an HA gap is filled", func(t *testing.T) { gapIsFilled(t, c) })
	t.Run("a stopped sidecar is named", func(t *testing.T) { stoppedSidecarIsNamed(t, c) })
}

// seriesOfRequests is how many app_requests_total has: by clusters, replicas, methods and codes.
const seriesOfRequests = 2 * 2 * 4

const rules = `groups:
- name: app
  interval: 5s
  rules:
  - record: app:requests:rate30s
    expr: sum by (method) (rate(app_requests_total[30s]))
  - alert: AlwaysFiring
    expr: vector(1)
    labels: {severity: none}
`

// compared are floats, classic and native histograms, raw and through functions.
var compared = []string{
	`app_queue_length{%s}`,
	`app_requests_total{%s}`,
	`rate(app_requests_total{%s}[30s])`,
	`increase(app_requests_total{%s}[1m])`,
	`app_request_duration_seconds_bucket{%s}`,
	`histogram_quantile(0.9, sum by (le) (rate(app_request_duration_seconds_bucket{%s}[30s])))`,
	`app_response_size_bytes{%s}`,
	`histogram_quantile(0.9, rate(app_response_size_bytes{%s}[30s]))`,
	`histogram_count(app_response_size_bytes{%s})`,
	`sum(rate(app_response_size_bytes{%s}[30s]))`,
	`changes(app_queue_length{%s}[1m])`,
	`quantile_over_time(0.5, app_queue_length{%s}[1m])`,
	`app:requests:rate30s{%s}`,
	`up{%s}`,
}

func answersEqual(t *testing.T, c *stack.Clusters, begin time.Time) {
	start, end := begin, time.Now().Add(-10*time.Second) // what is of then has been written
	require.Greater(t, end.Sub(start), shipSpan+30*time.Second, "the window must reach behind what sidecars serve")
	for _, r := range c.Replicas {
		ext := fmt.Sprintf("cluster=%q, replica=%q", r.Cluster, r.Name)
		for _, expr := range compared {
			params := rangeParams(fmt.Sprintf(expr, ext), start, end, time.Second)
			params.Set("dedup", "false")
			params.Set("partial_response", "false")
			eventually(t, 20*time.Second, func() error {
				want, err := result(t, r.Prometheus.URL, "query_range", rangeParams(fmt.Sprintf(expr, ""), start, end, time.Second))
				if err != nil {
					return err
				}
				got, err := ask(t.Context(), c, "query_range", params)
				if err != nil {
					return fmt.Errorf("%s of %s/%s: %w", expr, r.Cluster, r.Name, err)
				}
				return same(t, fmt.Sprintf("%s of %s/%s", expr, r.Cluster, r.Name), bySeries(t, want), bySeries(t, got, "cluster", "replica"))
			})
		}
	}
}

func historyFromBucket(t *testing.T, c *stack.Clusters, begin time.Time) {
	params := rangeParams(`app_requests_total`, begin, begin.Add(20*time.Second), time.Second)
	params.Set("dedup", "false")
	params.Set("storeMatch[]", fmt.Sprintf("{__address__=%q}", c.Store.GRPC))
	fromBucket, err := ask(t.Context(), c, "query_range", params)
	require.NoError(t, err)
	params.Del("storeMatch[]")
	all, err := ask(t.Context(), c, "query_range", params)
	require.NoError(t, err)
	require.Equal(t, bySeries(t, all), bySeries(t, fromBucket))
	require.Len(t, all.Result, seriesOfRequests)
}

func otherAPIs(t *testing.T, c *stack.Clusters) {
	for path, want := range map[string]string{
		"rules":       `"AlwaysFiring"`,
		"alerts":      `"AlwaysFiring"`,
		"targets":     `"scrapePool":"app"`,
		"metadata":    `"app_requests_total":[{"type":"counter","help":"Requests answered.","unit":""}]`,
		"stores":      `"sidecar"`,
		"status/tsdb": `"seriesCountByMetricName"`,
	} {
		a, err := stack.Ask(t.Context(), "http://"+c.Query.HTTP, path, nil)
		require.NoError(t, err, path)
		require.Equal(t, "success", a.Status, "%s: %s", path, a.Error)
		require.Contains(t, string(a.Data), want, path)
	}
	now := time.Now()
	params := url.Values{"query": {"app_request_duration_seconds_bucket"}, "start": {unix(now.Add(-2 * time.Minute))}, "end": {unix(now)}}
	a, err := stack.Ask(t.Context(), "http://"+c.Query.HTTP, "query_exemplars", params)
	require.NoError(t, err)
	require.Contains(t, string(a.Data), `"trace_id"`)
	require.Contains(t, string(a.Data), `"cluster":"us1"`)
}

// gapIsFilled stops replica a of eu1 for a while: with the pair deduplicated no
// second is missing, and the counter never seems to be reset.
func gapIsFilled(t *testing.T, c *stack.Clusters) {
	a, b := c.Replicas[0], c.Replicas[1]
	var start, end time.Time
	gap := func() {
		start = time.Now()
		a.Prometheus.Stop()
		time.Sleep(14 * time.Second)
		require.NoError(t, a.Prometheus.Restart(t.Context()))
		time.Sleep(5 * time.Second)
		end = time.Now().Add(-2 * time.Second)
	}
	// The gap would show: the window holds none then. Scrapes may fail, so that it
	// takes a gap of one in which the other had none.
	const expr = `count_over_time(app_requests_total{%smethod="GET",code="200"}[%s])`
	eventually(t, time.Minute, func() error {
		gap()
		r, err := result(t, b.Prometheus.URL, "query_range", rangeParams(fmt.Sprintf(expr, "", "5s"), start, end, time.Second))
		if err == nil {
			err = everySecond(r, start, end)
		}
		return err
	})
	eventually(t, time.Minute, func() error {
		r, err := ask(t.Context(), c, "query_range", rangeParams(fmt.Sprintf(expr, `cluster="eu1",`, "9s"), start, end, time.Second))
		if err == nil {
			err = everySecond(r, start, end)
		}
		return err
	})
	r, err := ask(t.Context(), c, "query", url.Values{"query": {fmt.Sprintf(`max(resets(app_requests_total{cluster="eu1"}[%ds]))`, int(time.Since(start).Seconds()))}})
	require.NoError(t, err)
	require.Equal(t, "0", r.Result[0].Value[1])
	allAnswer(t, c)
}

// everySecond is nil if there is one series, with a value at each second.
func everySecond(r stack.Result, start, end time.Time) error {
	if len(r.Result) != 1 {
		return fmt.Errorf("%d series, not one", len(r.Result))
	}
	if want := int(end.Sub(start).Seconds()) + 1; len(r.Result[0].Values) != want {
		return fmt.Errorf("%d of %d steps", len(r.Result[0].Values), want)
	}
	return nil
}

// allAnswer waits until no endpoint is missed.
func allAnswer(t *testing.T, c *stack.Clusters) {
	t.Helper()
	params := url.Values{"query": {`sum by (cluster) (app_queue_length)`}, "partial_response": {"false"}}
	eventually(t, time.Minute, func() error {
		_, err := ask(t.Context(), c, "query", params)
		return err
	})
}

func stoppedSidecarIsNamed(t *testing.T, c *stack.Clusters) {
	gone := c.Replicas[3].Sidecar
	gone.Kill()
	params := url.Values{"query": {`sum by (cluster) (app_queue_length)`}, "partial_response": {"true"}}
	a, err := stack.Ask(t.Context(), "http://"+c.Query.HTTP, "query", params)
	require.NoError(t, err)
	require.Equal(t, 200, a.HTTPStatus, a.Error)
	require.NoError(t, names(a, gone.GRPC))
	r, err := a.Result()
	require.NoError(t, err)
	require.Len(t, r.Result, 2, "the other replica answers for us1")

	params.Set("partial_response", "false")
	a, err = stack.Ask(t.Context(), "http://"+c.Query.HTTP, "query", params)
	require.NoError(t, err)
	require.Equal(t, "error", a.Status)
	require.NoError(t, names(a, gone.GRPC))

	require.NoError(t, gone.Restart(t.Context()))
	allAnswer(t, c)
}
