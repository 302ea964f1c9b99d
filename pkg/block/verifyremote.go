package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/firnline/firnline/pkg/block/layout"
)

// What VerifyRemote asks of a bucket at most, whatever the block's size. Only a
// single series entry or chunk that is longer than any should be comes on top.
const (
	verifyRequests = 64
	verifyBytes    = 16 << 20

	verifySection = 3 << 20  // a section of the index up to this long is read whole
	verifyRecord  = 64 << 10 // of a series entry or chunk, read at once
	verifySamples = 12       // series to look at, and as many chunks
	verifyAtOnce  = 8        // samples side by side, since a bucket takes its time for each
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

	long sync.Mutex // reads a record that is longer than any should be
	mu   struct {
		sync.Mutex
		requests, bytes int64
		heads           map[int]bool // segments whose head was looked at
	}
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
		samples = v.pick()
	}
	if err != nil {
		return err
	}
	for n := 0; len(samples) > 0; samples = samples[n:] {
		if n = min(v.affordable(), len(samples)); n == 0 {
			break
		}
		if err := v.look(ctx, samples[:n]); err != nil {
			return err
		}
	}
	return nil
}

// look looks at samples side by side.
func (v *remoteVerifier) look(ctx context.Context, samples []sample) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range samples {
		g.Go(func() (err error) {
			if s.at == 0 {
				if s, err = v.entry(ctx, s.number); err != nil {
					return err
				}
			}
			return v.chunkOf(ctx, s)
		})
	}
	return g.Wait()
}

// affordable is how many more samples keep to what may be asked for, all at once.
func (v *remoteVerifier) affordable() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return int(max(min(verifyAtOnce, (verifyRequests-v.mu.requests)/sampleRequests, (verifyBytes-v.mu.bytes)/sampleBytes), 0))
}

func (v *remoteVerifier) told(bytes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.requests++
	v.mu.bytes += int64(bytes)
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
		return RangeReader{Bucket: v.bkt, Object: Name(v.meta.ULID, rel), SizeBytes: have[rel], Told: v.told, Long: &v.long}
	})
	return err
}

// sections looks at all of the index but its series.
func (v *remoteVerifier) sections(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.section(ctx, "symbols", v.toc.Symbols) })
	g.Go(func() error { return v.section(ctx, "postings offset table", v.toc.PostingsTable) })
	g.Go(func() error { return v.references(ctx) })
	return g.Wait()
}

// references looks at the list of all series.
func (v *remoteVerifier) references(ctx context.Context) (err error) {
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
