package ingest

import (
	"context"
	"sync"

	"github.com/firnline/firnline/pkg/ingest/internal/batch"
	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/ingest/internal/replicate"
)

// owner is the heads of this process as those see them that write: closed for
// good once the node leaves for good, since what came after the last flush would
// be shipped by nobody.
type owner struct {
	replicate.Owner

	mu     sync.RWMutex // held for reading during each Append
	closed bool
}

// Append implements replicate.Owner.
func (o *owner) Append(ctx context.Context, w *batch.Write) (batch.Result, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return batch.Result{}, refuse.Errorf(refuse.NotReady, w.Tenant, "this node is leaving the ring for good")
	}
	return o.Owner.Append(ctx, w)
}

// close returns when nothing is being appended any more.
func (o *owner) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}
