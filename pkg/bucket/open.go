package bucket

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"go.opentelemetry.io/otel/trace"

	"github.com/firnline/firnline/pkg/gokit"
)

// Parts is what a bucket is given by the command line.
type Parts struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracers trace.TracerProvider // nil for no traces
	Fault   FaultHook            // nil in production
}

// Handle is an opened bucket with all its layers:
//
//	caller ─► faults ─► trace ─► metrics ─► retry ─► limit ─► timeout ─► length ─► prefix ─► reload ─► redaction ─► provider
//
// Retry stands above limit, so that a request waiting for its next try holds no
// place; and above length, so that a body that was cut short is read on.
type Handle struct {
	Bucket
	Target *Target // as configured at the start

	reload *reloading // nil without a file
	fault  FaultHook
}

// Open parses the configuration and makes the bucket, and asks the store
// nothing, unless its YAML says that a container is to be created. Run keeps
// credentials fresh; SelfTest tells whether the store is there. ctx bounds the opening alone.
func Open(ctx context.Context, cfg Config, parts Parts) (*Handle, error) {
	content, from, err := cfg.read()
	if err != nil {
		return nil, fmt.Errorf("objstore: %w", err)
	}
	target, err := ParseConfig(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	for _, w := range target.Warnings {
		parts.Log.Warn(w, "config", from)
	}
	m := newMetrics(parts.Metrics)
	b, err := openTarget(ctx, target, parts.Log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, explain(target, err))
	}
	h := &Handle{Target: target, fault: parts.Fault}
	if cfg.ObjstoreFile != "" {
		h.reload = newReloading(cfg.ObjstoreFile, content, target, b, func(t *Target) (Bucket, error) {
			return openTarget(context.Background(), t, parts.Log) // outlives the request that asked for it
		})
		h.reload.log, h.reload.metrics = parts.Log, m
		b = h.reload
	}
	h.Bucket = stack(b, target.Prefix, cfg, parts, m)
	return h, nil
}

// stack puts the layers over a provider's bucket.
func stack(b Bucket, prefix string, cfg Config, parts Parts, m *metrics) Bucket {
	b = WithPrefix(b, prefix)
	b = withLength(b)
	b = withTimeout(b, time.Duration(cfg.Timeout))
	b = withLimit(b, newLimiter(cfg.MaxConcurrent, m))
	b = withRetry(b, cfg.MaxRetries, m)
	b = withMetrics(b, m)
	if parts.Tracers != nil {
		b = withTrace(b, parts.Tracers)
	}
	return WithFaults(b, parts.Fault)
}

// openTarget makes the provider's bucket. Its error shows no secrets.
func openTarget(ctx context.Context, t *Target, log *slog.Logger) (b Bucket, err error) {
	// With trace.enable the S3 client logs whole requests, secrets and all.
	logger := gokit.Logger{Slog: log, Name: "objstore", Redact: t.redact}
	switch t.Type {
	case objstore.S3:
		b, err = openS3(*t.s3, logger)
	case objstore.GCS:
		b, err = openGCS(ctx, *t.gcs, logger)
	case objstore.AZURE:
		b, err = openAzure(ctx, *t.azure, logger)
	case objstore.FILESYSTEM:
		b, err = NewFolder(t.folder.Directory)
	}
	if err != nil {
		return nil, fmt.Errorf("open: %w", &redacted{err: err, target: t})
	}
	return withRedaction(b, t), nil
}

// Run keeps the credentials fresh until ctx is done, and then returns nil.
func (h *Handle) Run(ctx context.Context) error {
	if h.reload == nil {
		<-ctx.Done()
		return nil
	}
	h.reload.run(ctx)
	return nil
}

// FaultPoint reports a component's own step, such as ship/after-index, to the
// fault hook. Without one, as in production, it returns nil.
func (h *Handle) FaultPoint(ctx context.Context, point, object string) error {
	if h.fault == nil {
		return nil
	}
	return h.fault(ctx, point, object)
}
