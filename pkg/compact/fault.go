package compact

import (
	"context"

	"github.com/firnline/firnline/pkg/block"
)

// Points at which Parts.Fault is called, in the order of a job and then of the
// other loops. The object is the job's key or the block.
const (
	pointClaimed     = "compact/after-claim"
	pointReread      = "compact/after-reread"
	pointMerged      = "compact/after-merge"
	pointReadBack    = "compact/after-readback"
	pointBeforeMeta  = "compact/before-meta"
	pointUploaded    = "compact/after-upload" // of each result
	pointBeforeMark  = "compact/before-mark"
	pointMarked      = "compact/after-mark" // of each input
	pointRelease     = "compact/before-release"
	pointGarbage     = "compact/before-garbage-mark"
	pointExpired     = "compact/before-retention-mark"
	pointSetAside    = "compact/before-set-aside"
	pointRemove      = "compact/before-remove"
	pointRemoved     = "compact/after-remove"
	pointPartial     = "compact/before-remove-partial"
	pointDeletesDone = "compact/before-delete-done"
)

// FaultPoints lists the points, so that tests can go through them.
func FaultPoints() []string {
	return []string{
		pointClaimed, pointReread, pointMerged,
		uploadPoint(block.StepVerifiedLocal), uploadPoint(block.StepSegments), uploadPoint(block.StepIndex), uploadPoint(block.StepVerified),
		pointReadBack, pointBeforeMeta, uploadPoint(block.StepMeta),
		pointUploaded, pointBeforeMark, pointMarked, pointRelease,
		pointGarbage, pointExpired, pointSetAside, pointRemove, pointRemoved, pointPartial, pointDeletesDone,
	}
}

// uploadPoint is the name here of a step of block.Uploader.
func uploadPoint(step string) string { return "compact/" + step }

// point reports a step to the fault hook. Production has none.
func (c *Compactor) point(ctx context.Context, name, object string) error {
	if c.fault == nil {
		return nil
	}
	return c.fault(ctx, name, object)
}
