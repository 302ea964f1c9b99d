package blockreader

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/downsample"
	"github.com/firnline/firnline/pkg/store/internal/fetch"
	"github.com/firnline/firnline/pkg/storeapi"
)

// wanted is a chunk to be read and where it goes.
type wanted struct {
	segment int
	span    fetch.Span // End is a guess
	into    *storeapi.Chunk
	cuts    tombstones.Intervals // hidden
}

// nearChunk is how far the next chunk of a series may be for its place to be
// believed as the end of the one before: writers of the TSDB put the chunks of
// a series one behind the other, but nothing obliges them.
const nearChunk = 64 << 10

// planChunks lists the chunks of a series that overlap [mint, maxt]. into has a place for each.
func (b *Block) planChunks(s *selected, mint, maxt int64, into []storeapi.Chunk) ([]wanted, error) {
	var out []wanted
	metas := s.chunks
	for i, m := range metas {
		if !overlaps(m, mint, maxt) {
			continue
		}
		segment, at := int(m.Ref>>32), int64(uint32(m.Ref))
		if segment >= len(b.files.Segments) {
			return nil, corrupt(b.files.Index.Name, 0, "a chunk is in segment %d, the block has %d", segment+1, len(b.files.Segments))
		}
		obj := b.files.Segments[segment]
		if at >= obj.SizeBytes {
			return nil, corrupt(obj.Name, at, "a chunk begins beyond the end")
		}
		length := b.files.MaxChunkLen
		if i+1 < len(metas) && metas[i+1].Ref>>32 == uint64(segment) {
			if next := int64(uint32(metas[i+1].Ref)) - at; next > 0 && next <= max(length, nearChunk) {
				length = next
			}
		}
		c := &into[len(out)]
		c.MinTime, c.MaxTime = m.MinTime, m.MaxTime
		w := wanted{segment: segment, span: fetch.Span{Start: at, End: min(at+length, obj.SizeBytes)}, into: c}
		if s.cuts != nil {
			w.cuts = s.cuts[i]
		}
		out = append(out, w)
	}
	return out, nil
}

// place is the span of a chunk among those of all segment files, one far behind the other.
func (w wanted) place() fetch.Span {
	const apart = 1 << 40
	return fetch.Span{Start: int64(w.segment)*apart + w.span.Start, End: int64(w.segment)*apart + w.span.End}
}

// loadChunks reads chunks, in any order, segment files at the same time, and
// puts their data where they belong. The data share one buffer of exactly their
// length, so what was read around them is free again. It returns the length of
// that buffer, which stays counted as held.
func (b *Block) loadChunks(ctx context.Context, want []wanted, q *Query, w *Work) (held int64, err error) {
	slices.SortFunc(want, func(x, y wanted) int {
		return cmp.Or(cmp.Compare(x.segment, y.segment), cmp.Compare(x.span.Start, y.span.Start))
	})
	records := make([][]byte, 0, len(want))
	groups := slices.Collect(bySegment(want))
	costs := make([]fetch.Cost, len(groups))
	parts := make([][][]byte, len(groups))
	g, gctx := errgroup.WithContext(ctx)
	for i, group := range groups {
		g.Go(func() (err error) {
			spans := make([]fetch.Span, len(group))
			for j, c := range group {
				spans[j] = c.span
			}
			parts[i], costs[i], err = b.parts.Fetcher.Records(gctx, w.Limits.terms(q.WindowBytes), fetch.Chunk, b.files.Segments[group[0].segment], spans)
			return err
		})
	}
	err = g.Wait()
	var read int64
	for _, c := range costs {
		read += c.Bytes
		w.Stats.ChunksFetches += c.Reads
		w.Stats.ChunksFetchedBytes += c.Bytes
		w.spent(c)
	}
	defer w.Limits.Held.Give(read)
	w.Stats.ChunksFetched += int64(len(want))
	w.Stats.ChunksTouched += int64(len(want))
	if err != nil {
		return 0, fmt.Errorf("chunks: %w", err)
	}
	for _, p := range parts {
		for _, r := range p {
			held += int64(len(r))
		}
		records = append(records, p...)
	}
	if err := w.Limits.Held.Take(held); err != nil {
		return 0, err
	}
	if err := b.fill(want, records, make([]byte, 0, held), q, w); err != nil {
		w.Limits.Held.Give(held)
		return 0, err
	}
	return held, nil
}

// bySegment cuts sorted chunks into those of one segment file each.
func bySegment(want []wanted) iter.Seq[[]wanted] {
	return func(yield func([]wanted) bool) {
		for from := 0; from < len(want); {
			to := from + 1
			for to < len(want) && want[to].segment == want[from].segment {
				to++
			}
			if !yield(want[from:to]) {
				return
			}
			from = to
		}
	}
}

// fill decodes records into the chunks they are wanted for. Their data goes into
// buf, which has room for it. Chunks of which all is hidden stay without data.
func (b *Block) fill(want []wanted, records [][]byte, buf []byte, q *Query, w *Work) error {
	for i, wt := range want {
		content := fetch.Chunk.Strip(records[i]) // encoding and data
		w.Stats.ChunksTouchedBytes += int64(len(content))
		at := len(buf)
		buf = append(buf, content[1:]...)
		data := storeapi.Data{Encoding: chunkenc.Encoding(content[0]), Bytes: buf[at:len(buf):len(buf)]}
		if err := wt.set(data, q); err != nil {
			return corrupt(b.files.Segments[wt.segment].Name, wt.span.Start, "%v", err)
		}
	}
	return nil
}

// set gives the chunk its data, without what is hidden.
func (w *wanted) set(data storeapi.Data, q *Query) error {
	if err := aggregates(q.Aggregates).set(w.into, data); err != nil || len(w.cuts) == 0 {
		return err
	}
	keep, err := storeapi.CutChunk(w.into, w.cuts, q.Resolution)
	if err == nil && !keep {
		w.into.Raw, w.into.Aggr = storeapi.Data{}, nil
	}
	return err
}

// aggregates are those wanted of downsampled chunks.
type aggregates []storeapi.Aggregate

// set gives c its data: raw chunks as they are, of aggregate chunks what is wanted.
func (a aggregates) set(c *storeapi.Chunk, data storeapi.Data) error {
	if data.Encoding != downsample.Encoding {
		c.Raw = data
		_, err := data.Chunk() // knows the encodings and their least lengths
		return err
	}
	sub, err := downsample.Decode(data.Bytes)
	if err != nil {
		return err
	}
	c.Aggr = &storeapi.Aggregates{}
	for _, aggr := range a {
		var to *storeapi.Data
		var from downsample.Type
		switch aggr {
		case storeapi.AggregateCount:
			to, from = &c.Aggr.Count, downsample.Count
		case storeapi.AggregateSum:
			to, from = &c.Aggr.Sum, downsample.Sum
		case storeapi.AggregateMin:
			to, from = &c.Aggr.Min, downsample.Min
		case storeapi.AggregateMax:
			to, from = &c.Aggr.Max, downsample.Max
		case storeapi.AggregateCounter:
			to, from = &c.Aggr.Counter, downsample.Counter
		default: // AggregateRaw: a downsampled chunk has none
			continue
		}
		*to = storeapi.Data{Encoding: sub[from].Encoding, Bytes: sub[from].Bytes}
	}
	return nil
}
