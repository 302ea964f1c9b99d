package bucket

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
)

// metrics are those of all layers, by operation where there is one.
type metrics struct {
	operations *prometheus.CounterVec
	failures   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	read       *prometheus.CounterVec
	sent       *prometheus.CounterVec
	lastUpload prometheus.Gauge

	retries      *prometheus.CounterVec
	retriesSpent prometheus.Counter
	throttled    prometheus.Counter
	limit        prometheus.Gauge
	inFlight     prometheus.Gauge
	waiting      prometheus.Gauge

	reloads      prometheus.Counter
	reloadFailed prometheus.Counter
	reloadOK     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	by := []string{"operation"}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "firnline_objstore_" + name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Name: "firnline_objstore_" + name, Help: help}
	}
	m := &metrics{
		operations: f.NewCounterVec(counter("bucket_operations_total", "Operations asked of the bucket; retries of one are not counted again."), by),
		failures:   f.NewCounterVec(counter("bucket_operation_failures_total", "Operations that failed in the end. An object that is not there, a lost condition and a cancelled request are no failures."), by),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firnline_objstore_bucket_operation_duration_seconds", Help: "Time until the answer, retries included; for get and get_range until the body begins.",
			Buckets: prometheus.ExponentialBucketsRange(0.001, 120, 14), NativeHistogramBucketFactor: 1.1,
		}, by),
		read:         f.NewCounterVec(counter("bucket_read_bytes_total", "Bytes of objects read from the bucket."), by),
		sent:         f.NewCounterVec(counter("bucket_sent_bytes_total", "Bytes of objects written to the bucket."), by),
		lastUpload:   f.NewGauge(gauge("bucket_last_successful_upload_time", "Unix time in seconds of the last write that succeeded; 0 before the first.")),
		retries:      f.NewCounterVec(counter("bucket_retries_total", "Requests that were tried again."), by),
		retriesSpent: f.NewCounter(counter("bucket_retry_budget_exhausted_total", "Requests that were not tried again since too many others were.")),
		throttled:    f.NewCounter(counter("bucket_throttled_total", "Requests that the store refused because there were too many.")),
		limit:        f.NewGauge(gauge("bucket_concurrency_limit", "Requests that may wait for the store at once; falls when the store throttles.")),
		inFlight:     f.NewGauge(gauge("bucket_requests_in_flight", "Requests that wait for the store.")),
		waiting:      f.NewGauge(gauge("bucket_requests_queued", "Requests that wait for a place among those in flight.")),
		reloads:      f.NewCounter(counter("config_reloads_total", "Times the objstore configuration file had changed and was taken over.")),
		reloadFailed: f.NewCounter(counter("config_reload_failures_total", "Times the objstore configuration file had changed and could not be taken over.")),
		reloadOK:     f.NewGauge(gauge("config_last_reload_successful", "1 if the objstore configuration file is the one in use, 0 if it could not be taken over.")),
	}
	m.reloadOK.Set(1)
	for _, op := range ops() { // so that rates are right from the first failure on
		m.operations.WithLabelValues(string(op))
		m.failures.WithLabelValues(string(op))
		m.retries.WithLabelValues(string(op))
	}
	return m
}

// withMetrics counts and times what is asked of b.
func withMetrics(b Bucket, m *metrics) Bucket {
	failed := func(c Call, err error) {
		if err != nil && !b.IsObjNotFoundErr(err) && !b.IsConditionFailedErr(err) && !errors.Is(err, context.Canceled) {
			m.failures.WithLabelValues(string(c.Op)).Inc()
		}
	}
	return &measured{&layer{
		Bucket: b,
		around: func(ctx context.Context, c Call, do func(context.Context) error) error {
			m.operations.WithLabelValues(string(c.Op)).Inc()
			start := time.Now()
			err := do(ctx)
			m.duration.WithLabelValues(string(c.Op)).Observe(time.Since(start).Seconds())
			failed(c, err)
			if err == nil && (c.Op == OpUpload || c.Op == OpPutIf) {
				m.lastUpload.SetToCurrentTime()
				m.sent.WithLabelValues(string(c.Op)).Add(float64(max(c.Size, 0)))
			}
			return err
		},
		body: func(_ context.Context, c Call, body io.ReadCloser) io.ReadCloser {
			return &countedBody{ReadCloser: body, read: m.read.WithLabelValues(string(c.Op)), fail: func(err error) { failed(c, err) }}
		},
	}, m}
}

// measured adds to a layer what only GetIf's own answer tells.
type measured struct {
	*layer
	metrics *metrics
}

// GetIf implements [Bucket].
func (b *measured) GetIf(ctx context.Context, name, etag string) ([]byte, string, error) {
	body, newETag, err := b.layer.GetIf(ctx, name, etag)
	b.metrics.read.WithLabelValues(string(OpGetIf)).Add(float64(len(body)))
	return body, newETag, err
}

// countedBody counts bytes as they are read, and a failure once.
type countedBody struct {
	io.ReadCloser
	read prometheus.Counter
	fail func(error)
	once sync.Once
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(float64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.once.Do(func() { b.fail(err) })
	}
	return n, err
}

// ObjectSize implements [objstore.ObjectSizer].
func (b *countedBody) ObjectSize() (int64, error) { return objstore.TryToGetSize(b.ReadCloser) }
