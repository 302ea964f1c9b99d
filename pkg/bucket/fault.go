package bucket

import "context"

// FaultHook is told of every named step before and after it is taken, and makes
// it fail by returning an error: before, the step is not taken; after, it was
// taken and its answer is lost. It may also kill the process or wait. Production
// has none.
//
// The steps of a bucket are called bucket/<operation>/before and
// bucket/<operation>/after, and object is what they are about. Components name
// their own, such as ship/after-index, and report them by Handle.FaultPoint.
type FaultHook func(ctx context.Context, point, object string) error

// FaultPoints lists the points of WithFaults, so that tests can go through them.
func FaultPoints() []string {
	var out []string
	for _, op := range ops() {
		out = append(out, faultPoint(op, "before"), faultPoint(op, "after"))
	}
	return out
}

func faultPoint(op Op, when string) string { return "bucket/" + string(op) + "/" + when }

// WithFaults has hook asked about every request to b. Without a hook it returns b.
func WithFaults(b Bucket, hook FaultHook) Bucket {
	if hook == nil {
		return b
	}
	return &layer{Bucket: b, around: func(ctx context.Context, c Call, do func(context.Context) error) error {
		if err := hook(ctx, faultPoint(c.Op, "before"), c.Name); err != nil {
			return err
		}
		if err := do(ctx); err != nil {
			return err
		}
		return hook(ctx, faultPoint(c.Op, "after"), c.Name)
	}}
}
