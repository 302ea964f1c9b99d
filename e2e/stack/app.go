package stack

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// App is something to scrape: a made-up web service with a counter, a gauge, a
// classic and a native histogram, and exemplars.
type App struct {
	Addr string

	srv  *http.Server
	stop context.CancelFunc
	done chan struct{}
}

// StartApp serves on addr; cluster and seed shape its traffic.
func StartApp(addr, cluster string, seed uint64) (*App, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("app of %s: %w", cluster, err)
	}
	reg := prometheus.NewRegistry()
	ctx, stop := context.WithCancel(context.Background())
	a := &App{Addr: l.Addr().String(), stop: stop, done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	a.srv = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(a.done)
		traffic(ctx, reg, rand.New(rand.NewPCG(seed, 7)))
	}()
	go func() { _ = a.srv.Serve(l) }()
	return a, nil
}

// Close stops serving.
func (a *App) Close() {
	a.stop()
	_ = a.srv.Close()
	<-a.done
}

// traffic makes up requests until ctx ends.
func traffic(ctx context.Context, reg prometheus.Registerer, rng *rand.Rand) {
	f := promauto.With(reg)
	requests := f.NewCounterVec(prometheus.CounterOpts{Name: "app_requests_total", Help: "Requests answered."}, []string{"method", "code"})
	queue := f.NewGauge(prometheus.GaugeOpts{Name: "app_queue_length", Help: "Requests waiting."})
	latency := f.NewHistogramVec(prometheus.HistogramOpts{
		Name: "app_request_duration_seconds", Help: "Time to answer a request.",
		Buckets: []float64{0.01, 0.05, 0.1, 0.5, 1},
	}, []string{"method"})
	native := f.NewHistogramVec(prometheus.HistogramOpts{
		Name: "app_response_size_bytes", Help: "Size of a response.",
		NativeHistogramBucketFactor: 1.1,
	}, []string{"method"})
	for _, method := range []string{"GET", "POST"} { // all series are there from the beginning
		for _, code := range []string{"200", "500"} {
			requests.WithLabelValues(method, code)
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		queue.Set(math.Round(10 + 8*math.Sin(float64(n)/200) + rng.Float64()))
		for _, method := range []string{"GET", "POST"} {
			code := "200"
			if rng.IntN(20) == 0 {
				code = "500"
			}
			requests.WithLabelValues(method, code).Inc()
			observer := latency.WithLabelValues(method).(prometheus.ExemplarObserver)
			observer.ObserveWithExemplar(rng.ExpFloat64()/10, prometheus.Labels{"trace_id": fmt.Sprintf("%016x", rng.Uint64())})
			native.WithLabelValues(method).Observe(100 * rng.ExpFloat64())
		}
	}
}
