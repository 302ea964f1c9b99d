package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/stack"
)

func sampleAt(t time.Time, v float64) prompb.Sample {
	return prompb.Sample{Timestamp: t.UnixMilli(), Value: v}
}

// TestBadWrites sends what a receiver must refuse, each with its status, and
// then what is right: the binary is as well as before.
//
// RELIABILITY P12, I8
func TestBadWrites(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	in := r.ingest("a", "--ingest.max-body-bytes=100000", "--ingest.max-decoded-bytes=1000000", "--tsdb.min-block-duration=10m", "--tsdb.max-block-duration=10m")
	now := time.Now()
	proto, js := "application/x-protobuf", "application/json"
	plain := func(s ...prompb.TimeSeries) []byte {
		b, err := (&prompb.WriteRequest{Timeseries: s}).Marshal()
		require.NoError(t, err)
		return b
	}
	packed := func(s ...prompb.TimeSeries) []byte { return snappy.Encode(nil, plain(s...)) }
	fine := floats([]string{"__name__", "fine"}, sampleAt(now, 1))
	require.Equal(t, 204, push(t, in, "x", fine).Status)
	type request struct {
		path, contentType, encoding, tenant string
		body                                []byte
		status                              int
		says                                string
	}
	for name, c := range map[string]request{
		"content type":       {"write", "text/plain", "snappy", "x", packed(fine), 415, "text/plain"},
		"unknown protocol":   {"write", proto + ";proto=io.prometheus.write.v9.Request", "snappy", "x", packed(fine), 415, "v9"},
		"encoding":           {"write", proto, "br", "x", packed(fine), 415, "br"},
		"no snappy":          {"write", proto, "snappy", "x", []byte("this is no snappy"), 400, ""},
		"snappy cut short":   {"write", proto, "snappy", "x", packed(fine)[:10], 400, ""},
		"no protobuf":        {"write", proto, "snappy", "x", snappy.Encode(nil, []byte("\xff\xff\xff\xff")), 400, ""},
		"snappy bomb":        {"write", proto, "snappy", "x", []byte("\xff\xff\xff\xff\x0f"), 413, ""},
		"oversized":          {"write", proto, "snappy", "x", make([]byte, 100_001), 413, "100000"},
		"oversized decoded":  {"write", proto, "snappy", "x", snappy.Encode(nil, make([]byte, 1_000_001)), 413, "1000000"},
		"unknown path":       {"wrote", proto, "snappy", "x", packed(fine), 404, ""},
		"bad tenant":         {"write", proto, "snappy", "../x", packed(fine), 400, "tenant"},
		"reserved tenant":    {"write", proto, "snappy", "__x", packed(fine), 400, "tenant"},
		"too far ahead":      {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "ahead"}, sampleAt(now.Add(time.Hour), 1))), 400, "ahead"},
		"a year ahead":       {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "ahead"}, sampleAt(now.AddDate(1, 0, 0), 1))), 400, "ahead"},
		"too old":            {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "old"}, sampleAt(now.Add(-time.Hour), 1))), 400, "old"},
		"out of order":       {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "fine"}, sampleAt(now.Add(-time.Second), 1))), 400, "fine"},
		"another value":      {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "fine"}, sampleAt(now, 2))), 400, "fine"},
		"no labels":          {"write", proto, "snappy", "x", packed(floats(nil, sampleAt(now, 1))), 400, "labels"},
		"gzip of version 2":  {"write", proto + ";proto=io.prometheus.write.v2.Request", "gzip", "x", packed(fine), 415, "gzip"},
		"no name":            {"write", proto, "snappy", "x", packed(floats([]string{"job", "a"}, sampleAt(now, 1))), 400, "name"},
		"label twice":        {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "twice", "a", "1", "a", "2"}, sampleAt(now, 1))), 400, "twice"},
		"invalid UTF-8":      {"write", proto, "snappy", "x", packed(floats([]string{"__name__", "utf", "a", "\xff"}, sampleAt(now, 1))), 400, "utf"},
		"OTLP: no protobuf":  {"otlp/v1/metrics", proto, "", "x", []byte("\xff\xff"), 400, ""},
		"OTLP: no JSON":      {"otlp/v1/metrics", js, "", "x", []byte(`{"resourceMetrics":[{`), 400, ""},
		"OTLP: content type": {"otlp/v1/metrics", "text/xml", "", "x", []byte("<a/>"), 415, "text/xml"},
	} {
		a, err := stack.Post(t.Context(), "http://"+in.HTTP+"/api/v1/"+c.path, http.Header{
			"Content-Type": {c.contentType}, "Content-Encoding": {c.encoding}, "Thanos-Tenant": {c.tenant},
		}, c.body)
		require.NoError(t, err, name)
		require.Equal(t, c.status, a.Status, "%s: %s", name, a.Body)
		require.Contains(t, a.Body, c.says, name)
		require.Empty(t, a.Header.Get("Retry-After"), "%s: sending it again would not help", name)
	}
	a := push(t, in, "x", floats([]string{"__name__", "mixed"}, sampleAt(now, 1)), floats([]string{"job", "nameless"}, sampleAt(now, 1)))
	require.Equal(t, 400, a.Status, a.Body)
	require.Equal(t, 204, push(t, in, "x", fine).Status, "the same again")
	require.Equal(t, 204, push(t, in, "x", floats([]string{"__name__", "fine"}, sampleAt(now.Add(time.Second), 3))).Status, "the head's time is not poisoned")
	got, err := rawSamples(t, r.asks(in), `{__name__=~".+"}`, "__name__", now.Add(time.Minute), time.Hour)
	require.NoError(t, err)
	require.Equal(t, map[string]map[int64]string{
		"fine":  {now.UnixMilli(): "1", now.Add(time.Second).UnixMilli(): "3"},
		"mixed": {now.UnixMilli(): "1"},
	}, got)
}

