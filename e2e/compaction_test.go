package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/e2e/s3proxy"
	"github.com/firnline/firnline/e2e/stack"
	"github.com/firnline/firnline/pkg/block"
)

// TestCompactionBeforeUpload keeps the bucket down while real Prometheus servers
// cut blocks. One waits with its compaction until blocks have been shipped; the
// other, as before 3.9, does not, and its compacted blocks are shipped instead.
//
// The bucket is down for a minute, which with blocks of 10 s and a largest one
// of 90 s is as many blocks as an hour would be with blocks of ten minutes.
//
// RELIABILITY S4
func TestCompactionBeforeUpload(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	heal := r.proxy.Inject(s3proxy.Match{}, s3proxy.Fault{Status: http.StatusServiceUnavailable})
	cfg := stack.PrometheusConfig{BlockDuration: 10 * time.Second, MaxBlock: 90 * time.Second}
	start := func(name string, atOnce bool) *stack.Prometheus {
		cfg := cfg
		cfg.Name, cfg.CompactAtOnce, cfg.ExternalLabels = name, atOnce, external(name)
		p, _ := r.prometheusOf(cfg)
		r.launch(nil, r.sidecarArgs(p, "--shipper.ignore-unequal-block-size")...)
		return p
	}
	waits := start("waits", false)
	eventually(t, time.Minute, func() error { // without the list it would not wait
		if r.listed(waits) == nil {
			return errors.New("there is no list of what has been shipped")
		}
		return nil
	})
	hasty := start("hasty", true)
	begin := time.Now().Add(3 * time.Second)
	for end := time.Now().Add(75 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		require.LessOrEqual(t, r.highestLevel(waits), 1, "compaction waits for the upload")
	}
	eventually(t, 2*time.Minute, func() error {
		if r.highestLevel(hasty) < 2 {
			return errors.New("without the list it does not wait")
		}
		if ids, err := waits.Blocks(); err != nil || len(ids) < 5 {
			return fmt.Errorf("%d blocks could have been compacted: %w", len(ids), err)
		}
		return nil
	})
	require.Equal(t, 1, r.highestLevel(waits), "compaction waits for the upload")
	require.Empty(t, r.objects())
	heal()
	until := time.Now().Add(-30 * time.Second)

	q := r.historian()
	for _, p := range []*stack.Prometheus{waits, hasty} {
		r.sameHistory(q, p, begin, until, "up", "prometheus_tsdb_head_samples_appended_total", "rate(prometheus_http_requests_total[20s])")
	}
	eventually(t, 2*time.Minute, func() error {
		if r.highestLevel(waits) < 2 {
			return errors.New("nothing is compacted once it has been shipped")
		}
		return nil
	})
}

// highestLevel is that of the blocks in the data folder; 0 without blocks.
func (r *rig) highestLevel(p *stack.Prometheus) int {
	r.t.Helper()
	ids, err := p.Blocks()
	require.NoError(r.t, err)
	highest := 0
	for _, id := range ids {
		var m struct{ Compaction struct{ Level int } }
		data, err := os.ReadFile(filepath.Join(p.DataDir, id, block.MetaFilename))
		if err != nil {
			continue // compacted away meanwhile
		}
		require.NoError(r.t, json.Unmarshal(data, &m))
		highest = max(highest, m.Compaction.Level)
	}
	return highest
}

