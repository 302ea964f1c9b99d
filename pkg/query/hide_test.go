package query

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/firnline/firnline/pkg/block"
	"github.com/firnline/firnline/pkg/bucket"
	"github.com/firnline/firnline/pkg/storeapi"
	"github.com/firnline/firnline/pkg/storeapi/storetest"
)

// startHiding runs a querier that hides what the delete requests of a bucket name.
func startHiding(t testing.TB, bkt block.Bucket, args ...string) *Query {
	t.Helper()
	cfg, err := parse(t, append([]string{"--endpoint.info-timeout=1m", "--query.replica-label=replica"}, args...)...)
	require.NoError(t, err)
	w := block.NewDeleteWatcher(block.DeleteWatchConfig{Interval: model.Duration(10 * time.Millisecond)}, bkt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	q, err := New(cfg, Parts{Hider: w.Hider}, quiet(), prometheus.NewRegistry())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, q.Run(ctx)) })
	wg.Go(func() { require.NoError(t, w.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, func() bool { return q.Ready() == nil && w.Ready() == nil })
	return q
}

func hide(t testing.TB, bkt block.Bucket, mint, maxt int64, selector string) *block.DeleteRequest {
	t.Helper()
	r, err := block.CreateDelete(t.Context(), bkt, block.DeleteRequest{Selectors: []string{selector}, MinTime: mint, MaxTime: maxt})
	require.NoError(t, err)
	return r
}

// TestLiveDataIsHidden: what a sidecar answers is hidden as soon as the request
// is seen, by the HTTP API and for queriers above, and shows again after it was cancelled.
func TestLiveDataIsHidden(t *testing.T) {
	a, _ := listen(t, storeapi.Services{Store: counter(t, "cluster", "eu", "replica", "a")})
	b, _ := listen(t, storeapi.Services{Store: counter(t, "cluster", "us", "replica", "a")})
	bkt := bucket.NewMemory()
	q := startHiding(t, bkt, "--endpoint="+a, "--endpoint="+b)
	count := func(at string) func(string) bool {
		return func(want string) bool {
			got := get(t, q, "/api/v1/query", "query", `sum by (cluster) (count_over_time(requests_total[30m]))`, "time", at)
			require.Equal(t, 200, got.code)
			return string(got.Data) == `{"resultType":"vector","result":[`+want+`]}`
		}
	}
	const eu, us = `{"metric":{"cluster":"eu"},"value":[1800,"%s"]}`, `{"metric":{"cluster":"us"},"value":[1800,"120"]}`
	require.True(t, count("1800")(fmt.Sprintf(eu, "120")+","+us))

	r := hide(t, bkt, 600_000, 899_999, `requests_total{cluster="eu"}`)
	eventually(t, func() bool { return count("1800")(fmt.Sprintf(eu, "100") + "," + us) })

	set, err := q.Services().Store.Series(t.Context(), selectionOf(t, `requests_total{cluster="eu"}`))
	require.NoError(t, err)
	defer set.Close()
	require.True(t, set.Next())
	for _, s := range storetest.Samples(t, set.At().Chunks, math.MinInt64, math.MaxInt64) {
		require.False(t, s.T >= 600_000 && s.T <= 899_999, "at %d", s.T)
	}

	_, err = block.CancelDelete(t.Context(), bkt, r.ID)
	require.NoError(t, err)
	eventually(t, func() bool { return count("1800")(fmt.Sprintf(eu, "120") + "," + us) })
}

func selectionOf(t testing.TB, selector string) storeapi.Selection {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	require.NoError(t, err)
	return storeapi.Selection{Mint: 0, Maxt: 3_600_000, Matchers: ms}
}

// TestHiddenSeriesDontCount: a limit is one of series that show.
func TestHiddenSeriesDontCount(t *testing.T) {
	var in []storeapi.Series
	for i := range 4 {
		in = append(in, storeapi.Series{Labels: labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)),
			Chunks: storetest.Chunks(t, []storetest.Sample{{T: 1, V: 1}}, false, 0)})
	}
	h, err := block.NewHider(&block.DeleteRequest{Selectors: []string{`m{i=~"0|1"}`}, MinTime: 0, MaxTime: 10})
	require.NoError(t, err)
	fake := storetest.NewFake(in, storeapi.Info{})
	s := hiding{fake, func() *block.Hider { return h }}
	sel := selectionOf(t, "m")
	sel.Limit = 2
	set, err := s.Series(t.Context(), sel)
	require.NoError(t, err)
	defer set.Close()
	var got []string
	for set.Next() {
		got = append(got, set.At().Labels.Get("i"))
	}
	require.NoError(t, set.Err())
	require.Equal(t, []string{"2", "3"}, got)
}

// TestReplicaLabelsAreLeftToGateways: without its replica label a series can't
// be told from its twin, so neither is hidden here.
func TestReplicaLabelsAreLeftToGateways(t *testing.T) {
	fake := storetest.NewFake([]storeapi.Series{{Labels: labels.FromStrings("__name__", "m"),
		Chunks: storetest.Chunks(t, []storetest.Sample{{T: 1, V: 1}}, false, 0)}}, storeapi.Info{})
	for selector, without := range map[string]int{`m{replica!="a"}`: 1, `m{job!="a"}`: 0} {
		h, err := block.NewHider(&block.DeleteRequest{Selectors: []string{selector}, MinTime: 0, MaxTime: 10})
		require.NoError(t, err)
		sel := selectionOf(t, "m")
		sel.WithoutReplicaLabels = []string{"replica"}
		set, err := hiding{fake, func() *block.Hider { return h }}.Series(t.Context(), sel)
		require.NoError(t, err)
		n := 0
		for set.Next() {
			n++
		}
		set.Close()
		require.Equal(t, without, n, selector)
	}
}
