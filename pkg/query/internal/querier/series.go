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
	read    reading
	kind    dedup.Kind
	counter bool
	bounds  bounds // of the samples to return
}

// series is one series of an answer, a storage.Series.
type series struct {
	lset     labels.Labels
	chunks   []storeapi.Chunk // in order and apart; or
	replicas []replica        // where they overlap
	shape    *shape
}

// replica are the chunks of one replica, as runs of chunks that don't overlap.
type replica [][]storeapi.Chunk

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
	sh := s.shape
	corrected := sh.corrected(s.chunks) || slices.ContainsFunc(s.replicas, func(r replica) bool { return slices.ContainsFunc(r, sh.corrected) })
	if len(s.replicas) == 0 {
		if !corrected {
			return newRun(s.chunks, sh.read, sh.bounds, it)
		}
		return sh.trimmed(sh.run(s.chunks, true))
	}
	var its []chunkenc.Iterator
	for _, r := range s.replicas {
		its = append(its, sh.replica(r, corrected)...)
	}
	if corrected {
		return sh.trimmed(dedup.NewCorrected(sh.kind, its...))
	}
	return sh.trimmed(dedup.New(sh.kind, sh.counter, its...))
}

// corrected tells whether a counter has to come without its resets: where some
// chunks are downsampled, and so corrected for them, all are.
func (sh *shape) corrected(chunks []storeapi.Chunk) bool {
	return sh.read == readCounter && slices.ContainsFunc(chunks, func(c storeapi.Chunk) bool { return c.Aggr != nil })
}

// replica returns all samples of a replica, whichever of its runs they are in, as
// one iterator; or each run as one where they are corrected for resets, since
// each then counts from its own beginning.
func (sh *shape) replica(r replica, corrected bool) []chunkenc.Iterator {
	its := make([]chunkenc.Iterator, len(r))
	for i, chunks := range r {
		its[i] = sh.run(chunks, corrected)
	}
	if corrected {
		return its
	}
	return []chunkenc.Iterator{dedup.New(dedup.Chain, false, its...)}
}

// run returns all samples of chunks that don't overlap: what was before the
// first one asked for bears upon counters and upon the choice of replicas.
func (sh *shape) run(chunks []storeapi.Chunk, corrected bool) chunkenc.Iterator {
	if !corrected {
		return newRun(chunks, sh.read, unbounded(), nil)
	}
	its := make([]chunkenc.Iterator, len(chunks))
	for i := range chunks {
		its[i] = newRun(chunks[i:i+1], sh.read, unbounded(), nil)
	}
	return downsample.NewCounter(its)
}

// trimmed leaves out the samples that were not asked for.
func (sh *shape) trimmed(it chunkenc.Iterator) chunkenc.Iterator {
	if sh.bounds == unbounded() {
		return it
	}
	return &window{Iterator: it, bounds: sh.bounds}
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
func split(list []storeapi.Chunk) []replica {
	parts := make([]part, len(list))
	metas := make([]chunks.Meta, len(list))
	for i := range list {
		parts[i] = part{of: &list[i]}
		metas[i] = chunks.Meta{MinTime: list[i].MinTime, MaxTime: list[i].MaxTime, Chunk: &parts[i], Ref: chunks.ChunkRef(list[i].Replica)}
	}
	var replicas []replica
	for _, runs := range dedup.Split(metas) {
		r := make(replica, len(runs))
		for i, run := range runs {
			for _, m := range run {
				r[i] = append(r[i], *m.Chunk.(*part).of)
			}
		}
		replicas = append(replicas, r)
	}
	return replicas
}
