package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/firnline/firnline/pkg/block/layout"
	"github.com/firnline/firnline/pkg/rawchunk"
)

// What VerifyRemote asks of a bucket at most, whatever the block's size. Only a
// single series entry or chunk that is longer than any should be comes on top.
const (
	verifyRequests = 64
	verifyBytes    = 16 << 20

	verifySection = 3 << 20  // a section of the index up to this long is read whole
	verifyRecord  = 64 << 10 // of a series entry or chunk, read at once
	verifySamples = 12       // series to look at, and as many chunks
	// What one sample may still take: a reference, an entry and a chunk, each of
	// which may be longer than was thought, and the head of a segment.
	sampleRequests = 6
	sampleBytes    = 4 * verifyRecord
)

// VerifyRemote looks at a block in a bucket and tells whether it is what m says,
// without reading it whole: after an upload, and before a block that it stands
// in for is marked. It compares
//
//   - the size of every data file with the listing
//   - head and table of contents of the index, the checksums of symbols,
//     postings offset table and list of all series where these are short, else
//     their bounds, and the number of series
//   - all series entries where those are short, with the number of chunks; else
//     the first, the last and some between, always the same ones
//   - for these, the head of a segment and a chunk: its checksum, and that its
//     samples lie within its times.
//
// It does not ask for meta.json, which may be still to come. The error wraps
// ErrNotVerified where objects are missing or have the wrong size, ErrCorrupt
// or ErrUnknownVersion where bytes are wrong, or comes from the bucket.
func VerifyRemote(ctx context.Context, bkt Bucket, m *Meta) error {
	v := &remoteVerifier{meta: m, bkt: bkt}
	if err := v.run(ctx); err != nil {
		return fmt.Errorf("block %s: verify: %w", m.ULID, err)
	}
	return nil
}

// remoteVerifier is one VerifyRemote.
type remoteVerifier struct {
	meta *Meta
	bkt  Bucket
	*Remote
	toc  layout.TOC
	refs *SeriesRefs

	requests, bytes int64
	heads           map[int]bool // segments whose head was looked at
}

func (v *remoteVerifier) run(ctx context.Context) (err error) {
	if err := v.open(ctx); err != nil {
		return err
	}
	if v.toc, err = v.TOC(ctx); err != nil {
		return err
	}
	if err := v.sections(ctx); err != nil {
		return err
	}
	var samples []sample
	if v.toc.Series.Len() <= verifySection {
		samples, err = v.walk(ctx)
	} else {
		samples, err = v.pick(ctx)
	}
	if err != nil {
		return err
	}
	for _, s := range samples {
		if !v.affordable() {
			break
		}
		if err := v.chunkOf(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// affordable tells whether one more sample keeps to what may be asked for.
func (v *remoteVerifier) affordable() bool {
	return v.requests+sampleRequests <= verifyRequests && v.bytes+sampleBytes <= verifyBytes
}

func (v *remoteVerifier) told(bytes int) {
	v.requests++
	v.bytes += int64(bytes)
}

// open compares the listing with the meta, as far as that knows sizes.
func (v *remoteVerifier) open(ctx context.Context) error {
	have, err := listSizes(ctx, v.bkt, v.meta.ULID)
	v.told(0)
	if err != nil {
		return err
	}
	want := map[string]int64{IndexFilename: have[IndexFilename]}
	for _, name := range v.meta.Thanos.SegmentFiles {
		rel := ChunksDirname + "/" + name
		want[rel] = have[rel]
	}
	for _, f := range v.meta.Thanos.Files {
		if f.RelPath != MetaFilename {
			want[f.RelPath] = f.SizeBytes
		}
	}
	for rel, size := range want {
		got, ok := have[rel]
		if !ok {
			return fmt.Errorf("%s: %w: it is not listed", rel, ErrNotVerified)
		}
		if got != size {
			return fmt.Errorf("%s: %w: %d bytes instead of %d", rel, ErrNotVerified, got, size)
		}
	}
	if have, want := countSegments(have), countSegments(want); have != want {
		if want > 0 || len(v.meta.Thanos.Files) > 0 {
			return fmt.Errorf("%s: %w: %d segments instead of %d", ChunksDirname, ErrNotVerified, have, want)
		}
	}
	v.Remote, err = newRemote(have, func(rel string) RangeReader {
		return RangeReader{Bucket: v.bkt, Object: Name(v.meta.ULID, rel), SizeBytes: have[rel], Told: v.told}
	})
	return err
}

// sections looks at all of the index but its series.
func (v *remoteVerifier) sections(ctx context.Context) (err error) {
	if err := v.section(ctx, "symbols", v.toc.Symbols); err != nil {
		return err
	}
	if err := v.section(ctx, "postings offset table", v.toc.PostingsTable); err != nil {
		return err
	}
	if v.refs, err = OpenSeriesRefs(ctx, &v.Index, v.toc, v.meta.Thanos.IndexStats.SeriesMaxSize); err != nil {
		return err
	}
	if n := v.meta.Stats.NumSeries; n > 0 && uint64(v.refs.Count) != n {
		return v.Index.Corrupt(v.refs.Place.Start, fmt.Errorf("%d series in the index, %d in meta.json", v.refs.Count, n))
	}
	if v.refs.Count == 0 {
		return nil
	}
	return v.section(ctx, "postings of all series", v.refs.Place)
}

// section compares the checksum of a section that is short, else its length.
func (v *remoteVerifier) section(ctx context.Context, name string, at layout.Span) error {
	var err error
	if at.Len() <= verifySection {
		_, err = v.Index.Record(ctx, at, layout.PostingsRecord, at.Len())
	} else {
		err = v.Index.Checked(ctx, at.Start, 4, func(b []byte) error {
			if 4+int64(binary.BigEndian.Uint32(b))+crc32.Size > at.Len() {
				return layout.ErrLength
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// sample is one series whose chunks are looked at.
type sample struct {
	number int64 // from 0
	at     int64 // offset of its entry
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

// pick reads the entries of samples one by one.
func (v *remoteVerifier) pick(ctx context.Context) (samples []sample, err error) {
	for _, i := range positions(v.refs.Count) {
		if !v.affordable() {
			break
		}
		var s layout.Series
		at, err := v.refs.Entry(ctx, i, v.refs.Count, &s)
		if err != nil {
			return nil, err
		}
		if i == 0 && at != seriesStart(v.toc) {
			return nil, v.Index.Corrupt(v.refs.Place.Start, fmt.Errorf("the first series is said to be at offset %d", at))
		}
		samples = append(samples, sample{i, at, s.Chunks})
	}
	return samples, nil
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
	if v.heads[segment] {
		return nil
	}
	if v.heads == nil {
		v.heads = map[int]bool{}
	}
	v.heads[segment] = true
	return v.Segments[segment].CheckSegment(ctx)
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
