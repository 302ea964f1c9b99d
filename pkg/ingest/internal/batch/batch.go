// Package batch holds what one write request carries, as columns: the noun that
// all parts of ingest hand on.
//
//	wire decodes a body into a Batch ─► intake names its series ─► replicate sends
//	each owner its part (a Write) ─► heads appends it
//
// A Batch is used by one goroutine while it is built, and is read only
// afterwards. It comes from a pool: whoever got it from Get releases it once
// all who read it are done, and nobody keeps what it points to.
package batch

import (
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/firnline/firnline/pkg/ingest/internal/refuse"
	"github.com/firnline/firnline/pkg/tenant"
)

// Key is the identity of a series as its sender wrote it, in 128 bits: equal for
// equal bytes of the same protocol, so that a known series is found without
// parsing its labels. Two hashes with different seeds: a clash is not
// expected in the life of the universe, and is not looked for.
type Key struct{ Hi, Lo uint64 }

// Span is a range [From, To) of a column of a Batch.
type Span struct{ From, To uint32 }

// Len is the number of elements.
func (s Span) Len() int { return int(s.To - s.From) }

// Float is a sample. ST is its start timestamp in ms, 0 if unknown.
type Float struct {
	ST, T int64 // ms
	V     float64
}

// Histogram is a native histogram: H or FH is set.
type Histogram struct {
	ST, T int64 // ms
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Series is one series of a request. A series may stand in a Batch more than once.
type Series struct {
	Key Key // set by the decoder

	// ID names the series between its router and the owners of it; intake sets
	// it. 0: the series is left out (dropped or refused).
	ID uint64
	// Hash places the series on the ring: xxhash64 of tenant, names and values,
	// each followed by 0xff, as Thanos' receive computes it; intake sets it.
	Hash uint64

	Floats, Histograms, Exemplars Span // columns of the Batch; samples are in the order of the request
}

// Family is what a sender says about a metric.
type Family struct {
	Name string // of the metric family: without _bucket, _sum and _count
	metadata.Metadata
}

// Batch is what one request carries.
type Batch struct {
	Series     []Series
	Floats     []Float
	Histograms []Histogram
	Exemplars  []exemplar.Exemplar
	Families   []Family // their strings are part of the request: who keeps one clones it

	// Refused counts what the decoder had to leave out: data points of OTLP that
	// are no series of Prometheus', or that don't continue their delta stream.
	Refused refuse.Tally

	// Labels makes the labels of series i, in their final form: sorted and,
	// once intake has been over it, relabelled. The result is memory of its own. It is
	// asked only for series that somebody does not know yet. ErrNoLabels: they
	// did not come with this batch.
	Labels func(i int) (labels.Labels, error)

	// Free gives memory back that the columns point to (a request's body).
	Free func()
}

// Samples counts floats and histograms.
func (b *Batch) Samples() int { return len(b.Floats) + len(b.Histograms) }

// Session is whose IDs a Write's series carry: one run of one router and one
// generation of its catalog. IDs mean nothing outside their session.
type Session [16]byte

// Write is what is asked of one owner: to append the series of a Batch that
// Only lists.
type Write struct {
	Tenant  tenant.ID
	Session Session
	Batch   *Batch
	Only    []uint32 // numbers of series in the Batch, ascending; those with ID 0 are never among them
}

// Result is what an owner says about a Write that it has carried out. What is
// neither listed as Unknown nor counted as refused is appended and durable as
// the owner's sync setting promises.
type Result struct {
	Unknown []uint32  // series whose ID the owner doesn't know and whose labels it was not given
	Refused []Refused // at most one per series and reason
}

// Refused says that samples of a series were not taken, or not all.
type Refused struct {
	Series  uint32 // its number in the Batch
	Samples int
	Err     *refuse.Error
}
