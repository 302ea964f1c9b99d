package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// everyKind is a registry with a metric of each kind.
func everyKind() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total", Help: "Counted."}, []string{"job"})
	c.WithLabelValues("own").Add(3)
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "b", Help: "Measured."})
	g.Set(-1.5)
	s := prometheus.NewSummary(prometheus.SummaryOpts{Name: "c", Objectives: map[float64]float64{0.5: 0.1, 1: 0.1}})
	s.Observe(4)
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "d", Buckets: []float64{0.5, 1, 1e6}})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "e", NativeHistogramBucketFactor: 2})
	empty := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "f", NativeHistogramBucketFactor: 2})
	for _, v := range []float64{0, -1, 3, 3, 100} {
		classic.Observe(v)
		native.Observe(v)
	}
	reg.MustRegister(c, g, s, classic, native, empty)
	return reg
}

// taker answers remote write with a status, and prints what came.
type taker struct {
	t      *testing.T
	status atomic.Int32 // of answers; 0: 204
	got    []string
}

func (tk *taker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	require.NoError(tk.t, err)
	raw, err := snappy.Decode(nil, body)
	require.NoError(tk.t, err)
	var req prompb.WriteRequest
	require.NoError(tk.t, req.Unmarshal(raw))
	var lines []string
	for _, m := range req.Metadata {
		lines = append(lines, fmt.Sprintf("# %s %s %q", m.MetricFamilyName, m.Type, m.Help))
	}
	for _, s := range req.Timeseries {
		var b strings.Builder
		require.True(tk.t, sort.SliceIsSorted(s.Labels, func(i, j int) bool { return s.Labels[i].Name < s.Labels[j].Name }))
		for _, l := range s.Labels {
			fmt.Fprintf(&b, "%s=%q ", l.Name, l.Value)
		}
		for _, v := range s.Samples {
			fmt.Fprintf(&b, "%v@%d", v.Value, v.Timestamp)
		}
		for _, h := range s.Histograms {
			fmt.Fprint(&b, h.ToIntHistogram())
		}
		lines = append(lines, b.String())
	}
	tk.got = append(tk.got, strings.Join(lines, "\n")+"\n")
	if status := int(tk.status.Load()); status != 0 {
		http.Error(w, "not now", status)
	}
}

func TestSelfScrapeWritesEveryKind(t *testing.T) {
	to := &taker{t: t}
	s := &selfScrape{from: everyKind(), to: to, labels: map[string]string{"job": "firnline", "instance": "here:1"}, now: func() time.Time { return time.UnixMilli(42) }}
	require.NoError(t, s.write(t.Context()))
	golden(t, filepath.Join("testdata", "selfscrape.txt"), to.got[0])
	to.status.Store(503)
	require.EqualError(t, s.write(t.Context()), "not now")
}

// TestSelfScrapeGoesOn: it waits for logs to be read, and tells once that writing
// fails and once that it is well again.
func TestSelfScrapeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &taker{t: t}
		to.status.Store(503)
		var logs strings.Builder
		begin := time.Now()
		s := &selfScrape{
			from: everyKind(), to: to, labels: map[string]string{"job": "firnline"}, every: 15 * time.Second, now: time.Now, log: slog.New(slog.NewTextHandler(&logs, nil)),
			ready: func() error {
				if time.Since(begin) < time.Second {
					return fmt.Errorf("reading")
				}
				return nil
			},
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, to.got)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Len(t, to.got, 2)
		to.status.Store(0)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Len(t, to.got, 4)
		require.Equal(t, 1, strings.Count(logs.String(), "own metrics are not written"))
		require.Equal(t, 1, strings.Count(logs.String(), "own metrics are written again"))
		stop()
		require.NoError(t, <-ended)
	})
}

// TestFedEndsLast: what is written into goes on until its writer has ended, and
// takes the writer with it when it fails.
func TestFedEndsLast(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	to, by := lasting{make(chan struct{})}, lasting{make(chan struct{})}
	slow := runnerFunc(func(ctx context.Context) error {
		defer func() {
			select {
			case <-to.stopped:
				t.Error("it ended before its writer")
			default:
			}
		}()
		return by.Run(ctx)
	})
	stop()
	require.NoError(t, fed{to, slow}.Run(ctx))
	<-to.stopped

	after := make(chan struct{})
	close(after)
	by = lasting{make(chan struct{})}
	require.EqualError(t, fed{failing{after}, by}.Run(t.Context()), "gave up")
	<-by.stopped
}

type runnerFunc func(context.Context) error

func (f runnerFunc) Run(ctx context.Context) error { return f(ctx) }
