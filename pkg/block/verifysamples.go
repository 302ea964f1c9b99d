package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/rawchunk"
)

// sample is one series whose chunks are looked at.
type sample struct {
	number int64 // from 0
	at     int64 // offset of its entry; 0: still to be read
	chunks []layout.Chunk
}

// walk reads all series entries, compares the counts, and picks samples.
func (v *remoteVerifier) walk(ctx context.Context) (samples []sample, err error) {
	span := layout.Span{Start: seriesStart(v.toc), End: v.toc.Series.End}
	if span.Len() <= 0 {
		if err := v.counted(0, 0); err != nil {
			return nil, v.Index.Corrupt(span.Start, err)
		}
		return nil, nil
	}
	err = v.Index.Checked(ctx, span.Start, span.Len(), func(b []byte) (err error) {
		samples, err = v.walkEntries(span.Start, b)
		return err
	})
	return samples, err
}

func seriesStart(toc layout.TOC) int64 { return layout.AlignSeries(toc.Series.Start) }

// walkEntries is walk over the section's bytes, which begin at offset start.
func (v *remoteVerifier) walkEntries(start int64, b []byte) (samples []sample, err error) {
	var (
		n, chunks int64
		wanted    = positions(v.refs.Count)
		s         layout.Series
	)
	for at := int64(0); at < int64(len(b)) && (n < v.refs.Count || len(bytes.Trim(b[at:], "\x00")) > 0); n++ {
		content, size, err := layout.SeriesRecord.Content(b[at:])
		if content == nil && err == nil {
			err = layout.ErrLength
		}
		if err == nil {
			err = s.Decode(content)
		}
		if err != nil {
			return nil, fmt.Errorf("series entry at %d: %w", start+at, err)
		}
		chunks += int64(len(s.Chunks))
		if slices.Contains(wanted, n) {
			samples = append(samples, sample{n, start + at, slices.Clone(s.Chunks)})
		}
		at = layout.AlignSeries(start+at+size) - start
	}
	return samples, v.counted(n, chunks)
}

// counted compares what the index has with itself and with meta.json.
func (v *remoteVerifier) counted(series, chunks int64) error {
	if series != v.refs.Count {
		return fmt.Errorf("%d series entries, and %d in the list of all series", series, v.refs.Count)
	}
	if n := v.meta.Stats.NumChunks; n > 0 && uint64(chunks) != n {
		return fmt.Errorf("%d chunks in the index, %d in meta.json", chunks, n)
	}
	return nil
}

// positions are the numbers of the series to look at: the first, the last, and
// those at equal distances between.
func positions(count int64) []int64 {
	if count == 0 {
		return nil
	}
	out := []int64{0, count - 1}
	for i := range int64(verifySamples) {
		out = append(out, (count-1)*i/(verifySamples-1))
	}
	slices.Sort(out[2:])
	return slices.Compact(append(out[:2], slices.DeleteFunc(out[2:], func(i int64) bool { return i == 0 || i == count-1 })...))
}

// pick names samples whose entries are still to be read.
func (v *remoteVerifier) pick() (samples []sample) {
	for _, i := range positions(v.refs.Count) {
		samples = append(samples, sample{number: i})
	}
	return samples
}

// entry reads the i-th series entry.
func (v *remoteVerifier) entry(ctx context.Context, i int64) (sample, error) {
	refs := *v.refs // which keeps what it has read
	var s layout.Series
	at, err := refs.Entry(ctx, i, math.MaxInt64, &s)
	if err == nil && i == 0 && at != seriesStart(v.toc) {
		err = v.Index.Corrupt(refs.Place.Start, fmt.Errorf("the first series is said to be at offset %d", at))
	}
	return sample{i, at, s.Chunks}, err
}

// chunkOf looks at one chunk of a sample: the first of the first series, the
// last of the last, and others between.
func (v *remoteVerifier) chunkOf(ctx context.Context, s sample) error {
	if len(s.chunks) == 0 {
		return nil
	}
	m := s.chunks[s.number*int64(len(s.chunks)-1)/max(v.refs.Count-1, 1)]
	segment, at := int(m.Ref>>32), int64(uint32(m.Ref))
	if segment >= len(v.Segments) || at >= v.Segments[segment].SizeBytes {
		return v.Index.Corrupt(s.at, fmt.Errorf("a chunk is at offset %d of segment %d: there is no such place", at, segment+1))
	}
	r := &v.Segments[segment]
	if err := v.head(ctx, segment); err != nil {
		return err
	}
	guess := min(max(v.meta.Thanos.IndexStats.ChunkMaxSize, 4<<10), verifyRecord)
	content, err := r.Record(ctx, layout.Span{Start: at, End: r.SizeBytes}, layout.ChunkRecord, guess)
	if err != nil {
		return fmt.Errorf("chunk: %w", err)
	}
	if err := checkSamples(m, content); err != nil {
		return r.Corrupt(at, fmt.Errorf("chunk: %w", err))
	}
	return nil
}

// head looks at the first bytes of a segment, once.
func (v *remoteVerifier) head(ctx context.Context, segment int) error {
	if !v.firstIn(segment) {
		return nil
	}
	return v.Segments[segment].CheckSegment(ctx)
}

// firstIn tells whether a segment is asked for the first time.
func (v *remoteVerifier) firstIn(segment int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.heads == nil {
		v.mu.heads = map[int]bool{}
	}
	seen := v.mu.heads[segment]
	v.mu.heads[segment] = true
	return !seen
}

// checkSamples reads through a chunk of raw samples: they ascend and are within
// the times that the index gives. Other encodings are let through.
func checkSamples(m layout.Chunk, content []byte) (err error) {
	// The iterators trust the length of a chunk, which a checksum doesn't vouch for.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode: %v", p)
		}
	}()
	enc := chunkenc.Encoding(content[0])
	if !chunkenc.IsValidEncoding(enc) {
		return nil // aggregates, or what a newer program wrote
	}
	c, err := rawchunk.Open(enc, content[1:])
	if err != nil {
		return err
	}
	last, n := m.MinTime-1, 0
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		if t := it.AtT(); t <= last || t > m.MaxTime {
			return fmt.Errorf("a sample at %d, behind one at %d, in a chunk from %d to %d", t, last, m.MinTime, m.MaxTime)
		}
		last = it.AtT()
		n++
	}
	if err := it.Err(); err != nil {
		return err
	}
	if n != c.NumSamples() {
		return errors.New("fewer samples than it says")
	}
	return nil
}
