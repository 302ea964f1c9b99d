package server

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/firnline/firnline/pkg/content"
)

const (
	forceTracingHeader = "X-Thanos-Force-Tracing"
	traceIDHeader      = "X-Thanos-Trace-Id"
)

// TracingConfig is what an operator may set of traces.
type TracingConfig struct {
	Tracing     string // YAML content
	TracingFile string
}

// RegisterFlags registers the flags of tracing.
func (c *TracingConfig) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Tracing, "tracing.config", "", "YAML that says where traces go (type: OTLP); empty: nowhere.")
	fs.StringVar(&c.TracingFile, "tracing.config-file", "", "File with the YAML of --tracing.config.")
}

// Validate tells what is wrong with the YAML.
func (c *TracingConfig) Validate() error {
	_, err := c.parse()
	return err
}

func (c *TracingConfig) parse() (*otlpConfig, error) {
	text, source, err := content.Of("tracing.config", c.Tracing, c.TracingFile)
	if err != nil {
		return nil, err
	}
	out, err := parseTracing(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return out, nil
}

// Tracing makes spans and sends them off.
type Tracing struct {
	Provider   trace.TracerProvider
	Propagator propagation.TextMapPropagator // W3C trace context and baggage
	sdk        *sdktrace.TracerProvider      // nil: off
}

// NewTracing starts sending what is traced under the service name, unless the
// configuration has another. With an empty configuration nothing is traced.
// Call Shutdown in the end.
func NewTracing(ctx context.Context, cfg TracingConfig, service, version string) (*Tracing, error) {
	t := &Tracing{
		Provider:   noop.NewTracerProvider(),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
	c, err := cfg.parse()
	if err != nil || c == nil {
		return t, err
	}
	exporter, err := c.exporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("tracing: open exporter: %w", err)
	}
	if c.ServiceName != "" {
		service = c.ServiceName
	}
	attrs := []attribute.KeyValue{attribute.String("service.name", service), attribute.String("service.version", version)}
	for k, v := range c.ResourceAttributes {
		attrs = append(attrs, attribute.String(k, v))
	}
	sampler, err := c.sampler()
	if err != nil {
		return nil, err
	}
	t.sdk = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attrs...)),
		sdktrace.WithSampler(forcible{sampler}),
	)
	t.Provider = t.sdk
	return t, nil
}

// SetGlobal makes libraries that know no other way use t.
func (t *Tracing) SetGlobal() {
	otel.SetTracerProvider(t.Provider)
	otel.SetTextMapPropagator(t.Propagator)
}

// Shutdown sends what is left, for at most 10 seconds.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if t.sdk == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return t.sdk.Shutdown(ctx)
}

type forceKey struct{}

// forcible samples what asks for it, and leaves the rest to another sampler.
type forcible struct{ sdktrace.Sampler }

func (f forcible) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.ParentContext.Value(forceKey{}) != nil {
		return sdktrace.SamplingResult{
			Decision:   sdktrace.RecordAndSample,
			Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState(),
		}
	}
	return f.Sampler.ShouldSample(p)
}

// forced marks requests whose header asks for a trace.
func forced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(forceTracingHeader) != "" {
			r = r.WithContext(context.WithValue(r.Context(), forceKey{}, true))
		}
		next.ServeHTTP(w, r)
	})
}

// traced tells the client the id of its request's trace, where there is one.
func traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sc := trace.SpanContextFromContext(r.Context()); sc.IsSampled() {
			w.Header().Set(traceIDHeader, sc.TraceID().String())
		}
		next.ServeHTTP(w, r)
	})
}