// TestLimitsAreReloaded: a limit that is written into the file while the process
// runs holds from then on, for its tenant alone, and so does its end.
func TestLimitsAreReloaded(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	file := filepath.Join(r.dir, "limits.yml")
	r.write(file, "write: {}\n")
	in := r.ingest("a", "--receive.limits-config-file="+file, "--receive.limits-config-reload-timer=100ms")
	n, began := 0, time.Now()
	send := func(tenant string) stack.Posted {
		n++
		at := began.Add(time.Duration(n) * time.Millisecond) // each time once
		var series []prompb.TimeSeries
		for i := range 20 {
			series = append(series, floats([]string{"__name__", "limited", "i", strconv.Itoa(i)}, sampleAt(at, float64(n))))
		}
		return push(t, in, tenant, series...)
	}
	require.Equal(t, 204, send("slow").Status)
	r.write(file, "write:\n  tenants:\n    slow:\n      samples_per_second: 0.01\n      samples_burst: 30\n")
	var a stack.Posted
	eventually(t, 10*time.Second, func() error {
		if a = send("slow"); a.Status != 429 {
			return fmt.Errorf("%d: %s", a.Status, a.Body)
		}
		return nil
	})
	for _, word := range []string{"slow", "samples_per_second"} {
		require.Contains(t, a.Body, word)
	}
	after, err := strconv.Atoi(a.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, after)
	require.Equal(t, 204, send("fast").Status)
	r.write(file, "write:\n  tenants:\n    slow:\n      head_series_limit: 10\n  not_a_key: 1\n")
	eventually(t, 10*time.Second, func() error {
		if _, body := get(t, "http://"+in.HTTP+"/metrics"); !strings.Contains(body, "config_last_reload_successful 0") {
			return errors.New("the bad file has not been found out")
		}
		return nil
	})
	require.Equal(t, 429, send("slow").Status, "a bad file changes nothing")
	r.write(file, "write: {}\n")
	eventually(t, 10*time.Second, func() error {
		if a := send("slow"); a.Status != 204 {
			return fmt.Errorf("%d: %s", a.Status, a.Body)
		}
		return nil
	})
}

// TestTenantsAreApart: what one tenant sends never shows for another.
//
// RELIABILITY P11
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	in := r.ingest("a")
	q := r.asks(in)
	now := time.Now()
	tenants := []string{"alpha", "beta"}
	for i, tenant := range tenants {
		a := push(t, in, tenant,
			floats([]string{"__name__", "shared", "owner", "canary-" + tenant}, sampleAt(now, 1)),
			floats([]string{"__name__", "canary-" + tenant, "canary-" + tenant, "x"}, sampleAt(now, 1)),
			floats([]string{"__name__", "posing", "owner", "canary-" + tenant, "tenant_id", tenants[1-i]}, sampleAt(now, 1)))
		require.Equal(t, 204, a.Status, a.Body)
	}
	for _, tenant := range tenants { // which a querier knows after its next check of health
		eventually(t, 20*time.Second, func() error {
			got, err := result(t, "http://"+q.HTTP, "query", url.Values{"query": {fmt.Sprintf(`shared{tenant_id=%q}`, tenant)}, "time": {unix(now)}})
			if err == nil && len(got.Result) == 0 {
				err = errors.New("nothing of " + tenant)
			}
			return err
		})
	}
	for i, tenant := range tenants {
		canary := "canary-" + tenants[1-i]
		window := url.Values{"match[]": {fmt.Sprintf(`{__name__=~".+",tenant_id=%q}`, tenant)},
			"start": {unix(now.Add(-time.Minute))}, "end": {unix(now.Add(time.Minute))}}
		for _, path := range []string{"series", "labels", "label/owner/values", "label/__name__/values"} {
			a, err := stack.Ask(t.Context(), "http://"+q.HTTP, path, window)
			require.NoError(t, err)
			require.Equal(t, "success", a.Status, a.Error)
			require.Contains(t, string(a.Data), "canary-"+tenant, path)
			require.NotContains(t, string(a.Data), canary, path)
		}
		for _, name := range []string{"shared", "posing"} {
			got, err := result(t, "http://"+q.HTTP, "query", url.Values{"query": {fmt.Sprintf(`%s{tenant_id=%q}`, name, tenant)}, "time": {unix(now)}})
			require.NoError(t, err)
			require.Len(t, got.Result, 1, name)
			require.Equal(t, "canary-"+tenant, got.Result[0].Metric["owner"], name)
		}
		a, err := stack.GetAs(t.Context(), "http://"+in.HTTP+"/api/v1/status/tsdb?limit=100", ofTenant(tenant))
		require.NoError(t, err)
		require.Contains(t, a.Body, "canary-"+tenant)
		require.NotContains(t, a.Body, canary)
	}
}