// sameHistory waits until the bucket answers as a Prometheus does.
func (r *rig) sameHistory(q *stack.Firnline, p *stack.Prometheus, begin, until time.Time, exprs ...string) {
	r.t.Helper()
	for _, expr := range exprs {
		params := rangeParams(expr, begin, until, time.Second)
		eventually(r.t, 2*time.Minute, func() error {
			want, err := results(r.t, p.URL, params)
			if err != nil {
				return err
			}
			got, err := results(r.t, "http://"+q.HTTP, params)
			if err != nil {
				return err
			}
			name := filepath.Base(p.DataDir)
			mine := map[string]string{}
			for _, s := range got.Result {
				if s.Metric["cluster"] == name {
					delete(s.Metric, "cluster")
					delete(s.Metric, "replica")
					mine[fmt.Sprint(s.Metric)] = fmt.Sprint(s.Values)
				}
			}
			if len(want.Result) == 0 || len(want.Result) != len(mine) {
				return fmt.Errorf("%s of %s: %d series, want %d", expr, name, len(mine), len(want.Result))
			}
			for _, s := range want.Result {
				if mine[fmt.Sprint(s.Metric)] != fmt.Sprint(s.Values) {
					return fmt.Errorf("%s of %s: %v differs:\n%s\nwant\n%v", expr, name, s.Metric, mine[fmt.Sprint(s.Metric)], s.Values)
				}
			}
			return nil
		})
	}
}

func results(t *testing.T, base string, params url.Values) (stack.Result, error) {
	params.Set("dedup", "false")
	a, err := stack.Ask(t.Context(), base, "query_range", params)
	if err != nil {
		return stack.Result{}, err
	}
	return a.Result()
}

// TestOutOfOrder sends old samples into a real Prometheus, whose blocks of them
// are shipped like any other; then its disk is lost, and a new one begins under
// the same labels.
//
// RELIABILITY S5
func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.prometheusOf(stack.PrometheusConfig{
		Name: "late", BlockDuration: 10 * time.Second, OutOfOrder: time.Hour,
		ExternalLabels: external("late"), Args: []string{"--web.enable-remote-write-receiver"},
	})
	sidecar := r.launch(nil, r.sidecarArgs(p)...)
	now := time.Now()
	send(t, p, now.Add(-2*time.Second), now.Add(-time.Second), time.Second)
	send(t, p, now.Add(-20*time.Minute), now.Add(-19*time.Minute), 2*time.Second)
	q := r.historian()
	r.sameHistory(q, p, now.Add(-20*time.Minute), now.Add(-18*time.Minute), "late", "count_over_time(late[30s])")
	send(t, p, now.Add(-20*time.Minute-time.Second), now.Add(-19*time.Minute), 2*time.Second) // between those
	r.sameHistory(q, p, now.Add(-20*time.Minute), now.Add(-18*time.Minute), "late", "count_over_time(late[30s])")

	before := now.Add(20 * time.Second)
	r.sameHistory(q, p, now.Add(10*time.Second), before, "up")
	sidecar.Kill()
	p.Kill()
	require.NoError(t, os.RemoveAll(p.DataDir))
	require.NoError(t, p.Restart(t.Context()))
	r.launch(nil, r.sidecarArgs(p)...)
	eventually(t, time.Minute, func() error {
		got, err := result(t, p.URL, "query", url.Values{"query": {"up"}})
		if err == nil && len(got.Result) == 0 {
			err = errors.New("nothing has been scraped yet")
		}
		return err
	})
	began := time.Now()
	time.Sleep(15 * time.Second)
	r.sameHistory(q, p, began, began.Add(10*time.Second), "up")
	old, err := results(t, "http://"+q.HTTP, rangeParams("up", now.Add(10*time.Second), before, time.Second))
	require.NoError(t, err)
	require.Len(t, old.Result, 1, "what the lost disk had shipped is still there")
}

// send writes samples of the series late by remote write.
func send(t *testing.T, p *stack.Prometheus, from, to time.Time, step time.Duration) {
	t.Helper()
	series := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "late"}}}
	for at := from; !at.After(to); at = at.Add(step) {
		series.Samples = append(series.Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: float64(at.UnixMilli() % 1_000_000)})
	}
	body, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{series}}).Marshal()
	require.NoError(t, err)
	resp, err := http.Post(p.URL+"/api/v1/write", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, body)))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 2, resp.StatusCode/100, resp.Status)
}
