// Package dedup makes one series of the replicas of an HA pair: replicas in,
// one series out, for reads and for compaction alike. It works on chunks and
// sample iterators alone.
//
// Functions are safe for concurrent use; iterators are used by one goroutine.
package dedup

import (
	"fmt"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Kind names a way to merge replicas.
type Kind string

const (
	// Firnline stays with one replica while it is dense and moves to another
	// for the time of a gap; see firnline.go.
	Firnline Kind = "firnline"
	// Penalty is Thanos' algorithm: the replica not read is held back by twice
	// the last interval.
	Penalty Kind = "penalty"
	// Chain takes every timestamp of every replica once.
	Chain Kind = "chain"
)

// ParseKind reads a Kind from a flag.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case Firnline, Penalty, Chain:
		return k, nil
	}
	return "", fmt.Errorf("deduplication function %q is none of firnline, penalty, chain", s)
}

// Skipper is an iterator that can leave samples out at less cost than reading
// them. A replica that isn't needed for a while is not decoded then; the result
// is the same.
type Skipper interface {
	chunkenc.Iterator
	// Skip may leave out samples that come next, as long as at least keep samples
	// at or before t are still to come.
	Skip(t int64, keep int)
}

// Runner is an iterator that has samples in arrays.
type Runner interface {
	chunkenc.Iterator
	// Run returns samples right behind the current one: floats without start
	// timestamps, none where there are no such at hand.
	Run() (ts []int64, vs []float64)
	// Advance moves on by n of them.
	Advance(n int)
}

// Follower is what New returns for Firnline.
type Follower interface {
	chunkenc.Iterator
	// Follow moves on for as long as nothing but the samples of a Runner comes out,
	// as it would by as many calls of Next. It returns whose they are, an index
	// into the replicas given to New, and how many; 0 is no sign of an end.
	Follow() (replica, n int)
}

// New merges replicas of one series, each sorted by time, into one. counter
// says that the values are those of a counter, so that moving between replicas
// must not look like a reset. The order of replicas decides ties; Split gives
// an order that depends on their content alone.
func New(kind Kind, counter bool, replicas ...chunkenc.Iterator) chunkenc.Iterator {
	if len(replicas) == 1 {
		return replicas[0]
	}
	switch kind {
	case Penalty:
		return newPenalties(counter, false, replicas)
	case Chain:
		return storage.ChainSampleIteratorFromIterators(nil, replicas)
	default:
		return newFirnline(counter, replicas)
	}
}

// NewCorrected merges counters that each were corrected for resets since their
// own beginning (package downsample), and so differ by the resets before that.
// None of them goes down; nor does the result: a replica that lags behind is
// raised from where the merge moves to it. Chain, which would go back and forth
// between them, is taken for Firnline.
func NewCorrected(kind Kind, replicas ...chunkenc.Iterator) chunkenc.Iterator {
	if len(replicas) == 1 {
		return replicas[0]
	}
	if kind == Penalty {
		return newPenalties(true, true, replicas)
	}
	f := newFirnline(false, replicas)
	f.level = &level{}
	return f
}
