package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	"golang.org/x/sync/errgroup"

	dto "github.com/prometheus/client_model/go"
)

// selfScrape writes the metrics of this process into its own ingester, as a
// Prometheus that scraped it would by remote write.
type selfScrape struct {
	from   prometheus.Gatherer
	to     http.Handler // takes remote write
	every  time.Duration
	labels map[string]string // of all series
	ready  func() error      // whether to takes samples yet
	log    *slog.Logger
	now    func() time.Time

	failing bool // the last round did, and it was logged
}

func newSelfScrape(p *process, to http.Handler, ready func() error, every model.Duration) *selfScrape {
	return &selfScrape{
		from: p.reg, to: to, ready: ready, every: time.Duration(every), log: p.log, now: time.Now,
		labels: map[string]string{"job": "firnline", "instance": reachable(p.srv.HTTPAddr().String())},
	}
}

// Run implements runner. A round that fails is left out: the next has newer values.
func (s *selfScrape) Run(ctx context.Context) error {
	for s.ready() != nil {
		if !pause(ctx, untilReady) {
			return nil
		}
	}
	s.round(ctx)
	for pause(ctx, s.every) {
		s.round(ctx)
	}
	return nil
}

// fed is a part with another that writes into it.
type fed struct{ to, by runner }

// Run implements runner. What is written into ends last, as with requests from outside.
func (f fed) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, over := context.WithCancel(ctx)
	defer over()
	var g errgroup.Group
	g.Go(func() error { defer over(); return f.to.Run(inner) })
	g.Go(func() error { defer stop(); return f.by.Run(ctx) })
	return g.Wait()
}

// untilReady is the time between two looks whether logs have been read.
const untilReady = 50 * time.Millisecond

// pause waits; it is false when ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// round logs when failing begins and when it ends.
func (s *selfScrape) round(ctx context.Context) {
	err := s.write(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil && !s.failing:
		s.log.Warn("own metrics are not written", "err", err)
	case err == nil && s.failing:
		s.log.Info("own metrics are written again")
	}
	s.failing = err != nil
}

// write writes all metrics as they are now.
func (s *selfScrape) write(ctx context.Context) error {
	families, err := s.from.Gather()
	if err != nil && len(families) == 0 { // else what could be gathered is right
		return fmt.Errorf("gather: %w", err)
	}
	w := &scrapeWriter{at: s.now().UnixMilli(), labels: s.labels}
	w.float("up", nil, 1)
	for _, f := range families {
		w.family(f)
	}
	body, err := w.req.Marshal()
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	a := &answer{header: http.Header{}, code: http.StatusOK}
	s.to.ServeHTTP(a, req)
	if a.code/100 != 2 {
		return errors.New(clip(string(bytes.TrimSpace(a.body.Bytes())), 500))
	}
	return nil
}

// answer holds what a handler answered.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

var _ io.Writer = (*answer)(nil)

// scrapeWriter makes a remote write request of metric families.
type scrapeWriter struct {
	req    prompb.WriteRequest
	at     int64 // ms
	labels map[string]string
}

// family adds all series of a family, and what it is.
func (w *scrapeWriter) family(f *dto.MetricFamily) {
	w.req.Metadata = append(w.req.Metadata, prompb.MetricMetadata{
		Type: metadataType(f.GetType()), MetricFamilyName: f.GetName(), Help: f.GetHelp(), Unit: f.GetUnit(),
	})
	for _, m := range f.GetMetric() {
		switch name, lset := f.GetName(), m.GetLabel(); {
		case m.Counter != nil:
			w.float(name, lset, m.GetCounter().GetValue())
		case m.Gauge != nil:
			w.float(name, lset, m.GetGauge().GetValue())
		case m.Untyped != nil:
			w.float(name, lset, m.GetUntyped().GetValue())
		case m.Summary != nil:
			w.summary(name, lset, m.GetSummary())
		case m.Histogram != nil:
			w.histogram(name, lset, m.GetHistogram())
		}
	}
}

