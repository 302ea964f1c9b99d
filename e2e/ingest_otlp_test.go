package e2e

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/firnline/firnline/e2e/stack"
)

// TestOTLPClient: what the OpenTelemetry SDK exports over HTTP and gRPC has the
// names and values that a Prometheus gives it, which is sent the same.
//
// RELIABILITY P1
func TestOTLPClient(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	in := r.ingest("a")
	q := r.asks(in)
	p, _ := r.prometheusOf(stack.PrometheusConfig{Name: "prometheus", BlockDuration: 2 * time.Hour, Args: []string{"--web.enable-otlp-receiver"}})
	ctx := t.Context()
	var exporters []sdkmetric.Exporter
	for _, to := range []struct{ url, tenant string }{{p.URL + "/api/v1/otlp/v1/metrics", ""}, {"http://" + in.HTTP + "/v1/metrics", "http"}} {
		e, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(to.url), otlpmetrichttp.WithTimeout(patience),
			otlpmetrichttp.WithHeaders(map[string]string{"X-Scope-OrgID": to.tenant}))
		require.NoError(t, err)
		exporters = append(exporters, e)
	}
	overGRPC, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpoint(in.GRPC), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithTimeout(patience),
		otlpmetricgrpc.WithHeaders(map[string]string{"thanos-tenant": "grpc"}), otlpmetricgrpc.WithCompressor("gzip"))
	require.NoError(t, err)
	exporters = append(exporters, overGRPC)

	begin := time.Now()
	measureAndExport(t, exporters)
	end := time.Now().Add(time.Second)
	for _, tenant := range []string{"http", "grpc"} {
		eventually(t, 20*time.Second, func() error {
			got, err := result(t, "http://"+q.HTTP, "query", url.Values{"query": {fmt.Sprintf(`shop_orders_total{tenant_id=%q}`, tenant)}})
			if err == nil && len(got.Result) == 0 {
				err = fmt.Errorf("nothing of %s", tenant)
			}
			return err
		})
		for _, expr := range []string{
			`shop_orders_total{%s}`, `increase(shop_orders_total{%s}[5m])`, `shop_queue_length{%s}`, `shop_latency_seconds_bucket{%s}`,
			`histogram_quantile(0.9, sum by (le) (shop_latency_seconds_bucket{%s}))`, `shop_size_bytes{%s}`, `histogram_quantile(0.5, shop_size_bytes{%s})`,
			`target_info{%s}`, `{__name__=~"(shop|target).*"%s}`,
		} {
			matcher := fmt.Sprintf("tenant_id=%q", tenant)
			if expr[0] == '{' {
				matcher = "," + matcher
			}
			samePromQL(t, p, q, fmt.Sprintf(expr, ""), fmt.Sprintf(expr, matcher), begin, end)
		}
	}
}

// measureAndExport collects some times and gives each collection to all exporters.
func measureAndExport(t *testing.T, to []sdkmetric.Exporter) {
	t.Helper()
	ctx := t.Context()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader),
		sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"), attribute.String("service.instance.id", "i-1"), attribute.String("cloud.region", "eu1"))),
		sdkmetric.WithView(sdkmetric.NewView(sdkmetric.Instrument{Name: "shop.size"}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})))
	defer func() { require.NoError(t, provider.Shutdown(context.WithoutCancel(ctx))) }()
	meter := provider.Meter("shop", metric.WithInstrumentationVersion("1.2.3"))
	orders, err := meter.Int64Counter("shop.orders", metric.WithDescription("Orders taken."))
	require.NoError(t, err)
	queue, err := meter.Float64Gauge("shop.queue.length")
	require.NoError(t, err)
	latency, err := meter.Float64Histogram("shop.latency", metric.WithUnit("s"))
	require.NoError(t, err)
	size, err := meter.Float64Histogram("shop.size", metric.WithUnit("By"))
	require.NoError(t, err)
	for round := range 6 {
		for i := range 20 {
			with := metric.WithAttributes(attribute.String("http.method", []string{"GET", "POST"}[i%2]))
			orders.Add(ctx, int64(round+i), with)
			latency.Record(ctx, float64(i*i*(round+1))/100, with)
			size.Record(ctx, float64(100+i*i*round), with)
		}
		queue.Record(ctx, float64(round)/3)
		var collected metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(ctx, &collected))
		for _, e := range to {
			require.NoError(t, e.Export(ctx, &collected))
		}
		time.Sleep(300 * time.Millisecond) // collections differ in time
	}
	for _, e := range to {
		require.NoError(t, e.Shutdown(context.WithoutCancel(ctx)))
	}
}
