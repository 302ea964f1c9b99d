package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

// pushed are the queries that must be answered as Prometheus does; %s takes the
// tenant's matcher.
var pushed = []string{
	`app_queue_length{%s}`,
	`app_requests_total{%s}`,
	`rate(app_requests_total{%s}[10s])`,
	`increase(app_requests_total{%s}[10s])`,
	`app_request_duration_seconds_bucket{%s}`,
	`app_request_duration_seconds_sum{%s}`,
	`histogram_quantile(0.9, sum by (le) (rate(app_request_duration_seconds_bucket{%s}[10s])))`,
	`app_response_size_bytes{%s}`,
	`rate(app_response_size_bytes{%s}[10s])`,
	`histogram_quantile(0.9, sum(rate(app_response_size_bytes{%s}[10s])))`,
	`histogram_sum(app_response_size_bytes{%s})`,
	`count_over_time(app_queue_length{%s}[10s])`,
	`timestamp(app_queue_length{%s})`,
	`up{%s}`,
}

// TestRemoteWriteEqualsPrometheus: what a Prometheus sends by remote write 1.0 and
// 2.0 is answered as that Prometheus itself answers it.
//
// RELIABILITY P1
func TestRemoteWriteEqualsPrometheus(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	app, err := stack.StartApp("127.0.0.1:0", "eu1", 1)
	require.NoError(t, err)
	t.Cleanup(app.Close)
	in := r.ingest("a", "--tsdb.max-exemplars=100000") // as many as Prometheus keeps
	q := r.asks(in)
	to := "http://" + in.HTTP + "/api/v1/write"
	p, _ := r.prometheusOf(stack.PrometheusConfig{
		Name: "prometheus", Targets: []string{app.Addr}, BlockDuration: 2 * time.Hour,
		RemoteWrite: []stack.RemoteWrite{
			{URL: to, Version: 1, Headers: map[string]string{"THANOS-TENANT": "one"}},
			{URL: strings.Replace(to, "write", "receive", 1), Version: 2, Headers: map[string]string{"X-Scope-OrgID": "two"}},
		},
		Args: []string{"--enable-feature=metadata-wal-records"},
	})
	tenants := []string{"one", "two"}
	eventually(t, 30*time.Second, func() error { return reached(t, q, time.Now().Add(-time.Hour), tenants...) })
	begin := time.Now() // both queues run
	var end time.Time
	eventually(t, 40*time.Second, func() error {
		end = time.Now()
		return scrapedAll(t, p, begin, end)
	})
	eventually(t, 40*time.Second, func() error { return reached(t, q, end, tenants...) })
	for _, tenant := range tenants {
		matcher := fmt.Sprintf("tenant_id=%q", tenant)
		for _, expr := range pushed {
			samePromQL(t, p, q, fmt.Sprintf(expr, ""), fmt.Sprintf(expr, matcher), end.Add(-2*time.Second), end)
		}
	}
	t.Run("metadata", func(t *testing.T) { pushedMetadata(t, p, q) })
	t.Run("exemplars", func(t *testing.T) { pushedExemplars(t, p, q, tenants, begin, end) })
}

// scrapedAll is nil once there are 13 seconds in which hardly a scrape has failed.
func scrapedAll(t *testing.T, p *stack.Prometheus, begin, end time.Time) error {
	t.Helper()
	if end.Sub(begin) < 13*time.Second {
		return errors.New("they are not over")
	}
	r, err := result(t, p.URL, "query", url.Values{"query": {`count_over_time(app_queue_length[13s]) > 10`}, "time": {unix(end)}})
	if err == nil && len(r.Result) == 0 {
		err = errors.New("scrapes fail")
	}
	return err
}

// reached is nil once all tenants have samples from a time on.
func reached(t *testing.T, q *stack.Firnline, since time.Time, tenants ...string) error {
	t.Helper()
	r, err := result(t, "http://"+q.HTTP, "query", url.Values{"query": {fmt.Sprintf(`timestamp(app_queue_length) >= %s`, unix(since))}})
	if err != nil {
		return err
	}
	if len(r.Result) != len(tenants) {
		return fmt.Errorf("%d of %d tenants have samples since %s", len(r.Result), len(tenants), since)
	}
	return nil
}

// samePromQL compares answers, range and instant, apart from the external labels.
func samePromQL(t *testing.T, p *stack.Prometheus, q *stack.Firnline, theirs, ours string, start, end time.Time) {
	t.Helper()
	for path, params := range map[string]func(expr string) url.Values{
		"query_range": func(expr string) url.Values { return rangeParams(expr, start, end, 500*time.Millisecond) },
		"query":       func(expr string) url.Values { return url.Values{"query": {expr}, "time": {unix(end)}} },
	} {
		eventually(t, 20*time.Second, func() error { // what is sent in another shard may be late
			want, err := result(t, p.URL, path, params(theirs))
			if err != nil {
				return fmt.Errorf("%s: %w", theirs, err)
			}
			got, err := result(t, "http://"+q.HTTP, path, params(ours))
			if err != nil {
				return fmt.Errorf("%s: %w", ours, err)
			}
			return same(t, path+" of "+ours, bySeries(t, want), bySeries(t, got, "tenant_id", "ingest"))
		})
	}
}

// same is nil if two answers are, and are something.
func same(t *testing.T, what string, want, got map[string]string) error {
	t.Helper()
	if len(want) == 0 {
		return fmt.Errorf("%s: nothing", what)
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%s differs:\n%v\nwant\n%v", what, got, want)
	}
	return nil
}

// pushedMetadata compares type and help of what both protocols sent.
func pushedMetadata(t *testing.T, p *stack.Prometheus, q *stack.Firnline) {
	for _, metric := range []string{"app_requests_total", "app_queue_length", "app_response_size_bytes"} {
		params := url.Values{"metric": {metric}}
		want := metadataOf(t, p.URL, params)
		require.Contains(t, want, metric)
		eventually(t, 20*time.Second, func() error {
			if got := metadataOf(t, "http://"+q.HTTP, params); !reflect.DeepEqual(want, got) {
				return fmt.Errorf("metadata is %s, want %s", got, want)
			}
			return nil
		})
	}
}

func metadataOf(t *testing.T, base string, params url.Values) (m map[string][]map[string]string) {
	t.Helper()
	a, err := stack.Ask(t.Context(), base, "metadata", params)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(a.Data, &m))
	return m
}

// pushedExemplars looks for an exemplar of Prometheus' with both tenants.
func pushedExemplars(t *testing.T, p *stack.Prometheus, q *stack.Firnline, tenants []string, begin, end time.Time) {
	params := url.Values{"query": {"app_request_duration_seconds_bucket"}, "start": {unix(begin)}, "end": {unix(end)}}
	want, err := stack.Ask(t.Context(), p.URL, "query_exemplars", params)
	require.NoError(t, err)
	_, after, found := strings.Cut(string(want.Data), `"trace_id":"`)
	require.True(t, found, "Prometheus has none: %s", want.Data)
	trace := after[:16]
	for _, tenant := range tenants {
		params.Set("query", fmt.Sprintf("app_request_duration_seconds_bucket{tenant_id=%q}", tenant))
		eventually(t, 10*time.Second, func() error {
			got, err := stack.Ask(t.Context(), "http://"+q.HTTP, "query_exemplars", params)
			if err == nil && !strings.Contains(string(got.Data), trace) {
				err = errors.New("no exemplar " + trace + " of tenant " + tenant)
			}
			return err
		})
	}
}
