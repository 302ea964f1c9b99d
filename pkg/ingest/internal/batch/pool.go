package batch

import (
	"errors"
	"sync"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
)

// ErrNoLabels says that a series was sent by its ID alone.
var ErrNoLabels = errors.New("the labels of this series did not come with it")

// keptElements bounds the columns of a Batch that goes back to the pool: one
// huge request must not hold its memory for ever.
const keptElements = 64 << 10

// Pool hands out empty batches.
type Pool struct{ p sync.Pool }

// Get returns an empty Batch.
func (p *Pool) Get() *Batch {
	if b, ok := p.p.Get().(*Batch); ok {
		return b
	}
	return &Batch{}
}

// Put takes a Batch back that nobody reads any more.
func (p *Pool) Put(b *Batch) {
	if b.Free != nil {
		b.Free()
	}
	b.Labels, b.Free, b.Refused = nil, nil, refuse.Tally{}
	if max(cap(b.Series), cap(b.Floats), cap(b.Histograms), cap(b.Exemplars)) > keptElements {
		return
	}
	clear(b.Histograms)
	clear(b.Exemplars)
	clear(b.Families)
	b.Series, b.Floats, b.Histograms = b.Series[:0], b.Floats[:0], b.Histograms[:0]
	b.Exemplars, b.Families = b.Exemplars[:0], b.Families[:0]
	p.p.Put(b)
}
