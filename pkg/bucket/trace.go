package bucket

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// withTrace gives every request to b a span. The error's text stays out of it:
// providers put addresses and key names there.
func withTrace(b Bucket, tracers trace.TracerProvider) Bucket {
	tracer := tracers.Tracer("github.com/firnline/firnline/pkg/bucket")
	return &layer{Bucket: b, around: func(ctx context.Context, c Call, do func(context.Context) error) error {
		ctx, span := tracer.Start(ctx, "bucket "+string(c.Op), trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.String("bucket.object", c.Name)))
		defer span.End()
		err := do(ctx)
		if err != nil && !b.IsObjNotFoundErr(err) && !b.IsConditionFailedErr(err) {
			span.SetStatus(codes.Error, "request failed")
		}
		return err
	}}
}
