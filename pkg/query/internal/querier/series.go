package querier

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/firnline/firnline/pkg/dedup"
	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/storeapi"
)

// shape is how the chunks of all series of a selection become samples.
type shape struct {
	read       reading
	kind       dedup.Kind
	counter    bool
	trim       bool // return only samples in [mint, maxt]
	mint, maxt int64
}

// series is one series of an answer, a storage.Series.
type series struct {
	lset     labels.Labels
	chunks   []storeapi.Chunk   // of the only replica, in order and apart; or
	replicas [][]storeapi.Chunk // of each of several
	shape    *shape
}

// newSeries copies what lives only until the set moves on.
func newSeries(s storeapi.Series, shape *shape) *series {
	out := &series{lset: s.Labels, shape: shape}
	chunks := slices.Clone(s.Chunks)
	if apart(chunks) {
		out.chunks = chunks
	} else {
		out.replicas = split(chunks)
	}
	return out
}

// Labels implements storage.Series.
func (s *series) Labels() labels.Labels { return s.lset }

// Iterator implements storage.Series. It uses the memory of it where it can.
func (s *series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if len(s.replicas) == 0 {
		return s.shape.trimmed(s.shape.replica(s.chunks, it), it)
	}
	its := make([]chunkenc.Iterator, len(s.replicas))
	for i, chunks := range s.replicas {
		its[i] = s.shape.replica(chunks, nil)
	}
	return s.shape.trimmed(dedup.New(s.shape.kind, s.shape.counter, its...), it)
}

// replica returns the samples of chunks that don't overlap. Raw counters come as
// they are; where some chunks are downsampled, and so corrected for resets, all are.
func (sh *shape) replica(chunks []storeapi.Chunk, reuse chunkenc.Iterator) chunkenc.Iterator {
	if sh.read != readCounter || !slices.ContainsFunc(chunks, func(c storeapi.Chunk) bool { return c.Aggr != nil }) {
		return newRun(chunks, sh.read, reuse)
	}
	its := make([]chunkenc.Iterator, len(chunks))
	for i := range chunks {
		its[i] = newRun(chunks[i:i+1], sh.read, nil)
	}
	return downsample.NewCounter(its)
}

// trimmed leaves out the samples that were not asked for.
func (sh *shape) trimmed(it, reuse chunkenc.Iterator) chunkenc.Iterator {
	if !sh.trim {
		return it
	}
	w, ok := reuse.(*window)
	if !ok {
		w = &window{}
	}
	*w = window{Iterator: it, mint: sh.mint, maxt: sh.maxt}
	return w
}

// apart tells whether chunks, sorted by time, don't overlap.
func apart(chunks []storeapi.Chunk) bool {
	for i := 1; i < len(chunks); i++ {
		if chunks[i].MinTime <= chunks[i-1].MaxTime {
			return false
		}
	}
	return true
}

// split tells apart the replicas that were mixed into one series.
func split(list []storeapi.Chunk) [][]storeapi.Chunk {
	parts := make([]part, len(list))
	metas := make([]chunks.Meta, len(list))
	for i := range list {
		parts[i] = part{of: &list[i]}
		metas[i] = chunks.Meta{MinTime: list[i].MinTime, MaxTime: list[i].MaxTime, Chunk: &parts[i]}
	}
	var replicas [][]storeapi.Chunk
	for _, metas := range dedup.Split(metas) {
		replica := make([]storeapi.Chunk, len(metas))
		for i, m := range metas {
			replica[i] = *m.Chunk.(*part).of
		}
		replicas = append(replicas, replica)
	}
	return replicas
}