func metadataType(t dto.MetricType) prompb.MetricMetadata_MetricType {
	switch t {
	case dto.MetricType_COUNTER:
		return prompb.MetricMetadata_COUNTER
	case dto.MetricType_GAUGE:
		return prompb.MetricMetadata_GAUGE
	case dto.MetricType_SUMMARY:
		return prompb.MetricMetadata_SUMMARY
	case dto.MetricType_HISTOGRAM:
		return prompb.MetricMetadata_HISTOGRAM
	case dto.MetricType_GAUGE_HISTOGRAM:
		return prompb.MetricMetadata_GAUGEHISTOGRAM
	}
	return prompb.MetricMetadata_UNKNOWN
}

// series adds a series without samples. more are a name and a value, or nothing.
// A label that we set ourselves takes precedence, as in a scrape.
func (w *scrapeWriter) series(name string, lset []*dto.LabelPair, more ...string) *prompb.TimeSeries {
	all := maps.Clone(w.labels)
	for _, l := range lset {
		to := l.GetName()
		if _, ours := w.labels[to]; ours {
			to = model.ExportedLabelPrefix + to
		}
		all[to] = l.GetValue()
	}
	all[model.MetricNameLabel] = name
	if len(more) == 2 {
		all[more[0]] = more[1]
	}
	var s prompb.TimeSeries
	for _, n := range slices.Sorted(maps.Keys(all)) {
		s.Labels = append(s.Labels, prompb.Label{Name: n, Value: all[n]})
	}
	w.req.Timeseries = append(w.req.Timeseries, s)
	return &w.req.Timeseries[len(w.req.Timeseries)-1]
}

func (w *scrapeWriter) float(name string, lset []*dto.LabelPair, v float64, more ...string) {
	s := w.series(name, lset, more...)
	s.Samples = []prompb.Sample{{Timestamp: w.at, Value: v}}
}

func (w *scrapeWriter) summary(name string, lset []*dto.LabelPair, in *dto.Summary) {
	for _, q := range in.GetQuantile() {
		w.float(name, lset, q.GetValue(), model.QuantileLabel, number(q.GetQuantile()))
	}
	w.float(name+"_sum", lset, in.GetSampleSum())
	w.float(name+"_count", lset, float64(in.GetSampleCount()))
}

// histogram adds a native histogram where the metric is one, and else its classic buckets.
func (w *scrapeWriter) histogram(name string, lset []*dto.LabelPair, in *dto.Histogram) {
	if in.Schema != nil {
		s := w.series(name, lset)
		s.Histograms = []prompb.Histogram{{
			Timestamp: w.at, Sum: in.GetSampleSum(), Schema: in.GetSchema(), ZeroThreshold: in.GetZeroThreshold(),
			Count:         &prompb.Histogram_CountInt{CountInt: in.GetSampleCount()},
			ZeroCount:     &prompb.Histogram_ZeroCountInt{ZeroCountInt: in.GetZeroCount()},
			PositiveSpans: spans(in.GetPositiveSpan()), PositiveDeltas: in.GetPositiveDelta(),
			NegativeSpans: spans(in.GetNegativeSpan()), NegativeDeltas: in.GetNegativeDelta(),
		}}
		if len(in.GetBucket()) == 0 {
			return
		}
	}
	infinite := false
	for _, b := range in.GetBucket() {
		infinite = infinite || math.IsInf(b.GetUpperBound(), 1)
		w.float(name+"_bucket", lset, float64(b.GetCumulativeCount()), model.BucketLabel, number(b.GetUpperBound()))
	}
	if !infinite {
		w.float(name+"_bucket", lset, float64(in.GetSampleCount()), model.BucketLabel, "+Inf")
	}
	w.float(name+"_sum", lset, in.GetSampleSum())
	w.float(name+"_count", lset, float64(in.GetSampleCount()))
}

func spans(in []*dto.BucketSpan) []prompb.BucketSpan {
	out := make([]prompb.BucketSpan, 0, len(in))
	for _, s := range in {
		if s.GetLength() > 0 { // a histogram without observations has one empty span, to be known as native
			out = append(out, prompb.BucketSpan{Offset: s.GetOffset(), Length: s.GetLength()})
		}
	}
	return out
}

// number writes a bound as OpenMetrics does, and Prometheus after a scrape.
func number(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, "e.IN") {
		s += ".0"
	}
	return s
}
